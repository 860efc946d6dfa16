//! A buffer that is shared for good, so that devices use it where it lies.
// UNSAFETY: memory changes hands, and a device writes into it.
#![expect(unsafe_code)]

use core::ptr::NonNull;

use coco_dma::addr::PhysRange;
use coco_dma::attrs::Attrs;
use coco_dma::platform::PageSource;
use coco_dma::shared::SharedBytes;
use coco_dma::state::Context;
use coco_dma::state::Direction;
use coco_dma::stream::RawMapping;

use super::DeviceError;
use crate::Failure;
use crate::layer::GuestDevice;
use crate::layer::Layer;
use crate::memory::PAGE;
use crate::memory::frames::SOURCE;
use crate::memory::shared;

/// Frames that were shared through the layer.
#[derive(Debug)]
pub struct SharedBuffer {
    run: PhysRange,
}

impl SharedBuffer {
    /// `len` bytes from `from` on, in whole pages.
    pub fn new(layer: &Layer, from: u64, len: u64) -> Result<Self, Failure> {
        let run = SOURCE.take_from(from, len, PAGE, u64::MAX).ok_or("no memory to share")?;
        // SAFETY: the frames are ours, and nothing points into them.
        let shared = unsafe { layer.dma.share(run) };
        if shared.is_err() {
            // A failed share is undone, but for what it says; nothing here is used again.
            shared?;
        }
        Ok(Self { run })
    }

    /// Where it lies.
    pub fn run(&self) -> PhysRange {
        self.run
    }

    /// Its bytes, through the shared alias.
    pub fn pointer(&self) -> NonNull<[u8]> {
        let start = NonNull::new(shared(self.run.base().raw())).unwrap_or(NonNull::dangling());
        NonNull::slice_from_raw_parts(start, self.run.len() as usize)
    }

    /// The same as safe code may look at it.
    pub fn bytes(&mut self) -> SharedBytes<'_> {
        let all = self.pointer();
        // SAFETY: 1. the alias is mapped while the buffer is shared, and was zeroed. 2. and 3.
        // the borrow is exclusive, and no reference is ever made.
        unsafe { SharedBytes::new(all.cast(), all.len()) }
    }

    /// Maps all of it for a device, runs `work` with the number for the device, and ends the map.
    /// Also says whether it was bounced.
    pub fn lend<R>(
        &mut self,
        device: &GuestDevice,
        direction: Direction,
        work: impl FnOnce(u64) -> R,
    ) -> Result<(R, bool), DeviceError> {
        // SAFETY: 1. and 2. the memory is this buffer's, which is borrowed. 3. `work` hands the
        // number out and answers for it.
        let mapping: RawMapping =
            unsafe { device.map_raw(self.pointer(), direction, Attrs::NONE) }?;
        let bounced = mapping.is_bounced();
        let answer = work(mapping.addr().raw());
        let len = mapping.len();
        // SAFETY: as above.
        unsafe { device.unmap_raw(mapping, len) }?;
        Ok((answer, bounced))
    }

    /// Takes it back from the host.
    pub fn end(self, layer: &Layer) -> Result<(), Failure> {
        // SAFETY: the buffer is given up; `lend` ended every map.
        unsafe { layer.dma.reclaim(self.run) }?;
        // SAFETY: it is private again, and nobody's.
        unsafe { SOURCE.free(self.run, Context::Blocking) };
        Ok(())
    }
}
