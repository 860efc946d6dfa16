//! A reference into a buffer that a device may be writing.

use coco_dma::device::Device;
use coco_dma::stream::Mapping;

pub fn first(mapping: &Mapping<&Device<'_>, Vec<u8>>) -> u8 {
    let mut byte = [0];
    let _ = mapping.read(0, &mut byte);
    #[cfg(misuse)]
    let byte = [mapping[0]]; //~ E0608
    byte[0]
}
