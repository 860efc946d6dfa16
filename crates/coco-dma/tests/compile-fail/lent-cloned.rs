//! A second token for a lent buffer.

use coco_dma::stream::Lent;

pub fn two<T: Clone>() {}

pub fn clone() {
    two::<Vec<u8>>();
    #[cfg(misuse)]
    two::<Lent<'_, '_>>(); //~ E0277
}
