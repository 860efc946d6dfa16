//! The raw form from safe code.
// UNSAFETY: the raw form of a map.
#![expect(unsafe_code)]

use core::ptr::NonNull;

use coco_dma::attrs::Attrs;
use coco_dma::device::Device;
use coco_dma::state::Direction;

pub fn map(device: &Device<'_>, buffer: NonNull<[u8]>) {
    #[cfg(not(misuse))]
    // SAFETY: never run.
    let _ = unsafe { device.map_raw(buffer, Direction::Both, Attrs::NONE) };
    #[cfg(misuse)]
    let _ = device.map_raw(buffer, Direction::Both, Attrs::NONE); //~ E0133
}
