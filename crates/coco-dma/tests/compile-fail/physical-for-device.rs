//! A physical address where a device's is meant.

use coco_dma::addr::DmaAddr;
use coco_dma::addr::PhysAddr;

pub fn give(_: DmaAddr) {}

pub fn mix(phys: PhysAddr, dma: DmaAddr) -> PhysAddr {
    give(dma);
    #[cfg(misuse)]
    give(phys); //~ E0308
    phys
}
