//! The one primitive that moves bytes of which somebody outside this program may hold one end.
//!
//! Memory that a device can reach may change at any moment. It is therefore never borrowed, only
//! copied, and each copy lies between two barriers that the compiler cannot see through. The one
//! before says that the source may have changed since it was last looked at. Without the one
//! after, LLVM may read the source a second time where the program reads the copy. Neither costs
//! an instruction.
// UNSAFETY: raw memory that a device reads and writes behind the compiler's back.
#![expect(unsafe_code)]

use core::ptr;

/// Copies bytes of which one side may change at any time.
///
/// # Safety
///
/// `from` is readable and `to` writable for `len` bytes, and they do not overlap.
pub(crate) unsafe fn copy(from: *const u8, to: *mut u8, len: usize) {
    barrier(from);
    // SAFETY: the caller's condition. A racing writer is no thread of this program: what it
    // leaves is some byte, and bytes are all that is copied.
    unsafe { ptr::copy_nonoverlapping(from, to, len) };
    barrier(to);
}

/// Zeroes bytes that somebody else may read.
///
/// # Safety
///
/// `to` is writable for `len` bytes.
pub(crate) unsafe fn zero(to: *mut u8, len: usize) {
    // SAFETY: the caller's condition.
    unsafe { ptr::write_bytes(to, 0, len) };
    barrier(to);
}

/// Hides from the compiler what the allocation behind `at` holds: what was written before is
/// written, and what is read after is read anew. It orders nothing between processors.
#[inline(always)]
pub(crate) fn barrier(at: *const u8) {
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
