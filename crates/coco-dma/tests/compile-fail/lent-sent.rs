//! A lent buffer is looked at by another thread.

use coco_dma::attrs::Attrs;
use coco_dma::device::Device;
use coco_dma::state::Direction;

pub fn share(device: &Device<'_>, buffer: &mut [u8]) {
    let _ = device.with_mapped(buffer, Direction::FromDevice, Attrs::NONE, |lent| {
        #[cfg(misuse)]
        std::thread::scope(|scope| {
            scope.spawn(|| lent.sync_for_cpu(0..1)); //~ E0277
        });
        lent.sync_for_cpu(0..1);
    });
}
