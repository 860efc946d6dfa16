//! How much memory is asked for, and aligned to what.

use core::alloc::Layout;

/// How much memory an allocation asks for. A `usize` is that many bytes, and a [`Layout`] with the
/// alignment that it has; every allocation is aligned to its length rounded up to a power of two
/// anyway, and to no less than a page of 4096 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AllocSize {
    /// Bytes.
    pub(super) len: usize,
    /// What the address that the device is given has to be a multiple of, a power of two.
    pub(super) align: usize,
}

impl AllocSize {
    /// So many bytes.
    pub const fn of(len: usize) -> Self {
        Self { len, align: 1 }
    }

    /// The same at an address, as the device is given it, that is a multiple of `align`. What is no
    /// power of two is refused when it is asked for (`invalid-range`).
    #[must_use]
    pub const fn aligned(self, align: usize) -> Self {
        Self { align, ..self }
    }
}

impl From<usize> for AllocSize {
    fn from(len: usize) -> Self {
        Self::of(len)
    }
}

impl From<Layout> for AllocSize {
    fn from(layout: Layout) -> Self {
        Self { len: layout.size(), align: layout.align() }
    }
}
