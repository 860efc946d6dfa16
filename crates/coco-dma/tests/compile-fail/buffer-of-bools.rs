//! dma-api: a device writes bytes that are no `bool`.

use coco_dma::attrs::Attrs;
use coco_dma::device::Device;
use coco_dma::state::Direction;

pub fn receive(device: &Device<'_>) {
    #[cfg(not(misuse))]
    let buffer = vec![0_u8; 64];
    #[cfg(misuse)]
    let buffer = vec![false; 64];
    let _ = device.map(
        buffer, //~ E0277
        Direction::FromDevice,
        Attrs::NONE,
    );
}
