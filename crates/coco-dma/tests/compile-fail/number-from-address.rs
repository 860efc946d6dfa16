//! An address passes for a number by `Into`.

use coco_dma::addr::PhysAddr;

pub fn number(addr: PhysAddr) -> u64 {
    #[cfg(misuse)]
    let _: u64 = addr.into(); //~ E0277
    addr.raw()
}
