//! Addresses that wrap, multiply and divide.

use coco_dma::addr::DmaAddr;

pub fn next(addr: DmaAddr) -> Option<DmaAddr> {
    #[cfg(misuse)]
    let _ = addr + 1; //~ E0369
    #[cfg(misuse)]
    let _ = addr * 2; //~ E0369
    addr.checked_add(1)
}
