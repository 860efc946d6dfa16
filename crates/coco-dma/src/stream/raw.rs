//! The raw form of a map: the caller keeps the buffer alive and the device in check. Everything
//! sound is built on it.
// UNSAFETY: raw buffers are read and written while a device may be at them.
#![expect(unsafe_code)]

use core::ops::Range;
use core::ptr::NonNull;

use super::NotThisDevice;
use crate::addr::DmaAddr;
use crate::attrs::Attrs;
use crate::copy::barrier;
use crate::device::Device;
use crate::iommu::Mapped;
use crate::ledger::Pin;
use crate::plan;
use crate::plan::Bytes;
use crate::plan::MapFace;
use crate::plan::Moment;
use crate::plan::Transfer;
use crate::platform::Platform;
use crate::pool::Hand;
use crate::pool::Owner;
use crate::pool::PoolHandle;
use crate::pool::SlotRun;
use crate::state::Direction;

/// The record of one map: what was decided and what is held. Ending the map uses this record and
/// nothing else. Dropping it loses what it holds, visibly: the device's counters show a map that
/// never ended.
#[derive(Debug)]
#[must_use = "a mapping that is not finished keeps its slots"]
pub struct RawMapping {
    pub(super) owner: Owner,
    pub(super) addr: DmaAddr,
    pub(super) buffer: NonNull<[u8]>,
    pub(super) direction: Direction,
    pub(super) attrs: Attrs,
    pub(super) place: Held,
}

// SAFETY: the record only carries the pointer; whoever uses it answers for the buffer.
unsafe impl Send for RawMapping {}

/// What a map holds.
#[derive(Debug)]
pub(super) enum Held {
    /// The memory itself, on an open machine: such a map is not counted.
    Open,
    /// The memory itself, pinned where its state could change, and mapped in the device's domain
    /// where it is behind one.
    InPlace { pin: Option<Pin>, mapped: Option<Mapped> },
    /// Slots of the device's pool with this index. The mapping's bytes begin at `at` of the pool.
    Slots { pool: usize, run: SlotRun, at: usize, mapped: Option<Mapped> },
}

impl Held {
    /// What the map holds in the device's domain.
    fn mapped(&self) -> Option<&Mapped> {
        match self {
            Self::Open => None,
            Self::InPlace { mapped, .. } | Self::Slots { mapped, .. } => mapped.as_ref(),
        }
    }
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
    /// Ends a map. `written` is how many bytes from the start the device wrote, as far as it can
    /// be known: more than the mapping has counts as all of it. Only those are copied back; from a
    /// device that was revoked or lost the guest's trust nothing is. Never blocks.
    ///
    /// Behind an IOMMU the pages are unmapped first: nothing that the device does later has an
    /// effect on what is copied, or on who has the memory next. Where that fails, the mapping ends
    /// for the driver, but its pin or slots are kept for good, and observers are told
    /// ([`Event::UnmapFailed`](crate::observe::Event::UnmapFailed)).
    ///
    /// # Safety
    ///
    /// The device has stopped using the address, and the conditions of
    /// [`map_raw`](Self::map_raw) held until now.
    #[inline]
    pub unsafe fn finish_raw(
        &self,
        mapping: RawMapping,
        written: usize,
    ) -> Result<(), NotThisDevice> {
        // SAFETY: this function's conditions.
        unsafe { self.finish_by(&mut self.hand(), mapping, written) }
    }

    /// The same for whoever has a cache of the pool for itself; the map may have been made without.
    ///
    /// # Safety
    ///
    /// As for [`finish_raw`](Self::finish_raw).
    #[inline]
    pub unsafe fn finish_raw_with(
        &self,
        handle: &mut PoolHandle<'_>,
        mapping: RawMapping,
        written: usize,
    ) -> Result<(), NotThisDevice> {
        // SAFETY: this function's conditions.
        unsafe { self.finish_by(handle, mapping, written) }
    }

    /// # Safety
    ///
    /// As for [`finish_raw`](Self::finish_raw).
    unsafe fn finish_by(
        &self,
        hand: &mut impl Hand,
        mapping: RawMapping,
        written: usize,
    ) -> Result<(), NotThisDevice> {
        if mapping.owner != self.owner() {
            return Err(NotThisDevice(mapping));
        }
        // SAFETY: the device has stopped, by this function's condition.
        let unmapped = unsafe { self.untranslate(mapping.place.mapped()) };
        // SAFETY: the buffer is writable by condition 1 of `map_raw` where the device writes.
        unsafe { self.carry(&mapping, Moment::Finish, 0..written.min(mapping.len())) };
        match mapping.place {
            // What the device wrote is read anew.
            Held::Open => barrier(mapping.buffer.as_ptr().cast()),
            // What the device may still reach is kept for good.
            _ if unmapped.is_err() => self.count().finished(),
            Held::Slots { pool, run, .. } => self.give_slots(hand, pool, &run),
            place @ Held::InPlace { .. } => {
                self.let_go(hand, place);
                self.count().finished();
            }
        }
        Ok(())
    }

