//! A number passes for an address by `From`.

use coco_dma::addr::DmaAddr;

pub fn address(number: u64) -> DmaAddr {
    #[cfg(misuse)]
    let _ = DmaAddr::from(number); //~ E0308
    DmaAddr::new(number)
}
