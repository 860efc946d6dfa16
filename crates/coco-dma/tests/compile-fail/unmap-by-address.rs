//! vmbase, MigTD: unmapping looks up what the host can name.
// UNSAFETY: the raw form of a map.
#![expect(unsafe_code)]

use coco_dma::device::Device;
use coco_dma::stream::RawMapping;

pub fn end(device: &Device<'_>, mapping: RawMapping) {
    #[cfg(misuse)]
    let mapping = mapping.addr();
    // SAFETY: never run.
    let _ = unsafe { device.unmap_raw(mapping, 0) }; //~ E0308
}
