//! What a program without a library needs: a start, an end, and the four functions that the
//! compiler calls by itself; and a machine to run on.
// UNSAFETY: entry point, system call and memory functions, all of which a C library would bring.
#![allow(unsafe_code)]
#![no_std]

pub mod machine;

use core::arch::{asm, global_asm};

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
compile_error!("the gate starts and ends as a Linux program on x86-64");

unsafe extern "Rust" {
    /// The program's check; 0 is success.
    safe fn check() -> u8;
}

// The kernel enters with the stack aligned to 16; a function expects that, plus its return address.
global_asm!(".globl _start", "_start:", "xor ebp, ebp", "call {begin}", "ud2", begin = sym begin);

extern "C" fn begin() -> ! {
    exit(check())
}

/// Ends the program.
pub fn exit(status: u8) -> ! {
    // SAFETY: `exit_group` touches no memory of ours and does not come back.
    unsafe {
        asm!("syscall", in("rax") 231, in("rdi") u64::from(status), options(noreturn, nostack));
    }
}

/// # Safety
///
/// `from` is readable and `to` writable for `length` bytes; they do not overlap.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, length: usize) -> *mut u8 {
    // SAFETY: as the caller promised; the direction flag is clear by the calling convention.
    unsafe {
        asm!("rep movsb", inout("rcx") length => _, inout("rdi") to => _, inout("rsi") from => _,
            options(nostack, preserves_flags));
    }
    to
}

/// # Safety
///
/// `from` is readable and `to` writable for `length` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, length: usize) -> *mut u8 {
    if to.addr().wrapping_sub(from.addr()) >= length {
        // SAFETY: `to` does not start inside what is still to be read, so upwards is right.
        return unsafe { memcpy(to, from, length) };
    }
    let (last_to, last_from) =
        (to.wrapping_add(length).wrapping_sub(1), from.wrapping_add(length).wrapping_sub(1));
    // SAFETY: as the caller promised; downwards, and the direction flag is cleared again.
    unsafe {
        asm!("std", "rep movsb", "cld", inout("rcx") length => _, inout("rdi") last_to => _,
            inout("rsi") last_from => _, options(nostack));
    }
    to
}

/// # Safety
///
/// `to` is writable for `length` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn memset(to: *mut u8, value: i32, length: usize) -> *mut u8 {
    // SAFETY: as the caller promised; the direction flag is clear by the calling convention.
    unsafe {
        asm!("rep stosb", inout("rcx") length => _, inout("rdi") to => _, in("eax") value,
            options(nostack, preserves_flags));
    }
    to
}

/// # Safety
///
/// Both are readable for `length` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(left: *const u8, right: *const u8, length: usize) -> i32 {
    for at in 0..length {
        // SAFETY: `at` is below `length`; volatile, or the compiler would call `memcmp` for it.
        let left = unsafe { left.wrapping_add(at).read_volatile() };
        // SAFETY: as above.
        let right = unsafe { right.wrapping_add(at).read_volatile() };
        if left != right {
            return i32::from(left) - i32::from(right);
        }
    }
    0
}

/// # Safety
///
/// Both are readable for `length` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn bcmp(left: *const u8, right: *const u8, length: usize) -> i32 {
    // SAFETY: the same condition.
    unsafe { memcmp(left, right, length) }
}
