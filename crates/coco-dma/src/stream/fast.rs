//! The quick way of a map: what the table of verdicts settles, with slots that are at hand. Where
//! anything is out of the ordinary the map goes the whole way, and nothing has happened.
// UNSAFETY: raw buffers are read while a device may be at them.
#![expect(unsafe_code)]

use core::ptr::NonNull;

use super::raw::Held;
use super::raw::RawMapping;
use super::transfer::Ends;
use crate::addr::DmaAddr;
use crate::addr::PhysRange;
use crate::attrs::Attrs;
use crate::device::DefaultPool;
use crate::device::Device;
use crate::observe::Event;
use crate::plan::Moment;
use crate::platform::Platform;
use crate::pool::Pool;
use crate::pool::Shape;
use crate::pool::SlotAlloc;
use crate::pool::SlotRun;
use crate::state::Direction;

impl<P: Platform + ?Sized> Device<'_, P> {
    /// Maps a buffer without attributes through the usual pool, if that is quickly done.
    ///
    /// # Safety
    ///
    /// As for [`map_raw`](Self::map_raw).
    #[inline]
    pub(super) unsafe fn map_fast(
        &self,
        hand: &mut impl SlotAlloc,
        buffer: NonNull<[u8]>,
        range: Option<PhysRange>,
        direction: Direction,
    ) -> Option<RawMapping> {
        let default_pool = self.default_pool()?;
        // SAFETY: this function's conditions.
        let run = unsafe { self.bounce_fast(hand, default_pool, buffer, range, direction) }?;
        let (owner, attrs, at) = (self.owner(), Attrs::NONE, run.offset());
        // It was seen to be an address.
        let addr = DmaAddr::new(default_pool.base.raw().wrapping_add(at as u64));
        let place = Held::Slots { pool: default_pool.index, run, at, mapped: None };
        Some(RawMapping { owner, addr, buffer, direction, attrs, place })
    }

    /// The slots of such a map, with the bytes in them. They are two words and come in registers,
    /// so that the record of them is made where it is wanted, and not moved.
    ///
    /// # Safety
    ///
    /// As for [`map_raw`](Self::map_raw).
    #[inline(never)]
    unsafe fn bounce_fast(
        &self,
        hand: &mut impl SlotAlloc,
        default_pool: &DefaultPool<'_>,
        buffer: NonNull<[u8]>,
        range: Option<PhysRange>,
        direction: Direction,
    ) -> Option<SlotRun> {
        let len = buffer.len();
        let (pool, base) = (default_pool.pool, default_pool.base);
        let entry = self.table_entry(range, len)?; // sabotage: fast-range
        let original = range.map_or(0, |range| range.base().raw());
        let shape = Shape::keeping(base.raw(), len, original, default_pool.keep)?;
        // sabotage: fast-life
        if self.stopped().is_some() {
            return None;
        }
        let count = |turn| self.count().bounced_fast(turn);
        let alloc = || hand.alloc_fast(pool, &shape, self.owner(), count); // sabotage: fast-owner
        let run = self.alloc_run(shape.count(), alloc).ok()??; // sabotage: fast-quota
        let at = run.offset();
        let (Some(slots), Some(addr)) = (pool.bytes().at(at, len), base.checked_add(at as u64))
        else {
            // The pool was not open, or is not where the device was told: both cannot be.
            self.free_fast(hand, pool, &run);
            return None;
        };
        let ends = Ends::in_slots(buffer, slots, direction);
        // SAFETY: the buffer is readable, and writable where the device writes, by condition 1 of
        // `map_raw`; the slots are ours.
        unsafe { self.transfer(&ends, Moment::Map, 0..len) };
        let (device, reason) = (self.name(), entry.reason);
        if self.dma().is_observed() {
            self.tell_fast(hand, pool, &run, &Event::Bounced { device, addr, len, reason });
        }
        Some(run)
    }

    #[cold]
    #[inline(never)]
    pub(super) fn free_fast(&self, hand: &mut impl SlotAlloc, pool: &Pool<'_>, run: &SlotRun) {
        self.free_run(hand, pool, run, |turn| self.count().unmapped_in(turn));
    }

    /// Ends a map without attributes through the usual pool, which no IOMMU has to be told of.
    ///
    /// # Safety
    ///
    /// As for [`unmap_raw`](Self::unmap_raw), of the map of this buffer that has these slots.
    #[inline(never)]
    pub(super) unsafe fn unmap_fast(
        &self,
        hand: &mut impl SlotAlloc,
        default_pool: &DefaultPool<'_>,
        run: SlotRun,
        buffer: NonNull<[u8]>,
        direction: Direction,
        written: usize,
    ) {
        let pool = default_pool.pool;
        // What the device only read has nothing to say, and revoked slots are not ours any more.
        if direction.from_device()
            && pool.holds(&run)
            && let Some(seen) = pool.bytes().at(run.offset(), buffer.len())
        {
            let ends = Ends::in_slots(buffer, seen, direction);
            // SAFETY: as in `map_fast`.
            unsafe { self.transfer(&ends, Moment::Unmap, 0..written) }; // sabotage: whole-slot-back
        }
        self.free_run(hand, pool, &run, |turn| self.count().unmapped_in(turn));
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests;
