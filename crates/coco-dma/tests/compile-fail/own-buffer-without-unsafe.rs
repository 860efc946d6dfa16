//! A buffer type that promises nothing.
// UNSAFETY: what is implemented is a promise; the misuse does not make it.
#![expect(unsafe_code)]

use core::ptr::NonNull;

use coco_dma::stream::OwnedBuffer;

pub struct Empty;

macro_rules! implement {
    ($($promise:tt)?) => {
        $($promise)? impl OwnedBuffer for Empty { //~ E0200
            type Rest = ();

            fn into_parts(self) -> (NonNull<[u8]>, ()) {
                (NonNull::slice_from_raw_parts(NonNull::dangling(), 0), ())
            }

            unsafe fn from_parts(_: NonNull<[u8]>, (): ()) -> Self {
                Self
            }
        }
    };
}

#[cfg(not(misuse))]
implement!(unsafe);
#[cfg(misuse)]
implement!();
