//! A pool whose label nobody vouches for.
// UNSAFETY: a pool is adopted.
#![expect(unsafe_code)]

use core::ptr::NonNull;

use coco_dma::Word;
use coco_dma::addr::PhysRange;
use coco_dma::pool::Pool;
use coco_dma::state::PoolLabel;

pub fn adopt(range: PhysRange, view: NonNull<u8>, words: &[Word]) {
    #[cfg(not(misuse))]
    // SAFETY: never run.
    let _ = unsafe { Pool::adopt(PoolLabel::GuestShared, range, view, words) };
    #[cfg(misuse)]
    let _ = Pool::adopt(PoolLabel::GuestShared, range, view, words); //~ E0133
}
