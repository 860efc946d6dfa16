//! Bytes that are borrowed for reading are written.

use coco_dma::attrs::Attrs;
use coco_dma::device::Device;

pub fn write(device: &Device<'_>, bytes: &[u8]) {
    let _ = device.with_mapped_ref(bytes, Attrs::NONE, |lent| {
        #[cfg(misuse)]
        let _ = lent.write(0, b"x"); //~ E0599
        lent.len()
    });
}
