//! The unit of all bookkeeping: one atomic machine word, in storage that the caller owns. Loom's
//! own type stands in under `cfg(loom)`, so that the models check the code that ships.

#[cfg(all(test, loom))]
pub(crate) mod race;

#[cfg(not(loom))]
pub(crate) use core::sync::atomic::AtomicPtr;
#[cfg(not(loom))]
pub(crate) use core::sync::atomic::AtomicUsize;
pub(crate) use core::sync::atomic::Ordering;
#[cfg(not(loom))]
pub(crate) use core::sync::atomic::fence;

#[cfg(loom)]
pub(crate) use loom::sync::atomic::AtomicPtr;
#[cfg(loom)]
pub(crate) use loom::sync::atomic::AtomicUsize;
#[cfg(loom)]
pub(crate) use loom::sync::atomic::fence;

/// One word of storage. A `static` array of them is enough for everything the layer keeps:
/// nothing here needs an allocator, and nothing of it lies in memory that the host can write.
#[derive(Debug)]
#[repr(transparent)]
pub struct Word(pub(crate) AtomicUsize);

impl Word {
    /// Bits in a word of this machine.
    pub(crate) const BITS: usize = usize::BITS as usize;

    /// A word of zeroes, as fresh storage is.
    #[cfg(not(loom))]
    #[expect(clippy::new_without_default, reason = "a Default would not be const")]
    pub const fn new() -> Self {
        Self(AtomicUsize::new(0))
    }

    /// A word of zeroes, as fresh storage is.
    #[cfg(loom)]
    #[expect(clippy::new_without_default, reason = "as above")]
    pub fn new() -> Self {
        Self(AtomicUsize::new(0))
    }
}

/// Loom takes `SeqCst` accesses for weaker than they are, and needs a fence where they matter. The
/// code that ships needs none.
#[inline(always)]
pub(crate) fn fence_for_models() {
    #[cfg(loom)]
    loom::sync::atomic::fence(Ordering::SeqCst);
}

/// Stores what others may have exchanged meanwhile. Loom takes such a store for older than an
/// exchange that came before it (a read-modify-write has no place between, C++20 [atomics.order]
/// p10), and needs a step that reads too. The code that ships needs none.
#[inline(always)]
pub(crate) fn store_over_exchanges(word: &Word, value: usize, order: Ordering) {
    #[cfg(loom)]
    word.0.swap(value, order);
    #[cfg(not(loom))]
    word.0.store(value, order);
}
