//! The shared regions as a device is told of them.

use std::os::fd::AsRawFd;

use vhost::VhostUserMemoryRegionInfo;

use super::FrontError;
use crate::machine::Placed;

/// Where front-end addresses start; each region has 1 TiB of its own.
const FRONT_BASE: u64 = 0x1000_0000_0000;
const FRONT_STEP: u64 = 1 << 40;

/// All of them: descriptors name their memory by the DMA form, rings by front-end addresses.
pub(super) struct Windows(Vec<VhostUserMemoryRegionInfo>);

impl Windows {
    /// Those of `shared`, for a device that takes `limit` of them.
    pub(super) fn new(shared: &[Placed], limit: u64) -> Result<Self, FrontError> {
        // Never one too many: qemu-storage-daemon says that all is well, and hangs up.
        if u64::try_from(shared.len()).map_or(true, |wanted| wanted > limit) {
            return Err(FrontError::TooManyRegions { wanted: shared.len(), limit });
        }
        let fronts = (0..).map(|number| FRONT_BASE + number * FRONT_STEP);
        let window = |(placed, front): (&Placed, u64)| VhostUserMemoryRegionInfo {
            guest_phys_addr: placed.dma.raw(),
            memory_size: placed.range.len(),
            userspace_addr: front,
            mmap_offset: 0,
            mmap_handle: placed.region.file().as_raw_fd(),
        };
        Ok(Self(shared.iter().zip(fronts).map(window).collect()))
    }

    pub(super) fn all(&self) -> &[VhostUserMemoryRegionInfo] {
        &self.0
    }

    /// The front-end address of what the device sees at `address`.
    pub(super) fn front(&self, address: u64) -> Option<u64> {
        self.0.iter().find_map(|window| {
            let at = address.checked_sub(window.guest_phys_addr)?;
            (at < window.memory_size).then_some(window.userspace_addr.checked_add(at)?)
        })
    }
}
