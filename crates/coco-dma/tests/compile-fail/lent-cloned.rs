//! A second token for a lent buffer.

use coco_dma::stream::ScopedMapping;

pub fn two<T: Clone>() {}

pub fn clone() {
    two::<Vec<u8>>();
    #[cfg(misuse)]
    two::<ScopedMapping<'_, '_>>(); //~ E0277
}
