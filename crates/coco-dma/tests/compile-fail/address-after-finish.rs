//! The address of a mapping that has ended.

use coco_dma::device::Device;
use coco_dma::stream::Mapping;

pub fn end(mapping: Mapping<&Device<'_>, Vec<u8>>) -> u64 {
    let addr = mapping.addr();
    let _ = mapping.unmap(1);
    #[cfg(misuse)]
    let _ = mapping.addr(); //~ E0382
    addr.raw()
}
