//! What a device behind an IOMMU does with its domain: the floors above map and unmap by this, and
//! a failure to unmap is told and kept.
// UNSAFETY: what the device reaches is mapped and unmapped here.
#![expect(unsafe_code)]

use super::Device;
use crate::addr::DmaAddr;
use crate::addr::PhysRange;
use crate::iommu::Entry;
use crate::iommu::Mapped;
use crate::iommu::Stuck;
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
        Entry::new(direction, state).mmio(mmio).coherent(self.face().coherent)
    }

    /// Maps `range` in the device's domain, in whole pages; the address is that of its first byte.
    /// `original` is the address whose low bits the device wants kept.
    ///
    /// # Safety
    ///
    /// Until it is unmapped, the pages around the range stay in the state of the entry, and the
    /// device may do with them what the entry says.
    pub(crate) unsafe fn translate(
        &self,
        range: PhysRange,
        original: u64,
        entry: Entry,
    ) -> Result<(DmaAddr, Mapped), Refuse> {
        // Bound without a domain there is no such device.
        let domain = self.domain().ok_or(Refuse::NoReachablePool)?;
        // SAFETY: this function's condition.
        unsafe { domain.map(range, original, entry, self.face(), self.owner()) }
    }

    /// Ends what [`translate`](Self::translate) made. False where the device may still reach it:
    /// then its memory must never be anybody else's.
    ///
    /// # Safety
    ///
    /// The device has stopped using it.
    #[must_use]
    pub(crate) unsafe fn untranslate(&self, mapped: Option<&Mapped>) -> bool {
        let (Some(mapped), Some(domain)) = (mapped, self.domain()) else { return true };
        // SAFETY: this function's condition.
        match unsafe { domain.unmap(mapped, self.owner()) } {
            Ok(()) => true,
            Err(stuck) => {
                self.tell_stuck(&stuck);
                false
            }
        }
    }

    /// Unmaps all that the device has in its domain; answers whether all of it went.
    ///
    /// # Safety
    ///
    /// The device has stopped, and no other thread maps for it meanwhile.
    pub(super) unsafe fn untranslate_all(&self) -> bool {
        let mut all = true;
        if let Some(domain) = self.domain() {
            let stuck = |stuck: Stuck| {
                self.tell_stuck(&stuck);
                all = false;
            };
            // SAFETY: this function's condition.
            unsafe { domain.revoke(self.owner(), stuck) };
        }
        all
    }

    /// Each failure is told once.
    fn tell_stuck(&self, stuck: &Stuck) {
        if let Some(error) = stuck.error {
            let Stuck { addr, len, .. } = *stuck;
            let (device, code) = (self.name(), error.code);
            self.dma().tell(&Event::UnmapFailed { device, addr, len, code });
        }
    }
}
