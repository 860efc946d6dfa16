//! A buffer is read while it is lent.

use coco_dma::attrs::Attrs;
use coco_dma::device::Device;
use coco_dma::state::Direction;
use coco_dma::stream::ScopedMapping;

pub fn read(device: &Device<'_>, buffer: &mut [u8]) -> Option<u8> {
    let work = |lent: &ScopedMapping<'_, '_>| {
        #[cfg(misuse)]
        let _ = buffer.first();
        lent.written(1);
    };
    let _ = device.with_mapped(buffer, Direction::FromDevice, Attrs::NONE, work); //~ E0502
    buffer.first().copied()
}
