//! Allocations from the slots of a pool: never converted here, and seen through the pool's own view
//! or, where that does not suit, through another one.
// UNSAFETY: slots change hands between a pool, the CPU and the device.
#![expect(unsafe_code)]

use core::ptr::NonNull;

use super::raw::Made;
use super::raw::RawCoherent;
use super::raw::Source;
use super::raw::Wish;
use crate::addr::DmaAddr;
use crate::addr::PhysRange;
use crate::device::Device;
use crate::iommu::Mapped;
use crate::ledger::Pin;
use crate::observe::Event;
use crate::plan;
use crate::plan::Candidate;
use crate::plan::Candidates;
use crate::platform::NoView;
use crate::platform::Platform;
use crate::pool::Hand;
use crate::pool::Pool;
use crate::reason::Refuse;
use crate::state::PoolUse;
use crate::state::State;

/// A view of slots that is not the pool's. The pin keeps the memory in its state while the view
/// lives: a pool whose device was revoked may shrink before the driver frees what it had.
#[derive(Debug)]
pub(super) struct View {
    range: PhysRange,
    pin: Option<Pin>,
}

/// What slots are as an allocation.
struct Dressed {
    start: NonNull<u8>,
    view: Option<View>,
    addr: DmaAddr,
    mapped: Option<Mapped>,
}

impl<P: Platform + ?Sized> Device<'_, P> {
    /// Slots of the first pool that has them.
    pub(super) fn take_slots(
        &self,
        pools: Candidates<'_>,
        whole: u64,
        wish: Wish,
    ) -> Result<RawCoherent, Refuse> {
        let (mut why, mut hand) = (Refuse::PoolFull, self.hand());
        for candidate in pools {
            let index = candidate.index;
            let Some(pool) = self.pool(index) else { continue };
            let owner = self.owner().allocating();
            let places = &candidate.places;
            let Ok(count) = usize::try_from(places.slots_at(places.lowest())) else { continue };
            // Who has no quota left does not even look for slots.
            if !self.charge(count) {
                return Err(Refuse::Quota);
            }
            let Ok(run) = hand.take(pool, places, owner) else {
                self.discharge(count);
                continue;
            };
            // SAFETY: the slots are ours.
            let dressed = unsafe { self.dress(pool, &candidate, run.offset(), whole, wish) };
            let Dressed { start, view, addr, mapped } = match dressed {
                Ok(dressed) => dressed,
                Err(reason) => {
                    why = reason;
                    self.discharge(run.count());
                    hand.give(pool, &run, |_| ());
                    continue;
                }
            };
            if matches!(pool.purpose(), PoolUse::Reserve | PoolUse::Coherent) {
                let (free, capacity) = (pool.free(), pool.capacity());
                if free < capacity.div_ceil(4) {
                    self.dma().tell(&Event::LowWater { free, capacity });
                }
            }
            let len = usize::try_from(whole).unwrap_or(0);
            let source = Source::Slots { pool: index, run, view };
            let made = Made { wish, state: candidate.state };
            return Ok(RawCoherent { owner: self.owner(), addr, start, len, source, made, mapped });
        }
        Err(why)
    }

    /// Zeroes `whole` bytes at `offset` of a pool, and gives the CPU its view of them and the
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
        whole: u64,
        wish: Wish,
    ) -> Result<Dressed, Refuse> {
        let full = Refuse::PoolFull;
        let (Ok(at), Ok(len)) = (u64::try_from(offset), usize::try_from(whole)) else {
            return Err(full);
        };
        let start = pool.bytes().at(offset, len).ok_or(full)?;
        let range = pool.range().slice(at, whole).ok_or(full)?;
        // SAFETY: this function's condition.
        unsafe { pool.bytes().zero(offset, len) };
        let (start, view) = if wish.cache == plan::POOL_CACHE {
            (start, None)
        } else {
            // SAFETY: this function's condition, and a pool's memory keeps its state while it is
            // open.
            let (start, view) = unsafe { self.begin_view(range, candidate.state, wish) }?;
            (start, Some(view))
        };
        let given = match candidate.base {
            Some(base) => base.checked_add(at).map(|addr| (addr, None)).ok_or(full),
            None => {
                let bytes = NonNull::slice_from_raw_parts(start, len);
                // SAFETY: a pool's memory keeps its state while slots of it are held.
                unsafe { self.expose_pages(range, bytes, candidate.state) }
            }
        };
        match given {
            Ok((addr, mapped)) => Ok(Dressed { start, view, addr, mapped }),
            Err(reason) => {
                if let Some(view) = view {
                    // SAFETY: the view was made above, and nobody uses it.
                    unsafe { self.end_view(start, view) };
                }
                Err(reason)
            }
        }
    }

    /// # Safety
    ///
    /// The range is slots of the caller, in this state.
    unsafe fn begin_view(
        &self,
        range: PhysRange,
        state: State,
        wish: Wish,
    ) -> Result<(NonNull<u8>, View), Refuse> {
        let ledger = self.dma().ledger();
        let pin = ledger.pin_state(range, state).map_err(|_| Refuse::Busy)?;
        // SAFETY: the memory is in this state by this function's condition, and pinned in it where
        // it can change.
        match unsafe { self.platform().view(range, state, wish.cache, wish.context) } {
            Ok(start) => Ok((start, View { range, pin })),
            Err(NoView) => {
                if let Some(pin) = pin {
                    ledger.unpin(pin);
                }
                Err(Refuse::NoView)
            }
        }
    }

    /// # Safety
    ///
    /// `start` is this view, and nobody uses it any more.
    pub(super) unsafe fn end_view(&self, start: NonNull<u8>, view: View) {
        // SAFETY: this function's condition.
        unsafe { self.platform().unview(start, view.range) };
        if let Some(pin) = view.pin {
            self.dma().ledger().unpin(pin);
        }
    }
}
