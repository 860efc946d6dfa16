//! What a program has that nobody started: an entry, a log, an end, exceptions, and the memory
//! functions. Nothing in here knows of DMA; a kernel has all of it already.
// UNSAFETY: a promise about the number of processors.
#![expect(unsafe_code)]

pub mod bytes;
pub mod entry;
pub mod exit;
pub mod serial;
pub mod start;
pub mod traps;

use core::ops::Deref;

/// A value that one processor uses, with interrupts off: what a kernel would put behind a lock.
#[derive(Debug)]
pub struct OneCpu<T>(T);

// SAFETY: the guest starts no second processor and never switches interrupts on, so that there
// is one thread of execution.
unsafe impl<T> Sync for OneCpu<T> {}

impl<T> OneCpu<T> {
    /// The value.
    pub const fn new(value: T) -> Self {
        Self(value)
    }
}

impl<T> Deref for OneCpu<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}
