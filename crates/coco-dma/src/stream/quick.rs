//! The quick way of a map: what the table of verdicts settles, with slots that are at hand. Where
//! anything is out of the ordinary the map goes the whole way, and nothing has happened.
// UNSAFETY: raw buffers are read while a device may be at them.
#![expect(unsafe_code)]

use core::ptr::NonNull;

use super::carry::Ends;
use super::raw::Held;
use super::raw::RawMapping;
use crate::addr::PhysRange;
use crate::attrs::Attrs;
use crate::device::Device;
use crate::observe::Event;
use crate::plan::Moment;
use crate::platform::Platform;
use crate::pool::Hand;
use crate::pool::Shape;
use crate::state::Direction;

impl<P: Platform + ?Sized> Device<'_, P> {
    /// Maps a buffer without attributes, if that is quickly done.
    ///
    /// # Safety
    ///
    /// As for [`map_raw`](Self::map_raw).
    #[inline]
    pub(super) unsafe fn map_quickly(
        &self,
        hand: &mut impl Hand,
        buffer: NonNull<[u8]>,
        range: Option<PhysRange>,
        direction: Direction,
    ) -> Option<RawMapping> {
        let len = buffer.len();
        let verdict = self.verdict(range, len)?;
        let (index, pool) = (verdict.index, verdict.pool);
        let original = range.map_or(0, |range| range.base().raw());
        let shape = Shape::keeping(verdict.base.raw(), len, original, verdict.keep)?;
        if self.stopped().is_some() || !self.charge(shape.count()) {
            return None;
        }
        let counted = self.counts_by(index);
        let count = |turn| self.count().bounced_in(Some(turn).filter(|_| counted));
        let Some(run) = hand.take_quickly(pool, &shape, self.owner(), count) else {
            self.discharge(shape.count());
            return None;
        };
        let at = run.offset();
        let addr = verdict.base.checked_add(at as u64);
        let (Some(slots), Some(addr)) = (pool.bytes().at(at, len), addr) else {
            // The pool was not open, or is not where the device was told: both cannot be.
            hand.give(pool, &run, |turn| self.count().finished_in(turn.filter(|_| counted)));
            self.discharge(shape.count());
            return None;
        };
        let (bounced, attrs) = (true, Attrs::NONE);
        let ends = Ends { buffer, seen: slots, bounced, direction, attrs };
        // SAFETY: the buffer is readable and writable by condition 1 of `map_raw`; the slots are
        // ours.
        unsafe { self.carry(&ends, Moment::Map, 0..len) };
        let (device, reason) = (self.name(), verdict.reason);
        self.dma().tell_if(|| Event::Bounced { device, addr, len, reason });
        let place = Held::Slots { pool: index, run, at, mapped: None };
        Some(RawMapping { owner: self.owner(), addr, buffer, direction, attrs, place })
    }

    /// Ends a map through a pool, if no IOMMU has to be told; false where nothing has happened.
    /// Nothing of the record is moved: it may have been written just now.
    ///
    /// # Safety
    ///
    /// As for [`finish_raw`](Self::finish_raw), and the mapping is this device's.
    #[inline]
    pub(super) unsafe fn finish_quickly(
        &self,
        hand: &mut impl Hand,
        mapping: &RawMapping,
        written: usize,
    ) -> bool {
        let Held::Slots { pool: index, run, mapped: None, .. } = &mapping.place else {
            return false;
        };
        let Some(pool) = self.pool(*index) else { return false };
        // What the device only read has nothing to say.
        if mapping.direction.from_device()
            && let Some(ends) = self.ends(mapping)
        {
            // SAFETY: the buffer is readable and writable by condition 1 of `map_raw`.
            unsafe { self.carry(&ends, Moment::Finish, 0..written) };
        }
        let counted = self.counts_by(*index);
        let count = |turn: Option<usize>| self.count().finished_in(turn.filter(|_| counted));
        // Slots that were revoked are not ours any more.
        if hand.give(pool, run, count) {
            self.discharge(run.count());
        }
        true
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests;
