//! Making a raw map: asks `plan` once and does what it says.
// UNSAFETY: raw buffers are read while a device may be at them.
#![expect(unsafe_code)]

use core::ptr::NonNull;

use super::MapError;
use super::launder::launder;
use super::raw::Held;
use super::raw::RawMapping;
use crate::addr::DmaAddr;
use crate::addr::PhysRange;
use crate::attrs::Attrs;
use crate::copy::barrier;
use crate::device::Device;
use crate::ledger::Conflict;
use crate::ledger::Pin;
use crate::observe::Event;
use crate::plan;
use crate::plan::Candidates;
use crate::plan::MapRequest;
use crate::plan::Moment;
use crate::plan::Plan;
use crate::platform::Platform;
use crate::pool::PoolHandle;
use crate::pool::SlotAlloc;
use crate::reason::Bounce;
use crate::reason::Refuse;
use crate::state::Direction;
use crate::state::State;

/// The address of a mapping that is not in its domain yet: nobody is given it.
pub(super) const NOWHERE: DmaAddr = DmaAddr::new(u64::MAX);

/// How often a map is planned when the state of the memory changes under it.
const ATTEMPTS: usize = 3;

/// A map whose bytes are in their place, and that no domain shows yet.
pub(super) struct Lent {
    pub(super) mapping: RawMapping,
    /// The state of what the device is to see.
    pub(super) state: State,
    /// Why it bounces, if it does.
    pub(super) bounce: Option<Bounce>,
    /// Whether a domain is to give the address.
    pub(super) translate: bool,
}

