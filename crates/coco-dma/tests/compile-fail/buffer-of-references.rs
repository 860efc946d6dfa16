//! dma-api: a device writes bytes that are no reference.

use coco_dma::attrs::Attrs;
use coco_dma::device::Device;
use coco_dma::state::Direction;

pub fn receive(device: &Device<'_>) {
    #[cfg(not(misuse))]
    let buffer = Box::new([0_u8; 64]);
    #[cfg(misuse)]
    let buffer = Box::new([&0_u8; 64]);
    let _ = device.map(
        buffer, //~ E0277
        Direction::FromDevice,
        Attrs::NONE,
    );
}
