//! The raw form of a map: the caller keeps the buffer alive and the device in check. Everything
//! sound is built on it.
// UNSAFETY: raw buffers are read and written while a device may be at them.
#![expect(unsafe_code)]

use core::ops::Range;
use core::ptr::NonNull;

use super::UnmapRawError;
use super::launder::launder;
use crate::addr::DmaAddr;
use crate::attrs::Attrs;
use crate::copy::barrier;
use crate::device::Device;
use crate::iommu::Mapped;
use crate::iommu::UnmapError;
use crate::ledger::Pin;
use crate::observe::Event;
use crate::observe::SyncFor;
use crate::plan::Moment;
use crate::platform::Platform;
use crate::pool::Owner;
use crate::pool::PoolHandle;
use crate::pool::SlotAlloc;
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
    pub(super) fn mapped(&self) -> Option<&Mapped> {
        match self {
            Self::Open => None,
            Self::InPlace { mapped, .. } | Self::Slots { mapped, .. } => mapped.as_ref(),
        }
    }

    /// What it held in the device's domain is unmapped.
    pub(super) fn forget_mapped(&mut self) {
        match self {
            Self::Open => {}
            Self::InPlace { mapped, .. } | Self::Slots { mapped, .. } => *mapped = None,
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
    /// effect on what is copied, or on who has the memory next.
    ///
    /// # Errors
    ///
    /// The record, with which nothing happened: it is another device's, or the IOMMU could not
    /// unmap it ([`UnmapRawError::StillMapped`]). Without an IOMMU only the former can be. (Who has
    /// to give the buffer back all the same brings the bytes by
    /// [`sync_for_cpu`](Self::sync_for_cpu), and finishes the record later with `written` 0.)
    ///
    /// # Safety
    ///
    /// The device has stopped using the address, and the conditions of
    /// [`map_raw`](Self::map_raw) held until now. With `written` 0 the buffer may be gone, if it
    /// was there when the device stopped: no byte of it is touched.
    #[inline]
    pub unsafe fn unmap_raw(
        &self,
        mapping: RawMapping,
        written: usize,
    ) -> Result<(), UnmapRawError> {
        // SAFETY: this function's conditions.
        unsafe { self.unmap_with(&mut self.hand(), mapping, written) }
    }

    /// The same for whoever has a cache of the pool for itself; the map may have been made without.
    ///
    /// # Safety
    ///
    /// As for [`unmap_raw`](Self::unmap_raw).
    #[inline]
    pub unsafe fn unmap_raw_with(
        &self,
        handle: &mut PoolHandle<'_>,
        mapping: RawMapping,
        written: usize,
    ) -> Result<(), UnmapRawError> {
        // SAFETY: this function's conditions.
        unsafe { self.unmap_with(handle, mapping, written) }
    }

    /// # Safety
    ///
    /// As for [`unmap_raw`](Self::unmap_raw).
    #[inline]
    unsafe fn unmap_with(
        &self,
        hand: &mut impl SlotAlloc,
        mapping: RawMapping,
        written: usize,
    ) -> Result<(), UnmapRawError> {
        // sabotage: map-of-another
        if mapping.owner != self.owner() {
            return Err(UnmapRawError::NotThisDevice(mapping));
        }
        // SAFETY: this function's conditions.
        let ended = unsafe { self.end(hand, mapping, written) };
        ended.map_err(|(mapping, error)| UnmapRawError::StillMapped(mapping, error))
    }

    /// Ends a map of this device, or gives its record back as it was.
    ///
    /// # Safety
    ///
    /// As for [`unmap_raw`](Self::unmap_raw).
    #[inline]
    pub(super) unsafe fn end(
        &self,
        hand: &mut impl SlotAlloc,
        mapping: RawMapping,
        written: usize,
    ) -> Result<(), (RawMapping, UnmapError)> {
        match (mapping, self.default_pool()) {
            (
                RawMapping {
                    place: Held::Slots { pool, run, at, mapped: None },
                    buffer,
                    direction,
                    attrs: Attrs::NONE,
                    ..
                },
                Some(default_pool),
            ) if pool == default_pool.index && at == run.offset() => {
                // SAFETY: this function's conditions.
                unsafe { self.unmap_fast(hand, default_pool, run, buffer, direction, written) };
                Ok(())
            }
            // SAFETY: this function's conditions.
            (mapping, _) => unsafe { self.unmap_slow(hand, launder(mapping), written) },
        }
    }

    /// The same the whole way.
    ///
    /// # Safety
    ///
    /// As for [`unmap_raw`](Self::unmap_raw).
    #[inline(never)]
    unsafe fn unmap_slow(
        &self,
        hand: &mut impl SlotAlloc,
        mapping: RawMapping,
        written: usize,
    ) -> Result<(), (RawMapping, UnmapError)> {
        // SAFETY: the device has stopped, by this function's condition.
        if let Err(error) = unsafe { self.untranslate(mapping.place.mapped()) } {
            return Err((mapping, error));
        }
        // SAFETY: this function's conditions.
        unsafe { self.copy_back(&mapping, written) };
        let lent = self.dma().tells_maps().then(|| self.map_info(&mapping));
        match mapping.place {
            Held::Open => {}
            place @ (Held::InPlace { .. } | Held::Slots { .. }) => {
                self.release(hand, place);
                self.count().unmapped();
            }
        }
        if let Some(lent) = lent {
            self.dma().notify(&Event::Unmapped(lent));
        }
        Ok(())
    }

    /// Brings the first `written` bytes to the buffer, as the end of the map does.
    ///
    /// # Safety
    ///
    /// As for [`map_raw`](Self::map_raw); the mapping is this device's.
    pub(super) unsafe fn copy_back(&self, mapping: &RawMapping, written: usize) {
        if let Some(ends) = self.ends(mapping) {
            // SAFETY: the buffer is readable and writable by condition 1 of `map_raw`.
            // sabotage: whole-slot-back-iommu
            unsafe { self.transfer(&ends, Moment::Unmap, 0..written) };
        }
        // What the device wrote is read anew.
        barrier(mapping.buffer.as_ptr().cast());
    }

    /// Gives back what a map held, which the device reaches no more.
    pub(super) fn release(&self, hand: &mut impl SlotAlloc, place: Held) {
        match place {
            Held::Open | Held::InPlace { pin: None, .. } => {}
            Held::InPlace { pin: Some(pin), .. } => self.dma().ledger().unpin(pin),
            Held::Slots { pool, run, .. } => {
                if let Some(pool) = self.pool(pool) {
                    self.free_run(hand, pool, &run, |_| ());
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
        if mapping.owner == self.owner()
            && let Some(ends) = self.ends(mapping)
        {
            // SAFETY: the buffer is readable and writable by condition 1 of `map_raw`.
            unsafe { self.transfer(&ends, Moment::SyncForDevice, part.clone()) };
        }
        // In place too, what the driver wrote is written.
        barrier(mapping.buffer.as_ptr().cast());
        self.tell_synced(mapping, part, SyncFor::Device);
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
        if mapping.owner == self.owner()
            && let Some(ends) = self.ends(mapping)
        {
            // SAFETY: the buffer is readable and writable by condition 1 of `map_raw`.
            unsafe { self.transfer(&ends, Moment::SyncForCpu, part.clone()) };
        }
        // In place too, what the device wrote is read anew.
        barrier(mapping.buffer.as_ptr().cast());
        self.tell_synced(mapping, part, SyncFor::Cpu);
    }
}
