//! Where the bytes of a request lie.

use core::ptr::NonNull;

use coco_dma::shared::OutOfBounds;

use crate::memory::{ArenaBuffer, SharedBuffer};

/// Memory for a request, private or shared already. The layer decides what that comes to: private
/// memory goes through the pool, shared memory is used where it lies.
#[derive(Debug)]
pub enum Buffer<'a> {
    /// Private memory of the arena.
    Private(ArenaBuffer<'a>),
    /// Memory that devices reach.
    Shared(SharedBuffer<'a>),
}

impl<'a> Buffer<'a> {
    /// Length in bytes.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a buffer is never empty")]
    pub fn len(&self) -> usize {
        match self {
            Self::Private(buffer) => buffer.len(),
            Self::Shared(buffer) => buffer.len(),
        }
    }

    /// The buffer, where it is private.
    #[must_use]
    pub fn private(self) -> Option<ArenaBuffer<'a>> {
        match self {
            Self::Private(buffer) => Some(buffer),
            Self::Shared(_) => None,
        }
    }

    /// Copies `from` to the bytes at `offset`.
    ///
    /// # Errors
    ///
    /// [`OutOfBounds`]; nothing was copied.
    pub fn put(&mut self, offset: usize, from: &[u8]) -> Result<(), OutOfBounds> {
        let (len, size) = (from.len(), self.len());
        match self {
            Self::Private(buffer) => {
                let part =
                    buffer.bytes_mut().get_mut(offset..).and_then(|rest| rest.get_mut(..len));
                part.ok_or(OutOfBounds { offset, len, size })?.copy_from_slice(from);
                Ok(())
            }
            Self::Shared(buffer) => buffer.bytes().write(offset, from),
        }
    }

    /// Copies the bytes at `offset` out: once, where a device may be writing them.
    ///
    /// # Errors
    ///
    /// [`OutOfBounds`]; nothing was copied.
    pub fn get<const N: usize>(&self, offset: usize) -> Result<[u8; N], OutOfBounds> {
        match self {
            Self::Private(buffer) => {
                let part = buffer.bytes().get(offset..).and_then(<[u8]>::first_chunk);
                part.copied().ok_or(OutOfBounds { offset, len: N, size: buffer.len() })
            }
            Self::Shared(buffer) => buffer.bytes().read_array(offset),
        }
    }

    /// Where all of it lies.
    pub(super) fn raw(&self) -> NonNull<[u8]> {
        match self {
            Self::Private(buffer) => buffer.raw(usize::MAX),
            Self::Shared(buffer) => buffer.raw(),
        }
    }
}

impl<'a> From<ArenaBuffer<'a>> for Buffer<'a> {
    fn from(buffer: ArenaBuffer<'a>) -> Self {
        Self::Private(buffer)
    }
}

impl<'a> From<SharedBuffer<'a>> for Buffer<'a> {
    fn from(buffer: SharedBuffer<'a>) -> Self {
        Self::Shared(buffer)
    }
}
