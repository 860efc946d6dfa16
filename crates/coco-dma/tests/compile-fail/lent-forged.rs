//! A lent buffer that nobody lent.

use coco_dma::stream::ScopedMapping;

pub fn forge(lent: &ScopedMapping<'_, '_>) -> usize {
    #[cfg(misuse)]
    let _ = ScopedMapping(lent.0); //~ E0423 E0616
    lent.len()
}
