//! A static buffer is reached by the reference that was mapped.

use coco_dma::attrs::Attrs;
use coco_dma::device::Device;
use coco_dma::state::Direction;

pub fn read(device: &Device<'_>, buffer: &'static mut [u8]) -> Option<u8> {
    let mapping = device.map(&mut *buffer, Direction::FromDevice, Attrs::NONE).ok()?;
    #[cfg(misuse)]
    let _ = buffer[0]; //~ E0503
    let buffer = mapping.unmap(1).unwrap();
    buffer.first().copied()
}
