//! The pool alone: slots by hand, and the copies that its user makes.
// UNSAFETY: slots are given back by hand, and bytes are copied to and from them.
#![expect(unsafe_code)]

use core::ptr::NonNull;

use coco_dma::addr::AlignMask;
use coco_dma::addr::Constraints;
use coco_dma::pool::Pool;
use coco_dma::pool::PoolHandle;
use coco_dma::pool::SlotRun;

use crate::hand::Subject;
use crate::hand::Worker;
use crate::memory::Region;
use crate::memory::copy;
use crate::memory::zero;
use crate::terms::AtMap;
use crate::terms::Terms;

/// What all hands of a pool know.
#[derive(Clone, Copy, Debug)]
pub(super) struct Common<'p> {
    pub(super) pool: &'p Pool<'p>,
    pub(super) region: &'p Region,
    pub(super) terms: Terms,
    pub(super) keep: AlignMask,
}

/// What is kept of a map: the token of the slots, and the buffer.
#[derive(Debug)]
pub(super) struct Bounced {
    run: SlotRun,
    buffer: NonNull<[u8]>,
}

// SAFETY: the record only carries the pointer; whoever finishes it answers for the buffer.
unsafe impl Send for Bounced {}

impl Common<'_> {
    #[inline]
    fn constraints(&self, buffer: NonNull<[u8]>) -> Constraints {
        let original = buffer.cast::<u8>().addr().get() as u64;
        Constraints { original, keep: self.keep, ..Constraints::of(buffer.len() as u64) }
    }

    /// The bytes of a map that was made.
    ///
    /// # Safety
    ///
    /// The buffer is readable, and the slots are held.
    #[inline]
    unsafe fn made(&self, run: SlotRun, buffer: NonNull<[u8]>) -> Bounced {
        let len = buffer.len();
        match self.terms.at_map() {
            AtMap::Nothing => {}
            AtMap::Copy => {
                let slots = self.region.at(run.offset(), len);
                // SAFETY: the buffer by this function's condition, the slots by `at`.
                unsafe { copy(buffer.cast(), slots, len) };
            }
            // SAFETY: `at` answers for the slots.
            AtMap::Zero => unsafe { zero(self.region.at(run.offset(), len), len) },
        }
        Bounced { run, buffer }
    }

    /// The bytes of a map that ends.
    ///
    /// # Safety
    ///
    /// The buffer is writable where the device writes, and the slots are held.
    #[inline]
    unsafe fn ended(&self, record: &Bounced) {
        if self.terms.copies_back() {
            let len = record.buffer.len();
            let slots = self.region.at(record.run.offset(), len);
            // SAFETY: the buffer by this function's condition, the slots by `at`.
            unsafe { copy(slots, record.buffer.cast(), len) };
        }
    }
}

/// A pool of which each thread claims a cache.
#[derive(Debug)]
pub(super) struct Claimed<'p>(pub(super) Common<'p>);

impl Subject for Claimed<'_> {
    type Worker<'s>
        = ClaimedHand<'s>
    where
        Self: 's;

    fn worker(&self, cpu: usize) -> Option<ClaimedHand<'_>> {
        Some(ClaimedHand { handle: self.0.pool.claim(cpu)?, common: self.0 })
    }

    fn used(&self) -> usize {
        self.0.pool.used()
    }
}

/// A thread with a cache for itself.
#[derive(Debug)]
pub(super) struct ClaimedHand<'s> {
    handle: PoolHandle<'s>,
    common: Common<'s>,
}

impl Worker for ClaimedHand<'_> {
    type Record = Bounced;

    #[inline(always)]
    unsafe fn map(&mut self, buffer: NonNull<[u8]>) -> Option<Bounced> {
        let run = self.handle.alloc_raw(&self.common.constraints(buffer)).ok()?;
        // SAFETY: this function's condition; the slots were just taken.
        Some(unsafe { self.common.made(run, buffer) })
    }

    #[inline(always)]
    unsafe fn unmap(&mut self, record: Bounced) {
        // SAFETY: this function's condition; the slots are the record's.
        unsafe { self.common.ended(&record) };
        // SAFETY: the run was taken from this pool, and its bytes are done with.
        let held = unsafe { self.handle.free_raw(record.run) };
        debug_assert!(held, "nobody revoked it");
    }

    fn offset(&self, record: &Bounced) -> usize {
        record.run.offset()
    }
}

/// A pool that threads share by reference.
#[derive(Debug)]
pub(super) struct Shared<'p>(pub(super) Common<'p>);

impl Subject for Shared<'_> {
    type Worker<'s>
        = SharedHand<'s>
    where
        Self: 's;

    fn worker(&self, cpu: usize) -> Option<SharedHand<'_>> {
        Some(SharedHand { cpu, common: self.0 })
    }

    fn used(&self) -> usize {
        self.0.pool.used()
    }
}

/// A thread that says which CPU it is on.
#[derive(Debug)]
pub(super) struct SharedHand<'s> {
    cpu: usize,
    common: Common<'s>,
}

impl Worker for SharedHand<'_> {
    type Record = Bounced;

    #[inline(always)]
    unsafe fn map(&mut self, buffer: NonNull<[u8]>) -> Option<Bounced> {
        let run = self.common.pool.alloc_raw(self.cpu, &self.common.constraints(buffer)).ok()?;
        // SAFETY: this function's condition; the slots were just taken.
        Some(unsafe { self.common.made(run, buffer) })
    }

    #[inline(always)]
    unsafe fn unmap(&mut self, record: Bounced) {
        // SAFETY: this function's condition; the slots are the record's.
        unsafe { self.common.ended(&record) };
        // SAFETY: the run was taken from this pool, and its bytes are done with.
        let held = unsafe { self.common.pool.free_raw(self.cpu, record.run) };
        debug_assert!(held, "nobody revoked it");
    }

    fn offset(&self, record: &Bounced) -> usize {
        record.run.offset()
    }
}
