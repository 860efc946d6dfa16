//! A mapping is finished twice: the second time its slots are another one's.

use coco_dma::device::Device;
use coco_dma::stream::Mapping;

pub fn end(mapping: Mapping<&Device<'_>, Vec<u8>>) -> Vec<u8> {
    let buffer = mapping.unmap(1).unwrap();
    #[cfg(misuse)]
    let _ = mapping.unmap(1); //~ E0382
    buffer
}
