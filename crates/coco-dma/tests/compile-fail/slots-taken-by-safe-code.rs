//! Slots taken and given back around the layer.

use coco_dma::pool::Pool;
use coco_dma::pool::SlotRun;

pub fn free(pool: &Pool<'_>, run: SlotRun) -> usize {
    #[cfg(misuse)]
    pool.free_raw(0, run); //~ E0133
    #[cfg(not(misuse))]
    let _ = run.first();
    pool.used()
}