    /// Gives back the slots of a map that has ended, and counts its end.
    #[inline]
    fn give_slots(&self, hand: &mut impl Hand, index: usize, run: &SlotRun) {
        let Some(pool) = self.pool(index) else { return self.count().finished() };
        let counted = self.counts_by(index);
        let count = |turn: Option<usize>| self.count().finished_in(turn.filter(|_| counted));
        // Slots that were revoked are not ours any more.
        if hand.give(pool, run, count) {
            self.discharge(run.count());
        }
    }

    /// Gives back what a map held, which the device reaches no more.
    pub(super) fn let_go(&self, hand: &mut impl Hand, place: Held) {
        match place {
            Held::Open | Held::InPlace { pin: None, .. } => {}
            Held::InPlace { pin: Some(pin), .. } => self.dma().ledger().unpin(pin),
            Held::Slots { pool, run, .. } => {
                // Slots that were revoked are not ours any more.
                if self.pool(pool).is_some_and(|pool| hand.give(pool, &run, |_| ())) {
                    self.discharge(run.count());
                }
            }
        }
    }

    /// Makes what the driver wrote into `part` of the buffer visible to the device. Where the
    /// device only writes there is nothing to show, and nothing is touched (a driver may give
    /// memory back to the device this way after the device has written). A device that was revoked
    /// or lost the guest's trust is shown nothing. A part that leaves the mapping is cut off at its
    /// end. Never blocks.
    ///
    /// # Safety
    ///
    /// As for [`map_raw`](Self::map_raw); the mapping is this device's.
    pub unsafe fn sync_for_device(&self, mapping: &RawMapping, part: Range<usize>) {
        if mapping.owner == self.owner() {
            // SAFETY: the part lies in the buffer, which is readable by condition 1 of `map_raw`.
            unsafe { self.carry(mapping, Moment::SyncForDevice, clamp(part, mapping.len())) };
        }
    }

    /// Brings what the device wrote into `part` to the driver's buffer. Where the device only
    /// reads nothing is touched, nor is it where nobody vouches for what the device wrote: it was
    /// revoked, or lost the guest's trust. A part that leaves the mapping is cut off at its end.
    /// Never blocks.
    ///
    /// # Safety
    ///
    /// As for [`map_raw`](Self::map_raw); the mapping is this device's.
    pub unsafe fn sync_for_cpu(&self, mapping: &RawMapping, part: Range<usize>) {
        if mapping.owner == self.owner() {
            // SAFETY: the part lies in the buffer, which is writable by condition 1 of `map_raw`.
            unsafe { self.carry(mapping, Moment::SyncForCpu, clamp(part, mapping.len())) };
        }
    }

    /// Does what `plan` says about the bytes of a part at one moment.
    ///
    /// # Safety
    ///
    /// `part` lies in the mapping; the buffer is readable, and writable where the device writes.
    pub(super) unsafe fn carry(&self, mapping: &RawMapping, moment: Moment, part: Range<usize>) {
        if part.is_empty() || matches!(mapping.place, Held::Open) {
            return;
        }
        let face = MapFace {
            direction: mapping.direction,
            attrs: mapping.attrs,
            bounced: mapping.is_bounced(),
            coherent: self.face().coherent,
            alive: self.is_alive(),
        };
        let Transfer { bytes, cache_work } = plan::transfer(&face, moment, &mut ());
        if moment == Moment::Finish && !mapping.direction.from_device() {
            // What the device only read has nothing to say.
            return;
        }
        let seen = self.seen_by_device(mapping, &part);
        let incoming = matches!(moment, Moment::SyncForCpu | Moment::Finish);
        if incoming
            && mapping.direction.from_device()
            && let Some(seen) = seen
        {
            self.platform().take_back(seen, mapping.direction, cache_work);
        }
        if let Held::Slots { pool, run, at, .. } = &mapping.place
            && let Some(pool) = self.pool(*pool).filter(|pool| pool.holds(run))
            && let Some(start) = start_of(mapping.buffer, part.start)
        {
            let (offset, len) = (at + part.start, part.len());
            match bytes {
                Bytes::Stay => {}
                // SAFETY: the slots are held by the mapping; the part lies in the buffer, which is
                // readable by this function's condition.
                Bytes::Out => unsafe { pool.bytes().write(offset, start, len) },
                // SAFETY: the slots are held by the mapping.
                Bytes::Zero => unsafe { pool.bytes().zero(offset, len) },
                // SAFETY: as for `Out`; `plan` brings bytes back only where the device writes, so
                // that the buffer is writable.
                Bytes::Back => unsafe { pool.bytes().read(offset, start, len) },
            }
        }
        if !incoming && let Some(seen) = seen {
            self.platform().hand_over(seen, mapping.direction, cache_work);
        }
    }

    /// The bytes that the device sees of `part`.
    fn seen_by_device(&self, mapping: &RawMapping, part: &Range<usize>) -> Option<NonNull<[u8]>> {
        let start = match &mapping.place {
            Held::Open => return None,
            Held::InPlace { .. } => start_of(mapping.buffer, part.start)?,
            Held::Slots { pool, run, at, .. } => {
                // Slots that were revoked are not ours any more.
                let pool = self.pool(*pool).filter(|pool| pool.holds(run))?;
                pool.bytes().at(at + part.start, part.len())?
            }
        };
        Some(NonNull::slice_from_raw_parts(start, part.len()))
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
