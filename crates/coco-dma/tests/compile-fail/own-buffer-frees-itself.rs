//! A buffer whose rest frees the memory when a mapping is dropped.
// UNSAFETY: what is implemented is a promise.
#![expect(unsafe_code)]

use core::ptr::NonNull;

use coco_dma::stream::OwnedBuffer;

pub struct Heap(Box<[u8]>);

// SAFETY: never used.
unsafe impl OwnedBuffer for Heap {
    #[cfg(not(misuse))]
    type Rest = ();
    #[cfg(misuse)]
    type Rest = Box<[u8]>; //~ E0277

    #[cfg(not(misuse))]
    fn into_parts(self) -> (NonNull<[u8]>, ()) {
        (NonNull::from(Box::leak(self.0)), ())
    }

    #[cfg(misuse)]
    fn into_parts(mut self) -> (NonNull<[u8]>, Box<[u8]>) {
        (NonNull::from(&mut *self.0), self.0)
    }

    unsafe fn from_parts(bytes: NonNull<[u8]>, _: Self::Rest) -> Self {
        // SAFETY: never used.
        Self(unsafe { Box::from_raw(bytes.as_ptr()) })
    }
}