impl<P: Platform + ?Sized> Device<'_, P> {
    /// Maps a buffer for the device. Never blocks and never converts memory.
    ///
    /// Bounced, a buffer for the device to read is copied in; where the device only writes, the
    /// slots are zeroed instead: no byte of the old buffer, and none of an earlier mapping, goes
    /// out. In place, the memory is pinned: it cannot be converted until the mapping is finished.
    ///
    /// # Safety
    ///
    /// 1. `buffer` is valid for reads, and for writes if the device writes, until the mapping is
    ///    finished.
    /// 2. In that time nobody else writes to it, and nobody else reads from it if the device
    ///    writes (after a sync for the CPU, and before one for the device, the caller may).
    /// 3. The device uses the address only while the mapping lives, and is stopped before it is
    ///    finished.
    #[inline]
    pub unsafe fn map_raw(
        &self,
        buffer: NonNull<[u8]>,
        direction: Direction,
        attrs: Attrs,
    ) -> Result<RawMapping, MapError> {
        // SAFETY: this function's conditions.
        unsafe { self.map_by(&mut self.hand(), buffer, direction, attrs) }
    }

    /// The same for whoever has a cache of the pool for itself, faster by two atomic steps. Where
    /// the map needs another pool, it is as [`map_raw`](Self::map_raw).
    ///
    /// # Safety
    ///
    /// As for [`map_raw`](Self::map_raw).
    #[inline]
    pub unsafe fn map_raw_with(
        &self,
        handle: &mut PoolHandle<'_>,
        buffer: NonNull<[u8]>,
        direction: Direction,
        attrs: Attrs,
    ) -> Result<RawMapping, MapError> {
        // SAFETY: this function's conditions.
        unsafe { self.map_by(handle, buffer, direction, attrs) }
    }

    /// # Safety
    ///
    /// As for [`map_raw`](Self::map_raw).
    #[inline]
    unsafe fn map_by(
        &self,
        hand: &mut impl SlotAlloc,
        buffer: NonNull<[u8]>,
        direction: Direction,
        attrs: Attrs,
    ) -> Result<RawMapping, MapError> {
        let range = if buffer.is_empty() { None } else { self.platform().locate(buffer) };
        let record =
            |addr, place| RawMapping { owner: self.owner(), addr, buffer, direction, attrs, place };
        if attrs.is_empty() {
            if let Some(addr) = range.and_then(|range| self.in_place(range)) {
                // What the driver wrote is written before the device can have the address.
                barrier(buffer.as_ptr().cast());
                return Ok(record(addr, Held::Open));
            }
            // SAFETY: this function's conditions.
            if let Some(mapping) = unsafe { self.map_fast(hand, buffer, range, direction) } {
                return Ok(mapping);
            }
        }
        // SAFETY: this function's conditions.
        launder(unsafe { self.map_slow(hand, buffer, range, direction, attrs) })
    }

    /// The whole way: asks `plan`.
    ///
    /// # Safety
    ///
    /// As for [`map_raw`](Self::map_raw).
    #[inline(never)]
    unsafe fn map_slow(
        &self,
        hand: &mut impl SlotAlloc,
        buffer: NonNull<[u8]>,
        range: Option<PhysRange>,
        direction: Direction,
        attrs: Attrs,
    ) -> Result<RawMapping, MapError> {
        // sabotage: distrusted-maps
        if let Some(reason) = self.stopped() {
            return Err(self.refused(reason, buffer.len(), range, attrs));
        }
        // A length past 64 bits cannot be.
        let len = u64::try_from(buffer.len()).unwrap_or(0);
        let request = || self.request(range, len, direction, attrs);
        // SAFETY: this function's conditions.
        let lent = unsafe { self.lend(hand, buffer, range, request) };
        let lent = lent.map_err(|reason| self.refused(reason, buffer.len(), range, attrs))?;
        let Lent { mut mapping, state, bounce, translate } = lent;
        if translate {
            // The device's domain gives the address, and now that the bytes are in their place
            // they may be seen.
            // SAFETY: conditions 1 to 3; the state is pinned, or cannot change.
            if let Err(reason) = unsafe { self.map_iommu(&mut mapping, range, state) } {
                self.release(hand, mapping.place);
                return Err(self.refused(reason, buffer.len(), range, attrs));
            }
        }
        self.count_map(bounce);
        if self.dma().is_observed() {
            self.tell_mapped(hand, &mut mapping, range, bounce);
        }
        Ok(mapping)
    }

    /// Takes what a map holds, and has the bytes in their place: as `plan` says of `request`, which is
    /// made anew where the state of the memory changes meanwhile. Nothing is shown to a domain yet.
    ///
    /// # Safety
    ///
    /// As for [`map_raw`](Self::map_raw).
    pub(super) unsafe fn lend<'r>(
        &self,
        hand: &mut impl SlotAlloc,
        buffer: NonNull<[u8]>,
        range: Option<PhysRange>,
        request: impl Fn() -> MapRequest<'r>,
    ) -> Result<Lent, Refuse> {
        let mut changed = Refuse::Busy;
        for _ in 0..ATTEMPTS {
            let request = request();
            let MapRequest { direction, mut attrs, .. } = request;
            let (addr, state, place, bounce) = match plan::map(&request, &mut ()) {
                Plan::Direct { addr, state, .. } => {
                    // On a mismatch somebody converted it meanwhile: plan again. What else lies in
                    // the pages of an entry must keep its state too.
                    let shown = range.map(|range| self.shown(range));
                    let pin = match self.pin(shown, state, attrs) {
                        Ok(pin) => pin,
                        Err(conflict) => {
                            changed = conflict.refusal();
                            continue;
                        }
                    };
                    (addr, state, Held::InPlace { pin, mapped: None }, None)
                }
                Plan::Bounce { pools, reason, .. } => {
                    let (addr, state, place) = self.bounce(hand, pools)?;
                    (addr, state, place, Some(reason))
                }
                Plan::Refuse(reason) => return Err(reason),
            };
            if request.is_registers() {
                attrs = attrs.with(Attrs::MMIO);
            }
            let owner = self.owner();
            let mapping = RawMapping {
                owner,
                addr: addr.unwrap_or(NOWHERE),
                buffer,
                direction,
                attrs,
                place,
            };
            if let Some(ends) = self.ends(&mapping) {
                // SAFETY: the buffer is readable and writable by condition 1.
                unsafe { self.transfer(&ends, Moment::Map, 0..mapping.len()) };
            }
            return Ok(Lent { mapping, state, bounce, translate: addr.is_none() });
        }
        Err(changed)
    }

    /// Counts a map.
    pub(super) fn count_map(&self, bounce: Option<Bounce>) {
        match bounce {
            None => self.count().direct(),
            Some(_) => self.count().bounced(),
        }
    }

    /// Pins memory that is mapped in place, if it is in a state that can change.
    fn pin(
        &self,
        range: Option<PhysRange>,
        state: State,
        attrs: Attrs,
    ) -> Result<Option<Pin>, Conflict> {
        match range {
            // sabotage: no-pin
            Some(range) if !attrs.contains(Attrs::MMIO) && !self.in_pool(range) => {
                self.dma().ledger().pin_state(range, state)
            }
            _ => Ok(None),
        }
    }

    /// Takes slots from the first pool that has them: with the address of the mapping (none where
    /// a domain will give it) and the state of the memory.
    fn bounce(
        &self,
        hand: &mut impl SlotAlloc,
        pools: Candidates<'_>,
    ) -> Result<(Option<DmaAddr>, State, Held), Refuse> {
        let mut why = None;
        for candidate in pools {
            let (index, state, places) = (candidate.index, candidate.state, candidate.places);
            // No pad is longer than a page, and no place longer than its pool.
            let (Ok(pad), Ok(count)) =
                (usize::try_from(candidate.pad), usize::try_from(places.slots_at(places.lowest())))
            else {
                continue;
            };
            let Some(pool) = self.pool(index) else { continue };
            let alloc = || hand.alloc(pool, &places, self.owner()).ok();
            let Some(run) = self.alloc_run(count, alloc)? else {
                why = Some(plan::no_slots(why, pool.is_open()));
                continue;
            };
            let at = run.offset() + pad;
            let offset = u64::try_from(at).ok();
            let addr = candidate.base.map(|base| base.checked_add(offset?));
            if addr == Some(None) {
                self.free_run(hand, pool, &run, |_| ());
                why = Some(Refuse::NoReachablePool);
                continue;
            }
            let place = Held::Slots { pool: index, run, at, mapped: None };
            return Ok((addr.flatten(), state, place));
        }
        Err(why.unwrap_or(Refuse::PoolFull))
    }

    #[cold]
    pub(super) fn refused(
        &self,
        reason: Refuse,
        len: usize,
        range: Option<PhysRange>,
        attrs: Attrs,
    ) -> MapError {
        self.count().refused();
        if !attrs.contains(Attrs::NO_WARN) {
            self.dma().notify(&Event::Refused { device: self.name(), len, reason });
        }
        MapError { device: self.name().into(), reason, len, memory: self.memory(range) }
    }
}
