//! A lent buffer that nobody lent.

use coco_dma::stream::Lent;

pub fn forge(lent: &Lent<'_, '_>) -> usize {
    #[cfg(misuse)]
    let _ = Lent(lent.0); //~ E0423 E0616
    lent.len()
}
