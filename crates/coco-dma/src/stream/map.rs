//! Making a raw map: asks `plan` once and does what it says.
// UNSAFETY: raw buffers are read while a device may be at them.
#![expect(unsafe_code)]

use core::ptr::NonNull;

use super::MapError;
use super::raw::Held;
use super::raw::RawMapping;
use crate::addr::DmaAddr;
use crate::addr::PhysRange;
use crate::attrs::Attrs;
use crate::copy::barrier;
use crate::device::Device;
use crate::iommu::Entry;
use crate::iommu::Mapped;
use crate::ledger::Pin;
use crate::observe::Event;
use crate::plan;
use crate::plan::Candidate;
use crate::plan::Candidates;
use crate::plan::Plan;
use crate::platform::Platform;
use crate::pool::Pool;
use crate::reason::Bounce;
use crate::reason::Refuse;
use crate::state::Direction;
use crate::state::State;

/// How often a map is planned when the state of the memory changes under it.
const ATTEMPTS: usize = 3;

impl<'d, P: Platform + ?Sized> Device<'d, P> {
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
    pub unsafe fn map_raw(
        &self,
        buffer: NonNull<[u8]>,
        direction: Direction,
        attrs: Attrs,
    ) -> Result<RawMapping, MapError<'d>> {
        let range = if buffer.is_empty() { None } else { self.platform().locate(buffer) };
        let record = |addr, cache_work, place| RawMapping {
            owner: self.owner(),
            addr,
            buffer,
            direction,
            attrs,
            cache_work,
            place,
        };
        if attrs.is_empty()
            && let Some(addr) = range.and_then(|range| self.in_place(range))
        {
            // What the driver wrote is written before the device can have the address.
            barrier(buffer.as_ptr().cast());
            return Ok(record(addr, false, Held::Open));
        }
        if let Some(reason) = self.stopped() {
            return Err(self.refused(reason, buffer.len(), range));
        }
        // A length past 64 bits cannot be.
        let len = u64::try_from(buffer.len()).unwrap_or(0);
        for _ in 0..ATTEMPTS {
            let request = self.request(range, len, direction, attrs);
            let (addr, cache_work, place) = match plan::map(&request, &mut ()) {
                Plan::Direct { addr: Some(addr), cache_work, state, .. } => {
                    // On a mismatch somebody converted it meanwhile: plan again.
                    let Ok(pin) = self.pin(range, state, attrs) else { continue };
                    self.count().direct();
                    (addr, cache_work, Held::InPlace { pin, mapped: None })
                }
                // The device's domain gives the address.
                Plan::Direct { addr: None, state, cache_work, .. } => {
                    let shown = range.map(|range| self.shown(range));
                    let Ok(pin) = self.pin(shown, state, attrs) else { continue };
                    let entry = self.entry(direction, state, attrs.contains(Attrs::MMIO));
                    // SAFETY: conditions 1 to 3; the state is pinned, or cannot change.
                    match unsafe { self.translate_in_place(range, entry) } {
                        Ok((addr, mapped)) => {
                            self.count().direct();
                            (addr, cache_work, Held::InPlace { pin, mapped: Some(mapped) })
                        }
                        Err(reason) => {
                            if let Some(pin) = pin {
                                self.dma().ledger().unpin(pin);
                            }
                            return Err(self.refused(reason, buffer.len(), range));
                        }
                    }
                }
                Plan::Bounce { pools, cache_work, reason } => {
                    let original = range.map_or(0, |range| range.base().raw());
                    let give = Give { buffer, original, direction, cache_work };
                    // SAFETY: the buffer is readable by condition 1.
                    match unsafe { self.bounce(pools, &give, reason) } {
                        Ok((addr, held)) => (addr, cache_work, held),
                        Err(reason) => return Err(self.refused(reason, buffer.len(), range)),
                    }
                }
                Plan::Refuse(reason) => return Err(self.refused(reason, buffer.len(), range)),
            };
            let mapping = record(addr, cache_work, place);
            self.hand_over(&mapping, 0..mapping.len());
            return Ok(mapping);
        }
        Err(self.refused(Refuse::Busy, buffer.len(), range))
    }

    /// Pins memory that is mapped in place, if it is in a state that can change.
    fn pin(&self, range: Option<PhysRange>, state: State, attrs: Attrs) -> Result<Option<Pin>, ()> {
        match (range, state) {
            (Some(range), State::Guest(visibility))
                if !attrs.contains(Attrs::MMIO) && !self.in_pool(range) =>
            {
                self.dma().ledger().pin(range, visibility).map(Some).map_err(drop)
            }
            _ => Ok(None),
        }
    }

    /// # Safety
    ///
    /// As for [`map_raw`](Self::map_raw).
    unsafe fn translate_in_place(
        &self,
        range: Option<PhysRange>,
        entry: Entry,
    ) -> Result<(DmaAddr, Mapped), Refuse> {
        // What lies in no single run is never mapped in place.
        let range = range.ok_or(Refuse::NoReachablePool)?;
        // SAFETY: this function's condition.
        unsafe { self.translate(range, range.base().raw(), entry) }
    }

    /// Takes slots from the first pool that has them, and puts into them what the device may see.
    ///
    /// # Safety
    ///
    /// The buffer is readable.
    unsafe fn bounce(
        &self,
        pools: Candidates<'_>,
        give: &Give,
        reason: Bounce,
    ) -> Result<(DmaAddr, Held), Refuse> {
        let mut why = Refuse::PoolFull;
        for candidate in pools {
            let Some(pool) = self.pool(candidate.index) else { continue };
            // No pad is longer than a page.
            let Ok(pad) = usize::try_from(candidate.pad) else { continue };
            let Ok(run) = pool.take(&candidate.places, self.owner()) else { continue };
            if !self.charge(run.count()) {
                pool.give(&run);
                return Err(Refuse::Quota);
            }
            let at = run.offset() + pad;
            // SAFETY: the slots are ours; the buffer is readable by this function's condition.
            unsafe { fill(pool, at, give) };
            // SAFETY: as above, and the slots hold nothing but what the device may see.
            match unsafe { self.address(&candidate, pool, at, give) } {
                Ok((addr, mapped)) => {
                    self.count().bounced();
                    let (device, len) = (self.name(), give.buffer.len());
                    self.dma().tell(&Event::Bounced { device, addr, len, reason });
                    return Ok((addr, Held::Slots { pool: candidate.index, run, at, mapped }));
                }
                Err(reason) => {
                    self.discharge(run.count());
                    pool.give(&run);
                    why = reason;
                }
            }
        }
        Err(why)
    }

    /// The address for the bytes of a pool that begin at `at`: the pool's own, or one of the
    /// domain.
    ///
    /// # Safety
    ///
    /// The slots are ours, and filled.
    unsafe fn address(
        &self,
        candidate: &Candidate,
        pool: &Pool<'_>,
        at: usize,
        give: &Give,
    ) -> Result<(DmaAddr, Option<Mapped>), Refuse> {
        let offset = u64::try_from(at).map_err(|_| Refuse::NoReachablePool)?;
        if let Some(base) = candidate.base {
            let addr = base.checked_add(offset).ok_or(Refuse::NoReachablePool)?;
            return Ok((addr, None));
        }
        // What lies beside the mapping in its pages is zeroed, and out of the caches, before the
        // device can see it.
        let start = offset.saturating_sub(candidate.pad);
        let (Ok(start), Ok(len)) =
            (usize::try_from(start), usize::try_from(candidate.places.len()))
        else {
            return Err(Refuse::NoReachablePool);
        };
        let end = at + give.buffer.len();
        // SAFETY: the slots are ours.
        unsafe { pool.bytes().zero(start, at - start) };
        // SAFETY: as above.
        unsafe { pool.bytes().zero(end, (start + len).saturating_sub(end)) };
        if let Some(start) = pool.bytes().at(start, len) {
            let whole = NonNull::slice_from_raw_parts(start, len);
            self.platform().hand_over(whole, give.direction, give.cache_work);
        }
        let len = u64::try_from(give.buffer.len()).map_err(|_| Refuse::TooLarge)?;
        let range = pool.range().slice(offset, len).ok_or(Refuse::NoReachablePool)?;
        let entry = self.entry(give.direction, candidate.state, false);
        // SAFETY: a pool's memory keeps its state while slots of it are held; the whole pages are
        // slots of ours, and the device may see all of them.
        let (addr, mapped) = unsafe { self.translate(range, give.original, entry) }?;
        Ok((addr, Some(mapped)))
    }

    fn refused(&self, reason: Refuse, len: usize, range: Option<PhysRange>) -> MapError<'d> {
        self.count().refused();
        self.dma().tell(&Event::Refused { device: self.name(), len, reason });
        MapError { device: self.name(), reason, len, memory: self.memory(range) }
    }
}

/// What is to be bounced.
struct Give {
    buffer: NonNull<[u8]>,
    /// Where it lies, for low bits that the device wants kept; 0 where that is nowhere.
    original: u64,
    direction: Direction,
    cache_work: bool,
}

/// Puts into the slots, from `at` of the pool on, what the device may see: the buffer, or zeroes
/// where it only writes.
///
/// # Safety
///
/// The caller holds the slots, and the buffer is readable.
unsafe fn fill(pool: &Pool<'_>, at: usize, give: &Give) {
    if give.direction.to_device() {
        // SAFETY: the caller's conditions.
        unsafe { pool.bytes().write(at, give.buffer.cast(), give.buffer.len()) };
    } else {
        // SAFETY: the caller's conditions.
        unsafe { pool.bytes().zero(at, give.buffer.len()) };
    }
}
