//! Two tokens for one mapping.

use coco_dma::device::Device;
use coco_dma::stream::Mapping;

pub fn end(mapping: Mapping<&Device<'_>, Vec<u8>>) -> Vec<u8> {
    #[cfg(misuse)]
    let _ = mapping.clone(); //~ E0599
    mapping.unmap(0).unwrap()
}
