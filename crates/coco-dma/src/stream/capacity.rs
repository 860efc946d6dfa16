//! Asking for room before submitting, for interfaces whose map cannot fail.

use core::ptr::NonNull;

use crate::addr::PhysRange;
use crate::attrs::Attrs;
use crate::device::Device;
use crate::iommu::Fit;
use crate::plan;
use crate::plan::Plan;
use crate::platform::Platform;
use crate::pool::SlotAlloc;
use crate::reason::Refuse;
use crate::state::Direction;

/// The most buffers that one question may name.
pub const MAX_ROOM: usize = 32;

impl<P: Platform + ?Sized> Device<'_, P> {
    /// Whether all of `buffers` could be mapped at this moment, together. The answer holds as
    /// long as nobody else takes from the same pools. The slots are really taken and given back,
    /// so that fragmentation and alignment count. More than [`MAX_ROOM`] buffers are refused as
    /// too large. Any context.
    pub fn capacity_for(&self, buffers: &[NonNull<[u8]>]) -> Result<(), Refuse> {
        if buffers.len() > MAX_ROOM {
            return Err(Refuse::TooLarge);
        }
        if let Some(reason) = self.stopped() {
            return Err(reason);
        }
        let Some((first, rest)) = buffers.split_first() else { return Ok(()) };
        let range = if first.is_empty() { None } else { self.platform().locate(*first) };
        if range.and_then(|range| self.in_place(range)).is_some() {
            return self.capacity_for(rest);
        }
        let len = u64::try_from(first.len()).unwrap_or(0);
        let request = self.request(range, len, Direction::Both, Attrs::NONE);
        match plan::map(&request, &mut ()) {
            Plan::Refuse(reason) => Err(reason),
            Plan::Direct { addr: Some(_), .. } => self.capacity_for(rest),
            Plan::Direct { addr: None, .. } => self.capacity_behind(range, rest),
            Plan::Bounce { pools, .. } => {
                let (mut hand, mut why) = (self.hand(), None);
                for candidate in pools {
                    let Some(pool) = self.pool(candidate.index) else { continue };
                    let places = &candidate.places;
                    let Ok(count) = usize::try_from(places.slots_at(places.lowest())) else {
                        continue;
                    };
                    let alloc = || hand.alloc(pool, places, self.owner()).ok();
                    let Some(run) = self.alloc_run(count, alloc)? else {
                        why = Some(plan::no_slots(why, pool.is_open()));
                        continue;
                    };
                    // Which slots they are makes no difference to addresses of a domain.
                    let behind = candidate.base.is_none();
                    let at = pool.range().slice(candidate.pad, len).filter(|_| behind);
                    let answer = self.capacity_behind(at, rest);
                    self.free_run(&mut hand, pool, &run, |_| ());
                    return answer;
                }
                Err(why.unwrap_or(Refuse::PoolFull))
            }
        }
    }

    /// Whether there is room for `rest` when `range` has its addresses in the device's domain, if
    /// it is behind one.
    fn capacity_behind(
        &self,
        range: Option<PhysRange>,
        rest: &[NonNull<[u8]>],
    ) -> Result<(), Refuse> {
        let (Some(range), Some(domain)) = (range, self.domain()) else {
            return self.capacity_for(rest);
        };
        let mapped =
            domain.alloc(range, Fit::Like(range.base().raw()), self.info(), self.owner())?;
        let answer = self.capacity_for(rest);
        domain.free(&mapped, self.owner());
        answer
    }
}
