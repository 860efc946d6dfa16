//! Buffers that a mapping may own.
// UNSAFETY: a buffer is taken apart into raw parts and put together again; what is in between
// belongs to a device.
#![expect(unsafe_code)]

use core::ptr::NonNull;

/// A buffer that can be given away to a device: it is taken apart while the device may be at its
/// bytes, so that no `Box`, `Vec` or `&mut` that promises to be alone with them is alive, and put
/// together again afterwards. If that never happens the bytes stay where they are for good.
///
/// Implemented for `&'static mut [u8]` and, with the feature `alloc`, for `Box<[u8]>`,
/// `Box<[u8; N]>` and `Vec<u8>` (its bytes up to its length, whatever its capacity). A kernel
/// implements it for its own buffers of frames.
///
/// # Safety
///
/// 1. The bytes that [`into_parts`](Self::into_parts) answers with are initialised, and valid for
///    reads and writes until [`from_parts`](Self::from_parts) is called with them: for ever, if it
///    never is.
/// 2. In that time nothing else in the program uses them.
/// 3. They are ordinary memory of this program's own, which it has not shared with the host: what
///    is shared is no buffer, but [`SharedBytes`](crate::shared::SharedBytes).
/// 4. Any byte is a valid value of each of them, whoever wrote it.
pub unsafe trait OwnedBuffer: Sized + 'static {
    /// What is left of the buffer beside its bytes. It is `Copy`, so that dropping it frees
    /// nothing.
    type Rest: Copy + 'static;

    /// Takes the buffer apart. Never blocks.
    fn into_parts(self) -> (NonNull<[u8]>, Self::Rest);

    /// Puts the buffer together again. Never blocks.
    ///
    /// # Safety
    ///
    /// 1. Both are what one call of [`into_parts`](Self::into_parts) answered with, and are not
    ///    used again.
    /// 2. Nobody else uses the bytes any more.
    unsafe fn from_parts(bytes: NonNull<[u8]>, rest: Self::Rest) -> Self;
}

// SAFETY: 1: a reference says so, and this one for ever. 2: it is unique, and was given up.
// 3: references to shared memory do not exist. 4: bytes are bytes.
unsafe impl OwnedBuffer for &'static mut [u8] {
    type Rest = ();

    fn into_parts(self) -> (NonNull<[u8]>, ()) {
        (NonNull::from(self), ())
    }

    unsafe fn from_parts(mut bytes: NonNull<[u8]>, (): ()) -> Self {
        // SAFETY: the pointer came from such a reference, and nobody else uses the bytes.
        unsafe { bytes.as_mut() }
    }
}

#[cfg(feature = "alloc")]
mod owned {
    use alloc::boxed::Box;
    use alloc::vec::Vec;
    use core::mem::ManuallyDrop;
    use core::ptr::NonNull;

    use super::OwnedBuffer;

    // SAFETY: 1: the allocation of a box taken apart stays, whatever moves. 2: the box owned it
    // alone, and is gone. 3: the global allocator gives private memory. 4: bytes are bytes.
    unsafe impl OwnedBuffer for Box<[u8]> {
        type Rest = ();

        fn into_parts(self) -> (NonNull<[u8]>, ()) {
            (NonNull::from(Box::leak(self)), ())
        }

        unsafe fn from_parts(bytes: NonNull<[u8]>, (): ()) -> Self {
            // SAFETY: the pointer came from such a box, once, and nobody else uses the bytes.
            unsafe { Self::from_raw(bytes.as_ptr()) }
        }
    }

    // SAFETY: as for `Box<[u8]>`.
    unsafe impl<const N: usize> OwnedBuffer for Box<[u8; N]> {
        type Rest = ();

        fn into_parts(self) -> (NonNull<[u8]>, ()) {
            (NonNull::from(Box::leak(self) as &mut [u8]), ())
        }

        unsafe fn from_parts(bytes: NonNull<[u8]>, (): ()) -> Self {
            // SAFETY: the pointer came from such a box, with this length.
            unsafe { Self::from_raw(bytes.as_ptr().cast()) }
        }
    }

    // SAFETY: 1: the bytes up to the length are initialised, and the allocation stays where it is
    // while nobody frees it. 2 to 4: as for `Box<[u8]>`.
    unsafe impl OwnedBuffer for Vec<u8> {
        /// The capacity.
        type Rest = usize;

        fn into_parts(self) -> (NonNull<[u8]>, usize) {
            let mut parts = ManuallyDrop::new(self);
            let (len, capacity) = (parts.len(), parts.capacity());
            // The pointer of a vector (never null), not of a slice of it: it stands for the
            // whole capacity.
            let start = NonNull::new(parts.as_mut_ptr()).unwrap_or(NonNull::dangling());
            (NonNull::slice_from_raw_parts(start, len), capacity)
        }

        unsafe fn from_parts(bytes: NonNull<[u8]>, capacity: usize) -> Self {
            // SAFETY: pointer, length and capacity are those of one vector taken apart.
            unsafe { Self::from_raw_parts(bytes.as_ptr().cast(), bytes.len(), capacity) }
        }
    }
}
