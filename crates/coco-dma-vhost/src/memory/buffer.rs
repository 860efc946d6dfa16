//! Buffers in the private arena and in shared memory, owned by whoever may touch them.
// UNSAFETY: slices of the arena are made from raw pointers; the arena gives no byte out twice.
#![expect(unsafe_code)]

use core::fmt;
use core::marker::PhantomData;
use core::ptr::NonNull;

use coco_dma::shared::SharedBytes;

use super::PrivateArena;

/// A piece of a [`PrivateArena`], owned: whoever holds it is alone in touching its bytes. It goes
/// back to the arena when dropped.
pub struct ArenaBuffer<'a> {
    arena: &'a PrivateArena,
    bytes: NonNull<[u8]>,
}

// SAFETY: the buffer owns its bytes alone, like a `Box` does.
unsafe impl Send for ArenaBuffer<'_> {}
// SAFETY: through a shared reference its bytes can only be read.
unsafe impl Sync for ArenaBuffer<'_> {}

impl<'a> ArenaBuffer<'a> {
    /// Called by the arena alone, which gives every byte out once.
    pub(super) fn new(arena: &'a PrivateArena, bytes: NonNull<[u8]>) -> Self {
        Self { arena, bytes }
    }

    /// Length in bytes.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a buffer is never empty")]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: readable memory of the arena, which lives as long as the buffer; initialised,
        // since fresh pages are zeroes; nobody else writes it while the buffer is held.
        unsafe { self.bytes.as_ref() }
    }

    /// The bytes, to be written.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`; nobody else reads it either.
        unsafe { self.bytes.as_mut() }
    }

    /// Where the first `len` bytes lie, or all of them where the buffer is shorter.
    pub(crate) fn raw(&self, len: usize) -> NonNull<[u8]> {
        NonNull::slice_from_raw_parts(self.bytes.cast(), len.min(self.bytes.len()))
    }
}

impl Drop for ArenaBuffer<'_> {
    fn drop(&mut self) {
        self.arena.give_back(self.bytes);
    }
}

impl fmt::Debug for ArenaBuffer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never what lies in it.
        f.debug_struct("ArenaBuffer").field("len", &self.len()).finish_non_exhaustive()
    }
}

/// A piece of memory that is shared with the devices already: they use it where it lies. Whoever
/// holds it is alone in touching its bytes in this process; devices may change them at any time.
pub struct SharedBuffer<'a> {
    bytes: NonNull<[u8]>,
    life: PhantomData<&'a ()>,
}

impl<'a> SharedBuffer<'a> {
    /// # Safety
    ///
    /// For `'a`, the bytes are shared memory of the machine, readable and writable, and nothing
    /// else of this process touches them: no reference, no pool, no other buffer.
    pub(crate) unsafe fn new(bytes: NonNull<[u8]>) -> Self {
        Self { bytes, life: PhantomData }
    }

    /// Length in bytes.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a buffer is never empty")]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The bytes, to be copied in and out. What a device is writing meanwhile may show in part.
    #[must_use]
    pub fn bytes(&self) -> SharedBytes<'_> {
        // SAFETY: there, initialised and without references by the condition of `new`; and the
        // buffer is one thread's, being neither `Send` nor `Sync`.
        unsafe { SharedBytes::new(self.bytes.cast(), self.bytes.len()) }
    }

    /// Where the bytes lie.
    pub(crate) fn raw(&self) -> NonNull<[u8]> {
        self.bytes
    }
}

impl fmt::Debug for SharedBuffer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedBuffer").field("len", &self.len()).finish_non_exhaustive()
    }
}
