//! The raw form of a map: the caller keeps the buffer alive and the device in check. Everything
//! sound is built on it.
// UNSAFETY: raw buffers are read and written while a device may be at them.
#![expect(unsafe_code)]

use core::ops::Range;
use core::ptr::NonNull;

use super::MapError;
use super::NotThisDevice;
use crate::addr::DmaAddr;
use crate::addr::PhysRange;
use crate::attrs::Attrs;
use crate::device::Device;
use crate::plan;
use crate::plan::Plan;
use crate::platform::Platform;
use crate::pool::Pool;
use crate::pool::SlotRun;
use crate::reason::Refuse;
use crate::state::Direction;

/// The record of one map: what was decided and what is held. Ending the map uses this record and
/// nothing else. Dropping it loses what it holds, visibly: the device's counters show a map that
/// never ended.
#[derive(Debug)]
#[must_use = "a mapping that is not finished keeps its slots"]
pub struct RawMapping {
    device: usize,
    addr: DmaAddr,
    buffer: NonNull<[u8]>,
    direction: Direction,
    attrs: Attrs,
    cache_work: bool,
    place: Held,
}

// SAFETY: the record only carries the pointer; whoever uses it answers for the buffer.
unsafe impl Send for RawMapping {}

/// What a map holds.
#[derive(Debug)]
enum Held {
    /// The memory itself, on an open machine: such a map is not counted.
    Open,
    /// The memory itself.
    InPlace,
    /// Slots of the device's pool with this index.
    Slots { pool: usize, run: SlotRun },
}

impl RawMapping {
    /// The address for the device. Handing its number over is the unsafe step: from then on the
    /// device may touch the mapped bytes until it is stopped.
    #[inline]
    pub fn addr(&self) -> DmaAddr {
        self.addr
    }

    /// The length in bytes.
    #[inline]
    #[expect(clippy::len_without_is_empty, reason = "a mapping is never empty")]
    pub fn len(&self) -> usize {
        self.buffer.len()
    }

    /// The driver's buffer.
    #[inline]
    pub fn buffer(&self) -> NonNull<[u8]> {
        self.buffer
    }

    /// Which way the bytes go.
    #[inline]
    pub fn direction(&self) -> Direction {
        self.direction
    }

    /// Whether the bytes go through a pool.
    #[inline]
    pub fn is_bounced(&self) -> bool {
        matches!(self.place, Held::Slots { .. })
    }
}

