//! A raw record is used up by the end of its map.
// UNSAFETY: the raw form of a map.
#![expect(unsafe_code)]

use coco_dma::device::Device;
use coco_dma::stream::RawMapping;

pub fn end(device: &Device<'_>, mapping: RawMapping) {
    // SAFETY: never run.
    let _ = unsafe { device.unmap_raw(mapping, 0) };
    #[cfg(misuse)]
    // SAFETY: never run.
    let _ = unsafe { device.unmap_raw(mapping, 0) }; //~ E0382
}
