//! What a driver allocated: one run, or several of which its device sees one.
// UNSAFETY: the driver's view of an allocation is unsafe to make, and its end to say.
#![expect(unsafe_code)]

use std::ptr::NonNull;

use coco_dma::coherent::{NotFreed, RawCoherent, RawScattered};
use coco_dma::device::Device;
use coco_dma::plan::Protection;
use coco_dma::reason::Refuse;
use coco_dma::state::Direction;

use super::Rules;
use super::world::Platform;

#[derive(Debug)]
pub(super) enum Allocated<'w> {
    Whole(RawCoherent),
    Scattered(RawScattered<'w>),
}

impl<'w> Allocated<'w> {
    pub(super) fn addr(&self) -> u64 {
        match self {
            Self::Whole(memory) => memory.addr().raw(),
            Self::Scattered(memory) => memory.addr().raw(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.runs().iter().map(|run| run.len()).sum()
    }

    /// Its runs, in the order of the device's addresses.
    pub(super) fn runs(&self) -> Vec<NonNull<[u8]>> {
        match self {
            Self::Whole(memory) => vec![memory.bytes()],
            Self::Scattered(memory) => memory.runs().collect(),
        }
    }

    pub(super) fn converts_on_free(&self) -> bool {
        match self {
            Self::Whole(memory) => memory.converts_on_free(),
            Self::Scattered(memory) => memory.converts_on_free(),
        }
    }

    pub(super) fn mmap(
        &self,
        device: &Device<'_, Platform>,
        offset: u64,
        part: u64,
        rules: &mut Rules,
    ) -> Result<Protection, Refuse> {
        match self {
            Self::Whole(memory) => device.mmap(memory, offset, part, rules),
            Self::Scattered(memory) => device.mmap_scattered(memory, offset, part, rules),
        }
    }

    pub(super) fn sync(&self, device: &Device<'_, Platform>, for_device: bool) {
        let both = Direction::Both;
        match (self, for_device) {
            (Self::Whole(memory), true) => device.sync_alloc_for_device(memory, both),
            (Self::Whole(memory), false) => device.sync_alloc_for_cpu(memory, both),
            (Self::Scattered(memory), true) => device.sync_scattered_for_device(memory, both),
            (Self::Scattered(memory), false) => device.sync_scattered_for_cpu(memory, both),
        }
    }

    /// Frees it. Its device acts when told, and is not told to any more.
    pub(super) fn free(self, device: &Device<'_, Platform>) -> Result<(), (NotFreed, Self)> {
        match self {
            Self::Whole(memory) => {
                // SAFETY: the device has stopped.
                let freed = unsafe { device.free_raw(memory) };
                freed.map_err(|error| (error.reason, Self::Whole(error.memory)))
            }
            Self::Scattered(memory) => {
                // SAFETY: the device has stopped.
                let freed = unsafe { device.free_scattered(memory) };
                freed.map_err(|error| (error.reason, Self::Scattered(error.memory)))
            }
        }
    }

    /// `len` bytes from `offset` on, as the kernel's own pointers show them.
    pub(super) fn read(&self, offset: usize, len: usize) -> Option<Vec<u8>> {
        let mut bytes = vec![0; len];
        self.pieces(offset, len, |run, most, at| {
            let part = bytes.get_mut(at..at.saturating_add(most).min(len))?;
            // SAFETY: `most` bytes from there on are a run's, which lives; the vector is another
            // memory.
            unsafe { run.copy_to_nonoverlapping(part.as_mut_ptr(), part.len()) };
            Some(part.len())
        })?;
        Some(bytes)
    }

    /// Writes through them; `None` where the bytes do not fit.
    pub(super) fn write(&self, offset: usize, bytes: &[u8]) -> Option<()> {
        self.pieces(offset, bytes.len(), |run, most, at| {
            let part = bytes.get(at..at.saturating_add(most).min(bytes.len()))?;
            // SAFETY: as above, the other way round.
            unsafe { run.copy_from_nonoverlapping(part.as_ptr(), part.len()) };
            Some(part.len())
        })
    }

    /// Goes through the runs that have bytes of a part: where they begin, how many follow, and how
    /// many of the part came before. `copy` says how many it took.
    fn pieces(
        &self,
        offset: usize,
        len: usize,
        mut copy: impl FnMut(*mut u8, usize, usize) -> Option<usize>,
    ) -> Option<()> {
        let (mut skip, mut done) = (offset, 0);
        for run in self.runs() {
            if skip < run.len() && done < len {
                let start = run.as_ptr().cast::<u8>().wrapping_add(skip);
                done += copy(start, run.len() - skip, done)?;
            }
            skip = skip.saturating_sub(run.len());
        }
        (done == len).then_some(())
    }
}
