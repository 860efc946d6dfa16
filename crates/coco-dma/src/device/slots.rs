//! Slots for a device: on its quota and out of a pool, both or neither.

use super::Device;
use crate::platform::Platform;
use crate::pool::Pool;
use crate::pool::SlotAlloc;
use crate::pool::SlotRun;
use crate::reason::Refuse;

impl<P: Platform + ?Sized> Device<'_, P> {
    /// Takes `count` slots by `alloc`: on the quota first, so that who has none left does not even
    /// look for slots, and is in nobody's way. `None` where `alloc` finds none.
    #[inline]
    pub(crate) fn alloc_run(
        &self,
        count: usize,
        alloc: impl FnOnce() -> Option<SlotRun>,
    ) -> Result<Option<SlotRun>, Refuse> {
        if !self.quota.charge(count) {
            return Err(Refuse::Quota);
        }
        let run = alloc();
        if run.is_none() {
            self.quota.discharge(count);
        }
        Ok(run)
    }

    /// Gives such a run back. Where it was revoked before it is not the device's any more, and
    /// nothing happens. `then` is [`SlotAlloc::free`]'s.
    #[inline]
    pub(crate) fn free_run(
        &self,
        hand: &mut impl SlotAlloc,
        pool: &Pool<'_>,
        run: &SlotRun,
        then: impl FnOnce(Option<usize>),
    ) {
        if hand.free(pool, run, then) {
            self.quota.discharge(run.count()); // sabotage: fast-discharge
        }
    }

    /// Notes how many slots of its pools are in use, before some are given back that nobody saw:
    /// what CPUs take of what they keep counts in no high-water mark before somebody looks.
    pub(crate) fn look_at_used(&self) {
        for pool in self.pools.iter().flatten() {
            pool.used();
        }
    }

    /// Books pages of our own of so many slots on the quota; false where it has not that many left.
    pub(crate) fn charge_pages(&self, slots: usize) -> bool {
        self.quota.charge(slots)
    }

    /// Takes them off again.
    pub(crate) fn discharge_pages(&self, slots: usize) {
        self.quota.discharge(slots);
    }

    /// Slots on the device's quota now, with pages of our own counted in slots; 0 where it has none.
    pub fn charged(&self) -> usize {
        self.quota.held()
    }
}
