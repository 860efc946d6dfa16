//! An address made around its constructor.

use coco_dma::addr::DmaAddr;

pub fn address(number: u64) -> DmaAddr {
    #[cfg(misuse)]
    let _ = DmaAddr(number); //~ E0423
    DmaAddr::new(number)
}
