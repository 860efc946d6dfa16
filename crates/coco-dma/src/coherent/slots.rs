//! Allocations from the slots of a pool: never converted here, and seen through the pool's own view
//! or, where that does not suit, through another one.
// UNSAFETY: slots change hands between a pool, the CPU and the device.
#![expect(unsafe_code)]

use core::ptr::NonNull;

use super::raw::AllocInfo;
use super::raw::AllocOptions;
use super::raw::RawCoherent;
use super::raw::Source;
use crate::addr::DmaAddr;
use crate::device::Device;
use crate::iommu::Mapped;
use crate::observe::Event;
use crate::plan;
use crate::plan::Candidate;
use crate::plan::Candidates;
use crate::plan::Extent;
use crate::platform::CpuView;
use crate::platform::NoView;
use crate::platform::Platform;
use crate::pool::Pool;
use crate::pool::SlotAlloc;
use crate::pool::SlotRun;
use crate::reason::Refuse;
use crate::state::CacheMode;
use crate::state::PoolUse;

/// What slots are as an allocation.
struct PreparedSlots {
    view: CpuView,
    addr: DmaAddr,
    mapped: Option<Mapped>,
}

impl<P: Platform + ?Sized> Device<'_, P> {
    /// Slots of the first pool that has them.
    pub(super) fn alloc_slots(
        &self,
        pools: Candidates<'_>,
        extent: Extent,
        options: AllocOptions,
    ) -> Result<RawCoherent, Refuse> {
        let (mut why, mut hand) = (None, self.hand());
        for candidate in pools {
            let index = candidate.index;
            let Some(pool) = self.pool(index) else { continue };
            let owner = self.owner().allocating();
            let places = &candidate.places;
            let Ok(count) = usize::try_from(places.slots_at(places.lowest())) else { continue };
            let alloc = || hand.alloc(pool, places, owner).ok();
            let Some(run) = self.alloc_run(count, alloc)? else {
                why = Some(plan::no_slots(why, pool.is_open()));
                continue;
            };
            // SAFETY: the slots are ours.
            let dressed = unsafe { self.dress(pool, &candidate, run.offset(), extent, options) };
            let PreparedSlots { view, addr, mapped } = match dressed {
                Ok(dressed) => dressed,
                Err(reason) => {
                    why = Some(reason);
                    self.free_run(&mut hand, pool, &run, |_| ());
                    continue;
                }
            };
            if matches!(pool.purpose(), PoolUse::Reserve | PoolUse::Coherent) {
                let (free, capacity) = (pool.free(), pool.capacity());
                if free < capacity.div_ceil(4) {
                    self.dma().notify(&Event::LowWater { free, capacity });
                }
            }
            let len = usize::try_from(extent.len).unwrap_or(0);
            let source = Source::Slots { pool: index, run };
            let made = AllocInfo { options, state: candidate.state };
            return Ok(RawCoherent { owner: self.owner(), addr, view, len, source, made, mapped });
        }
        Err(why.unwrap_or(Refuse::PoolFull))
    }

    /// Zeroes an allocation at `offset` of a pool, and gives the CPU its view of them and the
    /// device its address.
    ///
    /// # Safety
    ///
    /// The slots there are the caller's.
    unsafe fn dress(
        &self,
        pool: &Pool<'_>,
        candidate: &Candidate,
        offset: usize,
        Extent { len: whole, align }: Extent,
        options: AllocOptions,
    ) -> Result<PreparedSlots, Refuse> {
        let full = Refuse::PoolFull;
        let (Ok(at), Ok(len)) = (u64::try_from(offset), usize::try_from(whole)) else {
            return Err(full);
        };
        let start = pool.bytes().at(offset, len).ok_or(full)?;
        let range = pool.range().slice(at, whole).ok_or(full)?;
        // SAFETY: this function's condition.
        unsafe { pool.bytes().zero(offset, len) }; // sabotage: coherent-not-zeroed
        let own = options.cache != plan::POOL_CACHE; // sabotage: pool-own-view
        let view = if own {
            let (state, cache) = (candidate.state, options.cache);
            // SAFETY: a pool's memory keeps its state while slots of it are held, and the view ends
            // before they are given back.
            let view = unsafe { self.platform().map_cpu(range, state, cache, options.context) };
            view.map_err(|NoView| Refuse::NoView)?
        } else {
            start.into()
        };
        let given = match candidate.base {
            Some(base) => base.checked_add(at).map(|addr| (addr, None)).ok_or(full),
            None => {
                let bytes = NonNull::slice_from_raw_parts(view.start, len);
                // SAFETY: a pool's memory keeps its state while slots of it are held.
                unsafe { self.expose_pages(range, bytes, (candidate.state, align)) }
            }
        };
        if given.is_err() && own {
            // SAFETY: the view was made above, and nobody uses it.
            unsafe { self.platform().unmap_cpu(view, range) };
        }
        let (addr, mapped) = given?;
        Ok(PreparedSlots { view, addr, mapped })
    }

    /// Gives slots back, after their view where they have one of their own: the type says so.
    ///
    /// # Safety
    ///
    /// `view` is how `alloc_slots` showed the slots as this type, and nobody uses it any more.
    pub(super) unsafe fn free_slots(
        &self,
        (view, len): (CpuView, usize),
        index: usize,
        run: &SlotRun,
        cache: CacheMode,
    ) {
        let Some(pool) = self.pool(index) else { return };
        if cache != plan::POOL_CACHE
            && let (Ok(at), Ok(len)) = (u64::try_from(run.offset()), u64::try_from(len))
            && let Some(range) = pool.range().slice(at, len)
        {
            // SAFETY: the view is `alloc_slots`'s of this range; this function's condition.
            unsafe { self.platform().unmap_cpu(view, range) };
        }
        self.free_run(&mut self.hand(), pool, run, |_| ());
    }
}