impl<'d, P: Platform + ?Sized> Device<'d, P> {
    /// Maps a buffer for the device. Never blocks and never converts memory.
    ///
    /// Bounced, a buffer for the device to read is copied in; where the device only writes, the
    /// slots are zeroed instead: no byte of the old buffer, and none of an earlier mapping, goes
    /// out.
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
            device: self.id(),
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
            return Ok(record(addr, false, Held::Open));
        }
        let mapping = match self.plan(buffer.len(), range, direction, attrs) {
            Plan::Direct { addr: Some(addr), cache_work, .. } => {
                self.count().direct();
                record(addr, cache_work, Held::InPlace)
            }
            // Domains come with their own floor; until then nobody can give the address.
            Plan::Direct { addr: None, .. } => {
                return Err(self.refused(Refuse::NoReachablePool, buffer.len(), range));
            }
            Plan::Bounce { pools, cache_work, .. } => {
                let taken = pools.into_iter().find_map(|candidate| {
                    let run = self.pool(candidate.index)?.take(&candidate.places).ok()?;
                    Some((candidate, run))
                });
                let Some((candidate, run)) = taken else {
                    return Err(self.refused(Refuse::PoolFull, buffer.len(), range));
                };
                let addr = candidate
                    .base
                    .and_then(|base| base.checked_add(u64::try_from(run.offset()).ok()?));
                let (Some(addr), Some(pool)) = (addr, self.pool(candidate.index)) else {
                    if let Some(pool) = self.pool(candidate.index) {
                        pool.give(run);
                    }
                    return Err(self.refused(Refuse::NoReachablePool, buffer.len(), range));
                };
                // SAFETY: the slots are ours, and the buffer is readable by condition 1.
                unsafe { fill(pool, run.offset(), buffer, direction) };
                self.count().bounced();
                record(addr, cache_work, Held::Slots { pool: candidate.index, run })
            }
            Plan::Refuse(reason) => return Err(self.refused(reason, buffer.len(), range)),
        };
        self.hand_over(&mapping, 0..mapping.len());
        Ok(mapping)
    }

    /// Ends a map. `written` is how many bytes from the start the device wrote, as far as it can
    /// be known: more than the mapping has counts as all of it. Only those are copied back. Never
    /// blocks.
    ///
    /// # Safety
    ///
    /// The device has stopped using the address, and the conditions of
    /// [`map_raw`](Self::map_raw) held until now.
    pub unsafe fn finish_raw(
        &self,
        mapping: RawMapping,
        written: usize,
    ) -> Result<(), NotThisDevice> {
        if mapping.device != self.id() {
            return Err(NotThisDevice(mapping));
        }
        let wanted =
            mapping.direction.from_device() && !mapping.attrs.contains(Attrs::SKIP_CPU_SYNC);
        if wanted {
            // SAFETY: the buffer is writable by condition 1 of `map_raw`.
            unsafe { self.bring_back(&mapping, 0..written.min(mapping.len())) };
        }
        match mapping.place {
            Held::Open => return Ok(()),
            Held::InPlace => {}
            Held::Slots { pool, run } => {
                if let Some(pool) = self.pool(pool) {
                    pool.give(run);
                }
            }
        }
        self.count().finished();
        Ok(())
    }

    /// Makes what the driver wrote into `part` of the buffer visible to the device. Where the
    /// device only writes there is nothing to show, and nothing is touched (a driver may give
    /// memory back to the device this way after the device has written). A part that leaves the
    /// mapping is cut off at its end. Never blocks.
    ///
    /// # Safety
    ///
    /// As for [`map_raw`](Self::map_raw); the mapping is this device's.
    pub unsafe fn sync_for_device(&self, mapping: &RawMapping, part: Range<usize>) {
        let part = clamp(part, mapping.len());
        if mapping.device != self.id() || part.is_empty() {
            return;
        }
        if let Held::Slots { pool, run } = &mapping.place
            && mapping.direction.to_device()
            && let Some(pool) = self.pool(*pool)
            && let Some(from) = start_of(mapping.buffer, part.start)
        {
            // SAFETY: the part lies in the buffer, which is readable by condition 1 of `map_raw`;
            // the slots are held by the mapping.
            unsafe { pool.bytes().write(run.offset() + part.start, from, part.len()) };
        }
        self.hand_over(mapping, part);
    }

    /// Brings what the device wrote into `part` to the driver's buffer. Where the device only
    /// reads nothing is touched. A part that leaves the mapping is cut off at its end. Never
    /// blocks.
    ///
    /// # Safety
    ///
    /// As for [`map_raw`](Self::map_raw); the mapping is this device's.
    pub unsafe fn sync_for_cpu(&self, mapping: &RawMapping, part: Range<usize>) {
        if mapping.device == self.id() && mapping.direction.from_device() {
            // SAFETY: this function's conditions.
            unsafe { self.bring_back(mapping, clamp(part, mapping.len())) };
        }
    }

    /// Copies what the device wrote back to the buffer.
    ///
    /// # Safety
    ///
    /// `part` lies in the mapping, and the buffer is writable.
    unsafe fn bring_back(&self, mapping: &RawMapping, part: Range<usize>) {
        if part.is_empty() {
            return;
        }
        if let Some(bytes) = self.seen_by_device(mapping, &part) {
            self.platform().take_back(bytes, mapping.direction, mapping.cache_work);
        }
        if let Held::Slots { pool, run } = &mapping.place
            && let Some(pool) = self.pool(*pool)
            && let Some(to) = start_of(mapping.buffer, part.start)
        {
            // SAFETY: the part lies in the buffer, which is writable by the caller's condition;
            // the slots are held by the mapping.
            unsafe { pool.bytes().read(run.offset() + part.start, to, part.len()) };
        }
    }

    fn hand_over(&self, mapping: &RawMapping, part: Range<usize>) {
        if let Some(bytes) = self.seen_by_device(mapping, &part) {
            self.platform().hand_over(bytes, mapping.direction, mapping.cache_work);
        }
    }

    /// The bytes that the device sees of `part`.
    fn seen_by_device(&self, mapping: &RawMapping, part: &Range<usize>) -> Option<NonNull<[u8]>> {
        let start = match &mapping.place {
            Held::Open => return None,
            Held::InPlace => start_of(mapping.buffer, part.start)?,
            Held::Slots { pool, run } => {
                self.pool(*pool)?.bytes().at(run.offset() + part.start, part.len())?
            }
        };
        Some(NonNull::slice_from_raw_parts(start, part.len()))
    }

    fn plan(
        &self,
        len: usize,
        range: Option<PhysRange>,
        direction: Direction,
        attrs: Attrs,
    ) -> Plan<'_> {
        // A length past 64 bits cannot be.
        let len = u64::try_from(len).unwrap_or(0);
        plan::map(&self.request(range, len, direction, attrs), &mut ())
    }

    fn refused(&self, reason: Refuse, len: usize, range: Option<PhysRange>) -> MapError<'d> {
        self.count().refused();
        MapError { device: self.name(), reason, len, memory: self.memory(range) }
    }
}

/// Puts into the slots what the device may see: the buffer, or zeroes where it only writes.
///
/// # Safety
///
/// The caller holds the slots, and the buffer is readable.
unsafe fn fill(pool: &Pool<'_>, offset: usize, buffer: NonNull<[u8]>, direction: Direction) {
    if direction.to_device() {
        // SAFETY: the caller's conditions.
        unsafe { pool.bytes().write(offset, buffer.cast(), buffer.len()) };
    } else {
        // SAFETY: the caller's conditions.
        unsafe { pool.bytes().zero(offset, buffer.len()) };
    }
}

/// The pointer `offset` bytes into a buffer, for offsets up to its length.
fn start_of(buffer: NonNull<[u8]>, offset: usize) -> Option<NonNull<u8>> {
    if offset > buffer.len() {
        return None;
    }
    // SAFETY: the offset is at most the buffer's length.
    Some(unsafe { buffer.cast::<u8>().add(offset) })
}

fn clamp(part: Range<usize>, len: usize) -> Range<usize> {
    let end = part.end.min(len);
    part.start.min(end)..end
}
