//! The memory functions that the compiler calls by itself. 16 bytes a step, because QEMU's
//! emulation takes `rep movsb` a byte at a time: thirteen times slower.
// UNSAFETY: the functions that a C library would bring.
#![expect(unsafe_code)]

use core::arch::asm;

/// # Safety
///
/// `from` is readable and `to` writable for `length` bytes; they do not overlap.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, length: usize) -> *mut u8 {
    // SAFETY: as the caller promised; each loop moves both pointers past what it copied.
    unsafe {
        asm!(
            "2:", "sub {n}, 16", "jb 3f",
            "movups {x}, [rsi]", "movups [rdi], {x}", "add rsi, 16", "add rdi, 16", "jmp 2b",
            "3:", "and {n}, 15", "mov rcx, {n}", "rep movsb",
            n = inout(reg) length => _, x = out(xmm_reg) _,
            inout("rdi") to => _, inout("rsi") from => _, out("rcx") _, options(nostack)
        );
    }
    to
}

/// # Safety
///
/// `from` is readable and `to` writable for `length` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, length: usize) -> *mut u8 {
    if to.addr().wrapping_sub(from.addr()) >= length {
        // SAFETY: `to` does not start inside what is still to be read, so upwards is right; each
        // step reads its 16 bytes before it writes.
        return unsafe { memcpy(to, from, length) };
    }
    let (end_to, end_from) = (to.wrapping_add(length), from.wrapping_add(length));
    // SAFETY: as the caller promised; downwards, each step reads before it writes.
    unsafe {
        asm!(
            "2:", "sub {n}, 16", "jb 3f",
            "sub rsi, 16", "sub rdi, 16", "movups {x}, [rsi]", "movups [rdi], {x}", "jmp 2b",
            "3:", "and {n}, 15", "mov rcx, {n}", "dec rsi", "dec rdi", "std", "rep movsb", "cld",
            n = inout(reg) length => _, x = out(xmm_reg) _,
            inout("rdi") end_to => _, inout("rsi") end_from => _, out("rcx") _, options(nostack)
        );
    }
    to
}

/// # Safety
///
/// `to` is writable for `length` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn memset(to: *mut u8, value: i32, length: usize) -> *mut u8 {
    let repeated = u64::from(value as u8) * 0x0101_0101_0101_0101;
    // SAFETY: as the caller promised.
    unsafe {
        asm!(
            "movq {x}, rax", "punpcklqdq {x}, {x}",
            "2:", "sub {n}, 16", "jb 3f", "movups [rdi], {x}", "add rdi, 16", "jmp 2b",
            "3:", "and {n}, 15", "mov rcx, {n}", "rep stosb",
            n = inout(reg) length => _, x = out(xmm_reg) _,
            inout("rdi") to => _, in("rax") repeated, out("rcx") _, options(nostack)
        );
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

/// # Safety
///
/// A zero byte ends the text.
#[unsafe(no_mangle)]
unsafe extern "C" fn strlen(text: *const u8) -> usize {
    let mut length = 0;
    // SAFETY: everything up to the zero is readable.
    while unsafe { text.wrapping_add(length).read_volatile() } != 0 {
        length += 1;
    }
    length
}
