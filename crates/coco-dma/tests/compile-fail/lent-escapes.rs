//! A lent buffer leaves its closure: the map has ended, the borrow is over.

use coco_dma::attrs::Attrs;
use coco_dma::device::Device;
use coco_dma::state::Direction;

pub fn keep(device: &Device<'_>, buffer: &mut [u8]) {
    #[cfg(misuse)]
    let mut kept = None;
    let _ = device.with_mapped(buffer, Direction::FromDevice, Attrs::NONE, |lent| {
        #[cfg(misuse)]
        {
            kept = Some(lent); //~ E0521
        }
        lent.written(1);
    });
    #[cfg(misuse)]
    let _ = kept;
}
