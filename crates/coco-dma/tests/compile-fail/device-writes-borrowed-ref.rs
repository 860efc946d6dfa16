//! A device writes what was borrowed for reading.

use coco_dma::attrs::Attrs;
use coco_dma::device::Device;
use coco_dma::state::Direction;

pub fn receive(device: &Device<'_>, bytes: &mut [u8]) {
    #[cfg(misuse)]
    let bytes = &*bytes;
    let _ = device.with_mapped(
        bytes, //~ E0308
        Direction::FromDevice,
        Attrs::NONE,
        |lent| lent.len(),
    );
}
