//! Slots taken and given back around the layer.

use coco_dma::pool::Pool;
use coco_dma::pool::SlotRun;

pub fn give(pool: &Pool<'_>, run: SlotRun) -> usize {
    #[cfg(misuse)]
    pool.give(run); //~ E0624
    #[cfg(not(misuse))]
    let _ = run.first();
    pool.used()
}
