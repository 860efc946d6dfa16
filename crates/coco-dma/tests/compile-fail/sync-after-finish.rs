//! A sync of slots that are another mapping's by now.

use coco_dma::device::Device;
use coco_dma::stream::Mapping;

pub fn end(mut mapping: Mapping<&Device<'_>, Vec<u8>>) -> Vec<u8> {
    mapping.sync_for_cpu(0..1);
    let buffer = mapping.unmap(1).unwrap();
    #[cfg(misuse)]
    mapping.sync_for_cpu(0..1); //~ E0382
    buffer
}
