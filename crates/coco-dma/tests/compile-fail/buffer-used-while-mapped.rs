//! A buffer that a device may be writing is read.

use coco_dma::attrs::Attrs;
use coco_dma::device::Device;
use coco_dma::state::Direction;

pub fn read(device: &Device<'_>, buffer: Vec<u8>) -> Option<usize> {
    let mapping = device.map(buffer, Direction::FromDevice, Attrs::NONE).ok()?;
    #[cfg(misuse)]
    let _ = buffer.first(); //~ E0382
    let buffer = mapping.unmap(1).unwrap();
    Some(buffer.len())
}
