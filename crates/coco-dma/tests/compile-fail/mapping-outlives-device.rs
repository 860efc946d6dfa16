//! A mapping outlives the device that has to end it.

use coco_dma::attrs::Attrs;
use coco_dma::Dma;
use coco_dma::device::Endpoint;
use coco_dma::plan::Limits;
use coco_dma::state::Direction;

pub fn start(dma: &Dma<'_>, buffer: Vec<u8>) -> usize {
    let mapping;
    #[cfg(not(misuse))]
    let device = dma.bind(Endpoint::new("disk"), Limits::NONE).unwrap();
    {
        #[cfg(misuse)]
        let device = dma.bind(Endpoint::new("disk"), Limits::NONE).unwrap();
        mapping = device.map(buffer, Direction::Both, Attrs::NONE).unwrap(); //~ E0597
    }
    mapping.unmap(0).unwrap().len()
}
