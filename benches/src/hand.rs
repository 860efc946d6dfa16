//! What is measured, as the harness sees it: somebody who maps and finishes.
// UNSAFETY: buffers are handed over raw, as to a device.
#![expect(unsafe_code)]

use core::ptr::NonNull;

use serde::Serialize;

/// Which way through the layer is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Way {
    /// The pool alone: slots and copies.
    Pool,
    /// A device's map and finish: plan, ledger, record, quota and counters too.
    Whole,
}

/// How a pool's caches are reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Handle {
    /// By a handle that its CPU alone has.
    Exclusive,
    /// By a reference that everybody has.
    Shared,
}

/// An implementation over a pool. Threads get a [`Worker`] each.
pub trait Subject: Sync {
    /// What one thread maps and finishes with.
    type Worker<'s>: Worker
    where
        Self: 's;

    /// The hand of the thread on this CPU; `None` where somebody has it.
    fn worker(&self, cpu: usize) -> Option<Self::Worker<'_>>;

    /// Slots in use now, for checks: exact while nobody maps.
    fn used(&self) -> usize;
}

/// One thread's side of an implementation.
pub trait Worker: Send {
    /// What is kept of a map. It may be finished by another hand of the same subject.
    type Record: Send;

    /// Maps a buffer; `None` where the pool has no room.
    ///
    /// # Safety
    ///
    /// The buffer is readable, and writable where the device writes, until the map is finished.
    unsafe fn map(&mut self, buffer: NonNull<[u8]>) -> Option<Self::Record>;

    /// Ends a map, all of whose bytes arrived.
    ///
    /// # Safety
    ///
    /// The condition of [`map`](Self::map) held until now, and the record is of this subject.
    unsafe fn unmap(&mut self, record: Self::Record);

    /// Where the mapping's bytes begin in the pool.
    fn offset(&self, record: &Self::Record) -> usize;
}
