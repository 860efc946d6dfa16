//! The devices that shared memory is given to, as the machine sees them.

use std::os::fd::BorrowedFd;

use coco_dma::addr::{DmaAddr, PhysRange};

use crate::memory::SharedRegion;

/// Where the front-end addresses of the pool start. Like guest addresses they are invented: a
/// device is told nothing of where anything lies in this process.
const POOL_FRONT: u64 = 0x1000_0000_0000;
/// Where those of the regions start.
pub(super) const REGIONS_FRONT: u64 = 0x2000_0000_0000;

/// One shared region as a device is told of it: descriptors name its memory by the DMA form, rings
/// by front-end addresses.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window<'w> {
    pub(crate) dma: u64,
    pub(crate) len: u64,
    pub(crate) front: u64,
    pub(crate) file: BorrowedFd<'w>,
}

impl<'w> Window<'w> {
    /// That of the pool.
    pub(crate) fn of_pool(region: &'w SharedRegion, range: PhysRange, dma: DmaAddr) -> Self {
        Self { dma: dma.raw(), len: range.len(), front: POOL_FRONT, file: region.file() }
    }

    /// The front-end address of what the device sees at `address`.
    pub(crate) fn front_of(&self, address: u64) -> Option<u64> {
        let at = address.checked_sub(self.dma)?;
        (at < self.len).then_some(self.front.checked_add(at)?)
    }
}

/// A device at the other end of a connection. Each call blocks, for seconds at most.
pub(crate) trait Peer: Send + Sync {
    /// How many windows it takes, the pool's among them.
    fn limit(&self) -> u64;
    /// Gives it one window more; an error is a number of the kernel's.
    fn add(&self, window: &Window<'_>) -> Result<(), i32>;
    /// Takes one away. When this returns well, the device has it mapped no more.
    fn remove(&self, window: &Window<'_>) -> Result<(), i32>;
    /// Ends the connection for good.
    fn cut_off(&self);
    /// Whether that has happened.
    fn is_cut_off(&self) -> bool;
}
