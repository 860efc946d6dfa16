//! A device writes borrowed memory that is not bytes.

use coco_dma::attrs::Attrs;
use coco_dma::device::Device;
use coco_dma::state::Direction;

pub fn receive(device: &Device<'_>) {
    #[cfg(not(misuse))]
    let mut buffer = [0_u8; 64];
    #[cfg(misuse)]
    let mut buffer = [false; 64];
    let _ = device.with_mapped(
        &mut buffer, //~ E0308
        Direction::FromDevice,
        Attrs::NONE,
        |lent| lent.written(1),
    );
}
