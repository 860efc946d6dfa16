//! A mapping passes for its buffer.

use coco_dma::stream::Mapping;

pub fn look(mapping: &Mapping<'_, '_, Vec<u8>>) -> usize {
    #[cfg(misuse)]
    let _: &Vec<u8> = mapping; //~ E0308
    mapping.len()
}
