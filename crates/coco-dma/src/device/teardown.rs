//! How a device ends: revoked when it is dead, or no longer trusted.
// UNSAFETY: freeing what a device may still be using is a promise of the caller.
#![expect(unsafe_code)]

use super::BindError;
use super::Device;
use super::Endpoint;
use crate::iommu::UnmapError;
use crate::observe::Event;
use crate::plan::Limits;
use crate::platform::Platform;

impl<'d, P: Platform + ?Sized> Device<'d, P> {
    /// Ends all maps of a dead device: what it has in its IOMMU domain, allocations included, is
    /// unmapped, the slots of its maps are freed at once, and it is refused new ones. Answers how
    /// many slots that were. (None where the IOMMU could not unmap everything: slots are then freed
    /// by finishing what was unmapped.)
    ///
    /// The records of its mappings stay good for one thing: finishing one gives the buffer back
    /// without reading a byte of what the device left, and ends its pin. Memory that is mapped in
    /// place stays pinned until then, and memory that was allocated is kept until it is freed:
    /// drivers still look at it. (On an open machine a map of memory in reach asks nobody, and
    /// does not ask this either.) Any context; takes time in the size of its pools.
    ///
    /// # Safety
    ///
    /// 1. The device does no DMA any more (it was reset, unplugged, or its process is gone).
    /// 2. No other thread is mapping, syncing or finishing for it meanwhile.
    pub unsafe fn revoke(&self) -> usize {
        self.life.revoke();
        // SAFETY: this function's conditions.
        let unmapped = unsafe { self.untranslate_all() }.is_ok();
        let pools = self.pools.iter().flatten().filter(|_| unmapped);
        let slots = pools.map(|pool| pool.revoke(self.owner)).sum();
        self.quota.discharge(slots);
        self.stop_waiting();
        self.dma.notify(&Event::Revoked { device: self.name, slots });
        slots
    }

    /// An accepted device is trusted no longer (TDISP ERROR, a failed attestation): it is refused
    /// new maps. Its live maps end by being finished; what it wrote is not brought back, since
    /// nobody vouches for it. Memory stays safe: private slots are freed only by finishing, and
    /// the platform keeps a device that is not in the RUN state from private memory.
    ///
    /// Behind a domain it is cut off at once: all that it has there is unmapped, allocations
    /// included, and what it still does faults. (Where another device shares the domain, what that
    /// one maps is in reach of both: take the device out of the domain then.) May race with maps,
    /// syncs and ends of maps on other threads. Any context; takes time in the size of the domain.
    ///
    /// # Errors
    ///
    /// The first of what is not unmapped, and the device may still reach: the IOMMU could not, of
    /// which observers are told each, or another thread is ending it at this moment. Calling it
    /// again tries again. The device counts as distrusted all the same.
    pub fn lose_trust(&self) -> Result<(), UnmapError> {
        self.life.distrust();
        // SAFETY: it is to be stopped by this.
        let cut = unsafe { self.untranslate_all() };
        self.stop_waiting();
        self.dma.notify(&Event::TrustLost { device: self.name });
        cut
    }

    /// Binds the same device anew, as something else: accepted where it was untrusted, or with
    /// other limits. Refused, and the device given back, while maps or allocations of it live: a
    /// map that was made for an untrusted device must not become an accepted one's. (Mappings for
    /// safe code borrow the device, so that the compiler refuses them.) Any context.
    #[expect(clippy::result_large_err, reason = "the error gives the device back")]
    pub fn rebind(self, endpoint: Endpoint<'d>, limits: Limits) -> Result<Self, (Self, BindError)> {
        let counters = self.counters.now();
        let (maps, allocations, slots) = (counters.live(), counters.allocations(), self.holds());
        if maps > 0 || allocations > 0 || slots > 0 {
            return Err((self, BindError::InUse { maps, allocations, slots }));
        }
        match self.dma.bind(endpoint, limits) {
            Ok(device) => Ok(device),
            Err(error) => Err((self, error)),
        }
    }

    /// Slots that the device holds in its pools now, for maps and allocations.
    pub fn holds(&self) -> usize {
        let pools = self.pools.iter().flatten();
        pools.map(|pool| pool.held_by(self.owner) + pool.held_by(self.owner.allocating())).sum()
    }

    /// Whether new maps are still to be had.
    pub fn is_alive(&self) -> bool {
        self.stopped().is_none()
    }
}
