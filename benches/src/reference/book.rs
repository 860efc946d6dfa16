//! What the reference keeps: a record a slot and a record an area, laid out as Linux lays them out
//! (24 and 16 bytes), so that they cost the same cache lines, false sharing included.

use core::sync::atomic::AtomicU16;
use core::sync::atomic::AtomicU32;
use core::sync::atomic::AtomicUsize;
use core::sync::atomic::Ordering;

/// The original of a slot that has none.
pub(super) const INVALID: usize = usize::MAX;

/// One slot. An area's lock orders `list`; the rest is its holder's. The atomics cost what plain
/// fields would.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Slot {
    original: AtomicUsize,
    len: AtomicUsize,
    list: AtomicU16,
    pad: AtomicU16,
}

impl Slot {
    /// A free slot with `list` free ones from it on.
    pub(super) fn free(list: u16) -> Self {
        Self {
            original: AtomicUsize::new(INVALID),
            len: AtomicUsize::new(0),
            list: AtomicU16::new(list),
            pad: AtomicU16::new(0),
        }
    }

    /// The free slots from this one to the next that is used, or to the end of its set; 0: used.
    pub(super) fn list(&self) -> u16 {
        self.list.load(Ordering::Relaxed)
    }

    pub(super) fn set_list(&self, list: u16) {
        self.list.store(list, Ordering::Relaxed);
    }

    /// The address of the original bytes that this slot holds from its kept bits on.
    pub(super) fn original(&self) -> usize {
        self.original.load(Ordering::Relaxed)
    }

    pub(super) fn set_original(&self, original: usize) {
        self.original.store(original, Ordering::Relaxed);
    }

    /// What is left of the allocation from here on; in the last slots it may wrap below zero.
    pub(super) fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    /// Slots of padding before this one.
    pub(super) fn pad(&self) -> u16 {
        self.pad.load(Ordering::Relaxed)
    }

    pub(super) fn set_pad(&self, pad: u16) {
        self.pad.store(pad, Ordering::Relaxed);
    }

    /// Marks it as used, `len` bytes of the allocation being left from it on.
    pub(super) fn take(&self, len: usize) {
        self.list.store(0, Ordering::Relaxed);
        self.len.store(len, Ordering::Relaxed);
    }

    /// Marks it as free.
    pub(super) fn give(&self, list: u16) {
        self.list.store(list, Ordering::Relaxed);
        self.original.store(INVALID, Ordering::Relaxed);
        self.len.store(0, Ordering::Relaxed);
        self.pad.store(0, Ordering::Relaxed);
    }
}

/// One area: a part of the pool under a lock of its own.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Area {
    used: AtomicUsize,
    index: AtomicU32,
    lock: AtomicU32,
}

/// Areas that begin with a cache line, as the kernel's array does.
#[derive(Debug)]
#[repr(align(64))]
pub(super) struct Line(pub(super) [Area; 4]);

impl Line {
    pub(super) fn new() -> Self {
        Self([Area::new(), Area::new(), Area::new(), Area::new()])
    }
}

/// The turn of whoever holds an area's lock.
#[derive(Debug)]
pub(super) struct AreaGuard<'a>(&'a Area);

impl Area {
    const fn new() -> Self {
        Self { used: AtomicUsize::new(0), index: AtomicU32::new(0), lock: AtomicU32::new(0) }
    }

    /// Spins until the area is ours: one compare-and-exchange where nobody else is at it.
    pub(super) fn lock(&self) -> AreaGuard<'_> {
        while self.lock.compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed).is_err() {
            while self.lock.load(Ordering::Relaxed) != 0 {
                core::hint::spin_loop();
            }
        }
        AreaGuard(self)
    }

    /// Slots in use.
    pub(super) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Where the next search begins.
    pub(super) fn index(&self) -> usize {
        self.index.load(Ordering::Relaxed) as usize
    }
}

impl AreaGuard<'_> {
    pub(super) fn used(&self) -> usize {
        self.0.used()
    }

    pub(super) fn set_used(&self, used: usize) {
        self.0.used.store(used, Ordering::Relaxed);
    }

    pub(super) fn index(&self) -> usize {
        self.0.index()
    }

    /// An index past 32 bits cannot be: no area is that large.
    pub(super) fn set_index(&self, index: usize) {
        self.0.index.store(u32::try_from(index).unwrap_or(0), Ordering::Relaxed);
    }
}

impl Drop for AreaGuard<'_> {
    fn drop(&mut self) {
        self.0.lock.store(0, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_books_have_the_sizes_of_linux() {
        assert_eq!(size_of::<Slot>(), 24);
        assert_eq!(size_of::<Area>(), 16);
    }
}
