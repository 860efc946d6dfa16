//! dma-api: a mapping returned from a function outlives the local array that it maps.

use coco_dma::attrs::Attrs;
use coco_dma::device::Device;
use coco_dma::state::Direction;
use coco_dma::stream::Mapping;

pub fn start<'a, 'd>(device: &'a Device<'d>) -> Option<Mapping<&'a Device<'d>, &'static mut [u8]>> {
    #[cfg(not(misuse))]
    let array = Box::leak(Box::new([0; 64]));
    #[cfg(misuse)]
    let mut array = [0; 64];
    #[cfg(misuse)]
    let array = &mut array; //~ E0597
    device.map(&mut array[..], Direction::FromDevice, Attrs::NONE).ok()
}
