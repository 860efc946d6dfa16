//! A mapping carries a buffer to another thread that may not go there.
// UNSAFETY: a buffer type of one thread.
#![expect(unsafe_code)]

use core::marker::PhantomData;
use core::ptr::NonNull;

use coco_dma::device::Device;
use coco_dma::stream::Mapping;
use coco_dma::stream::OwnedBuffer;

#[cfg(misuse)]
pub type Thread = *const ();
#[cfg(not(misuse))]
pub type Thread = ();

pub struct Local(&'static mut [u8], PhantomData<Thread>);

// SAFETY: never used.
unsafe impl OwnedBuffer for Local {
    type Rest = ();

    fn into_parts(self) -> (NonNull<[u8]>, ()) {
        (NonNull::from(self.0), ())
    }

    unsafe fn from_parts(mut bytes: NonNull<[u8]>, (): ()) -> Self {
        // SAFETY: never used.
        Self(unsafe { bytes.as_mut() }, PhantomData)
    }
}

pub fn sent<T: Send>(_: T) {}

pub fn send(mapping: Mapping<&Device<'_>, Local>) {
    sent(mapping); //~ E0277
}
