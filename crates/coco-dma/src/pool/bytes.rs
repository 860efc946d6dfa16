//! The one primitive that moves bytes between private memory and a pool.
//!
//! Pool memory may change at any moment: the host writes it when it likes. It is therefore never
//! borrowed, only copied, and each copy ends in a barrier that the compiler cannot see through:
//! without it, LLVM may read the source a second time where the program reads the copy.
// UNSAFETY: raw memory that a device writes behind the compiler's back.
#![expect(unsafe_code)]

use core::ptr;
use core::ptr::NonNull;

/// The memory of one pool.
#[derive(Debug)]
pub(crate) struct Bytes {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: the memory belongs to the pool for its whole life (condition 2 of `new`), and is only
// reached by copies whose ranges the holders of slots keep apart.
unsafe impl Send for Bytes {}
// SAFETY: as above.
unsafe impl Sync for Bytes {}

impl Bytes {
    /// The `len` bytes at `start`.
    ///
    /// # Safety
    ///
    /// 1. They are readable and writable for the life of the result.
    /// 2. Nothing else in this program uses them.
    pub(super) const unsafe fn new(start: NonNull<u8>, len: usize) -> Self {
        Self { start, len }
    }

    /// The pointer to `offset`, where `len` bytes from there lie inside the pool.
    pub(crate) fn at(&self, offset: usize, len: usize) -> Option<NonNull<u8>> {
        if len > self.len || offset > self.len - len {
            return None;
        }
        // SAFETY: `offset` is at most `self.len`, the size of the allocation (condition 1 of
        // `new`), which no allocation lets exceed `isize::MAX`.
        Some(unsafe { self.start.add(offset) })
    }

    /// Copies `len` bytes from `from` into the pool. Nothing is copied where they do not fit.
    ///
    /// # Safety
    ///
    /// `from` is readable for `len` bytes, and the caller holds the slots.
    pub(crate) unsafe fn write(&self, offset: usize, from: NonNull<u8>, len: usize) {
        if let Some(to) = self.at(offset, len) {
            // SAFETY: `from` by condition of this function, `to` by `at`; private memory and pool
            // do not overlap, since nothing else uses the pool's memory.
            unsafe { copy(from.as_ptr(), to.as_ptr(), len) };
        }
    }

    /// Copies `len` bytes out of the pool to `to`. Nothing is copied where they do not fit.
    ///
    /// # Safety
    ///
    /// `to` is writable for `len` bytes, and the caller holds the slots.
    pub(crate) unsafe fn read(&self, offset: usize, to: NonNull<u8>, len: usize) {
        if let Some(from) = self.at(offset, len) {
            // SAFETY: as in `write`, the other way round.
            unsafe { copy(from.as_ptr(), to.as_ptr(), len) };
        }
    }

    /// Zeroes `len` bytes of the pool.
    ///
    /// # Safety
    ///
    /// The caller holds the slots.
    pub(crate) unsafe fn zero(&self, offset: usize, len: usize) {
        if let Some(to) = self.at(offset, len) {
            // SAFETY: `at` answers for the range.
            unsafe { ptr::write_bytes(to.as_ptr(), 0, len) };
            barrier(to.as_ptr());
        }
    }
}

/// Copies bytes of which one side may change at any time.
///
/// # Safety
///
/// `from` is readable and `to` writable for `len` bytes, and they do not overlap.
unsafe fn copy(from: *const u8, to: *mut u8, len: usize) {
    // SAFETY: the caller's condition. A racing writer is no thread of this program: what it
    // leaves is some byte, and bytes are all that is copied.
    unsafe { ptr::copy_nonoverlapping(from, to, len) };
    barrier(to);
}

/// Hides what memory holds from the compiler.
#[inline(always)]
fn barrier(at: *mut u8) {
    #[cfg(all(
        not(miri),
        any(
            target_arch = "x86_64",
            target_arch = "x86",
            target_arch = "aarch64",
            target_arch = "arm",
            target_arch = "riscv64",
            target_arch = "riscv32",
            target_arch = "s390x",
        )
    ))]
    // SAFETY: the template is empty; the operand only makes the pointer escape.
    unsafe {
        core::arch::asm!("/* {0} */", in(reg) at, options(nostack, preserves_flags));
    }
    #[cfg(not(all(
        not(miri),
        any(
            target_arch = "x86_64",
            target_arch = "x86",
            target_arch = "aarch64",
            target_arch = "arm",
            target_arch = "riscv64",
            target_arch = "riscv32",
            target_arch = "s390x",
        )
    )))]
    core::hint::black_box(at);
}
