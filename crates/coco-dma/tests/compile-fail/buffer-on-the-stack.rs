//! An array by value: it moves, and the device does not follow.

use coco_dma::attrs::Attrs;
use coco_dma::device::Device;
use coco_dma::state::Direction;

pub fn receive(device: &Device<'_>) {
    let buffer = [0_u8; 64];
    #[cfg(not(misuse))]
    let buffer = Box::new(buffer);
    let _ = device.map(
        buffer, //~ E0277
        Direction::FromDevice,
        Attrs::NONE,
    );
}
