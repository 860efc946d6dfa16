//! The memory behind one run of RAM. Guest, host and devices all reach it by address: what they
//! may do there is the business of [`crate::ram`].
// UNSAFETY: real memory that several parties reach by address, as they do in a machine.
#![expect(unsafe_code)]

use std::alloc::Layout;
use std::alloc::alloc_zeroed;
use std::alloc::dealloc;
use std::ptr;
use std::ptr::NonNull;

/// Alignment of the memory in bytes: offsets in a page are the same in both address spaces.
const PAGE: usize = 4096;

/// A stretch of zeroed memory, page-aligned.
#[derive(Debug)]
pub(crate) struct Backing {
    allocation: NonNull<u8>,
    layout: Layout,
    /// The address of the first byte, exposed: parties come by address, not by pointer.
    start: usize,
    len: usize,
}

// SAFETY: the memory is the value's own, and nothing in it belongs to a thread.
unsafe impl Send for Backing {}

impl Backing {
    /// `len` bytes; `None` where this process cannot have them.
    pub(crate) fn new(len: usize) -> Option<Self> {
        if len == 0 {
            return None;
        }
        // A page more than asked for, with no alignment asked for: such memory comes zeroed from
        // the kernel, page by page when it is first touched, so that RAM may be large.
        let layout = Layout::from_size_align(len.checked_add(PAGE)?, 1).ok()?;
        // SAFETY: the layout is not empty.
        let allocation = NonNull::new(unsafe { alloc_zeroed(layout) })?;
        let start = allocation.as_ptr().expose_provenance().checked_next_multiple_of(PAGE)?;
        Some(Self { allocation, layout, start, len })
    }

    /// How far into the memory the `len` bytes at `address` lie, where all of them do.
    pub(crate) fn offset_of(&self, address: usize, len: usize) -> Option<usize> {
        let offset = address.checked_sub(self.start)?;
        self.fits(offset, len).then_some(offset)
    }

    /// A pointer to the `len` bytes at `offset`, where they lie in the memory.
    pub(crate) fn pointer(&self, offset: usize, len: usize) -> Option<NonNull<u8>> {
        if !self.fits(offset, len) {
            return None;
        }
        NonNull::new(ptr::with_exposed_provenance_mut(self.start.checked_add(offset)?))
    }

    /// Copies from `offset` on. Says whether all of it lies in the memory; if not, nothing is
    /// copied.
    pub(crate) fn read(&self, offset: usize, into: &mut [u8]) -> bool {
        let Some(from) = self.pointer(offset, into.len()) else { return false };
        // SAFETY: `pointer` answers for the source, the borrow for the destination. They may
        // overlap, where a test makes a slice of guest memory. Races are the test's to avoid.
        unsafe { ptr::copy(from.as_ptr(), into.as_mut_ptr(), into.len()) };
        true
    }

    /// Copies to `offset` and on. Says whether all of it lies in the memory; if not, nothing is
    /// copied.
    pub(crate) fn write(&self, offset: usize, from: &[u8]) -> bool {
        let Some(to) = self.pointer(offset, from.len()) else { return false };
        // SAFETY: as in `read`, the other way round.
        unsafe { ptr::copy(from.as_ptr(), to.as_ptr(), from.len()) };
        true
    }

    fn fits(&self, offset: usize, len: usize) -> bool {
        len <= self.len && offset <= self.len - len
    }
}

impl Drop for Backing {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout, and freed nowhere else.
        unsafe { dealloc(self.allocation.as_ptr(), self.layout) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_page_aligned_zeroed_and_bounded() {
        let memory = Backing::new(2 * PAGE).unwrap();
        let start = memory.pointer(0, 2 * PAGE).unwrap();
        assert_eq!(start.addr().get() % PAGE, 0);
        let mut bytes = [1; 4];
        assert!(memory.read(2 * PAGE - 4, &mut bytes) && bytes == [0; 4]);
        assert!(memory.write(2 * PAGE - 4, &[1, 2, 3, 4]));
        assert!(memory.read(2 * PAGE - 4, &mut bytes) && bytes == [1, 2, 3, 4]);
        assert!(!memory.read(2 * PAGE - 3, &mut bytes) && !memory.write(usize::MAX, &bytes));
        let address = start.addr().get();
        assert_eq!(memory.offset_of(address + 5, 2 * PAGE - 5), Some(5));
        assert_eq!(memory.offset_of(address + 5, 2 * PAGE - 4), None);
        assert_eq!(memory.offset_of(address - 1, 1), None);
        assert!(Backing::new(0).is_none());
    }
}
