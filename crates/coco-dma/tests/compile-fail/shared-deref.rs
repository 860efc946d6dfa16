//! Shared memory is dereferenced.

use coco_dma::shared::SharedBytes;

pub fn look(shared: SharedBytes<'_>) -> usize {
    #[cfg(misuse)]
    let _ = *shared; //~ E0614
    shared.len()
}
