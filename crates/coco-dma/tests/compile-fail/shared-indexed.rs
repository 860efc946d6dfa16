//! A byte of shared memory is looked at in place.

use coco_dma::shared::SharedBytes;

pub fn look(shared: SharedBytes<'_>) -> u8 {
    #[cfg(misuse)]
    let _ = shared[0]; //~ E0608
    shared.read_array::<1>(0).unwrap_or_default()[0]
}
