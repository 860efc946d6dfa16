//! What a device behind an IOMMU does with its domain: the floors above map and unmap by this, and
//! a failure to unmap is told and kept.
// UNSAFETY: what the device reaches is mapped and unmapped here.
#![expect(unsafe_code)]

use super::Device;
use crate::addr::DmaAddr;
use crate::addr::PhysRange;
use crate::iommu::Entry;
use crate::iommu::Fit;
use crate::iommu::Mapped;
use crate::iommu::PartialMap;
use crate::iommu::UnmapError;
use crate::iommu::UnmapFailure;
use crate::observe::Event;
use crate::platform::Platform;
use crate::reason::Refuse;
use crate::state::Direction;
use crate::state::State;

impl<P: Platform + ?Sized> Device<'_, P> {
    /// The memory that an entry for `range` shows: whole pages of the IOMMU, behind one.
    pub(crate) fn shown(&self, range: PhysRange) -> PhysRange {
        self.domain().and_then(|domain| domain.pages_of(range)).unwrap_or(range)
    }

    /// The page of the domain that the device is behind in bytes; 1 where it is behind none.
    pub(crate) fn iommu_page(&self) -> u64 {
        self.domain().map_or(1, |domain| domain.page())
    }

    /// What stands in the entries of this device for memory or registers in this state.
    pub(crate) fn entry(&self, direction: Direction, state: State, mmio: bool) -> Entry {
        Entry::new(direction, state).mmio(mmio).coherent(self.info().coherent)
    }

    /// Maps `range` in the device's domain, in whole pages; the address is that of its first byte.
    ///
    /// # Safety
    ///
    /// Until it is unmapped, the pages around the range stay in the state of the entry, and the
    /// device may do with them what the entry says.
    pub(crate) unsafe fn translate(
        &self,
        range: PhysRange,
        fit: Fit,
        entry: Entry,
    ) -> Result<(DmaAddr, Mapped), Refuse> {
        // Bound without a domain there is no such device.
        let domain = self.domain().ok_or(Refuse::NoReachablePool)?;
        // SAFETY: this function's condition.
        let made = unsafe { domain.map(range, fit, entry, self.info(), self.owner()) }?;
        match self.stopped() {
            // It was cut off meanwhile. What cannot be unmapped again goes on as a mapping, whose
            // end tries once more.
            // SAFETY: nobody was given the address.
            Some(reason) if unsafe { self.untranslate(Some(&made.1)) }.is_ok() => Err(reason),
            _ => Ok(made),
        }
    }

    /// The same for whole pages in several runs, `len` bytes in all, which the device sees as one at an
    /// address of this fit. The
    /// error has what is mapped nevertheless and could not be unmapped again.
    ///
    /// # Safety
    ///
    /// As for [`translate`](Self::translate), of each run.
    pub(crate) unsafe fn translate_runs(
        &self,
        runs: impl Iterator<Item = PhysRange>,
        (len, fit): (u64, Fit),
        entry: Entry,
    ) -> Result<(DmaAddr, Mapped), (Refuse, Option<PartialMap>)> {
        let domain = self.domain().ok_or((Refuse::NoReachablePool, None))?;
        // SAFETY: this function's condition.
        match unsafe { domain.map_runs(runs, (len, fit), entry, self.info(), self.owner()) } {
            Ok(made) if self.stopped().is_none() => Ok(made),
            // It was cut off meanwhile.
            Ok((addr, mapped)) => {
                let reason = self.stopped().unwrap_or(Refuse::Revoked);
                // SAFETY: nobody was given the address.
                let ended = unsafe { domain.unmap(&mapped, self.owner()) };
                Err((reason, ended.err().map(|stuck| PartialMap { addr, mapped, stuck })))
            }
            Err(failed) => Err(failed),
        }
        .inspect_err(|(_, kept)| {
            if let Some(PartialMap { stuck, .. }) = kept {
                self.notify_failure(stuck);
            }
        })
    }

    /// Ends what [`translate`](Self::translate) made. On an error the device may still reach it:
    /// then its memory must not be anybody else's before another call succeeded.
    ///
    /// # Safety
    ///
    /// The device has stopped using it.
    #[inline]
    pub(crate) unsafe fn untranslate(&self, mapped: Option<&Mapped>) -> Result<(), UnmapError> {
        let (Some(mapped), Some(domain)) = (mapped, self.domain()) else { return Ok(()) };
        // SAFETY: this function's condition.
        unsafe { domain.unmap(mapped, self.owner()) }.map_err(|stuck| self.notify_failure(&stuck))
    }

    /// Unmaps all that the device has in its domain; the error is the first that did not go. Call
    /// it after the device was marked as stopped.
    ///
    /// # Safety
    ///
    /// The device has stopped, or is to be stopped by this.
    pub(super) unsafe fn untranslate_all(&self) -> Result<(), UnmapError> {
        let mut all = Ok(());
        if let Some(domain) = self.domain() {
            let stuck = |stuck: UnmapFailure| {
                let error = self.notify_failure(&stuck);
                all = all.and(Err(error));
            };
            // SAFETY: this function's condition.
            unsafe { domain.revoke(self.owner(), stuck) };
        }
        all
    }

    /// Each failure is told to observers once.
    #[cold]
    fn notify_failure(&self, stuck: &UnmapFailure) -> UnmapError {
        let UnmapFailure { addr, len, error } = *stuck;
        let (device, code) = (self.name(), error.map(|error| error.code));
        if let Some(code) = code {
            self.dma().notify(&Event::UnmapFailed { device, addr, len, code });
        }
        UnmapError { device: device.into(), addr, len, code }
    }
}
