//! A buffer type that borrows: a mapping of it, forgotten, outlives what it maps.
// UNSAFETY: what is implemented is a promise.
#![expect(unsafe_code)]

use core::ptr::NonNull;

use coco_dma::stream::OwnedBuffer;

#[cfg(misuse)]
pub struct Part<'a>(&'a mut [u8]);
#[cfg(not(misuse))]
pub struct Part(&'static mut [u8]);

macro_rules! implement {
    ($($lifetime:lifetime)?) => {
        // SAFETY: never used.
        unsafe impl<$($lifetime)?> OwnedBuffer for Part<$($lifetime)?> { //~ E0478 E0803
            type Rest = ();

            fn into_parts(self) -> (NonNull<[u8]>, ()) {
                (NonNull::from(self.0), ())
            }

            unsafe fn from_parts(mut bytes: NonNull<[u8]>, (): ()) -> Self {
                // SAFETY: never used.
                Self(unsafe { bytes.as_mut() })
            }
        }
    };
}

#[cfg(misuse)]
implement!('a);
#[cfg(not(misuse))]
implement!();
