//! A mapping passes for its buffer.

use coco_dma::device::Device;
use coco_dma::stream::Mapping;

pub fn look(mapping: &Mapping<&Device<'_>, Vec<u8>>) -> usize {
    #[cfg(misuse)]
    let _: &Vec<u8> = mapping; //~ E0308
    mapping.len()
}
