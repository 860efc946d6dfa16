//! One connection as the machine sees it: somebody who is told of every shared region.

use std::os::fd::AsRawFd;

use vhost::vhost_user::VhostUserFrontend;
use vhost::{VhostBackend, VhostUserMemoryRegionInfo};

use super::FrontError;
use super::link::Link;
use crate::machine::{Peer, Window};

/// A connection with what the device at its other end can take.
pub(super) struct Line {
    pub(super) link: Link,
    /// How many memory regions the device takes.
    pub(super) region_limit: u64,
}

impl Line {
    /// Tells a device that is being introduced what there is.
    pub(super) fn tell(&self, windows: &[Window<'_>]) -> Result<(), FrontError> {
        let (wanted, limit) = (windows.len(), self.region_limit);
        // Never one too many: qemu-storage-daemon says that all is well, and hangs up.
        if u64::try_from(wanted).map_or(true, |wanted| wanted > limit) {
            return Err(FrontError::TooManyRegions { wanted, limit });
        }
        let Some((pool, regions)) = windows.split_first() else { return Ok(()) };
        // A table holds eight regions at most, whatever the device takes: the others follow.
        let table = [region(pool)];
        self.link.ask("SET_MEM_TABLE", |device| device.set_mem_table(&table).map(|_| ()))?;
        regions.iter().try_for_each(|window| self.add_region(window))
    }

    fn add_region(&self, window: &Window<'_>) -> Result<(), FrontError> {
        let region = region(window);
        self.link.ask("ADD_MEM_REG", |device| device.add_mem_region(&region).map(|_| ()))
    }
}

impl Peer for Line {
    fn limit(&self) -> u64 {
        self.region_limit
    }

    fn add(&self, window: &Window<'_>) -> Result<(), i32> {
        self.add_region(window).map_err(|error| number(&error))
    }

    fn remove(&self, window: &Window<'_>) -> Result<(), i32> {
        let region = region(window);
        let told = self.link.ask("REM_MEM_REG", |device| device.remove_mem_region(&region));
        told.map_err(|error| number(&error))
    }

    fn cut_off(&self) {
        self.link.cut_off();
    }

    fn is_cut_off(&self) -> bool {
        self.link.is_cut_off()
    }
}

fn region(window: &Window<'_>) -> VhostUserMemoryRegionInfo {
    VhostUserMemoryRegionInfo {
        guest_phys_addr: window.dma,
        memory_size: window.len,
        userspace_addr: window.front,
        mmap_offset: 0,
        mmap_handle: window.file.as_raw_fd(),
    }
}

/// What the kernel would say of such an error.
fn number(error: &FrontError) -> i32 {
    match error {
        FrontError::Silent { .. } => libc::ETIMEDOUT,
        _ => libc::EPIPE,
    }
}
