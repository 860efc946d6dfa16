//! Where the regions lie, in every kind of address.

use core::ptr::NonNull;
use std::os::fd::BorrowedFd;

use coco_dma::addr::{DmaAddr, PhysRange};

use super::peer::{REGIONS_FRONT, Window};
use crate::memory::{MemoryError, Patches};

/// Where the regions lie; the [`Board`](super::board::Board) knows their states.
#[derive(Debug)]
pub(super) struct Regions {
    pub(super) patches: Patches,
    /// All of them, side by side.
    pub(super) range: PhysRange,
    dma: DmaAddr,
}

impl Regions {
    /// `range` has room for `count` regions of `size` bytes; an untrusted device sees it at `dma`.
    pub(super) fn new(
        count: usize,
        size: usize,
        range: PhysRange,
        dma: DmaAddr,
    ) -> Result<Self, MemoryError> {
        Ok(Self { patches: Patches::new(count, size)?, range, dma })
    }

    /// Bytes of a region.
    pub(super) fn size(&self) -> usize {
        self.patches.size()
    }

    /// Where they start in this process.
    pub(super) fn start(&self) -> NonNull<u8> {
        self.patches.start()
    }

    /// How far into them `bytes` start.
    pub(super) fn offset_of(&self, bytes: NonNull<[u8]>) -> Option<usize> {
        self.patches.offset_of(bytes)
    }

    /// The first region of `run` and how many it touches, where it lies in them.
    pub(super) fn touched(&self, run: PhysRange) -> Option<core::ops::Range<usize>> {
        let within = self.range.contains(run);
        let at = usize::try_from(run.base().offset_from(self.range.base())?).ok()?;
        let end = at.checked_add(usize::try_from(run.len()).ok()?)?;
        within.then(|| at / self.size()..end.div_ceil(self.size()))
    }

    /// As [`touched`](Self::touched), for runs of whole regions.
    pub(super) fn whole(&self, run: PhysRange) -> Option<core::ops::Range<usize>> {
        let touched = self.touched(run)?;
        let len = (touched.len() as u64).checked_mul(self.size() as u64)?;
        let at = run.base().offset_from(self.range.base())?;
        (len == run.len() && at.is_multiple_of(self.size() as u64)).then_some(touched)
    }

    /// A region as a device is told of it, while `file` lies in it.
    pub(super) fn window<'w>(&self, number: usize, file: BorrowedFd<'w>) -> Window<'w> {
        let (len, at) = (self.size() as u64, number as u64 * self.size() as u64);
        // Below the end of the regions, all of which have addresses.
        let dma = self.dma.raw().wrapping_add(at);
        Window { dma, len, front: REGIONS_FRONT + at, file }
    }
}
