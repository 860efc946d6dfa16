//! Exceptions. None is expected and none is survived: each is told and ends the guest with a
//! status of its own. A touch of the private mapping of a shared page ends here.
// UNSAFETY: the table of exceptions, and the stubs that the processor enters.
#![expect(unsafe_code)]

use core::arch::asm;
use core::arch::global_asm;
use core::cell::UnsafeCell;

use super::OneCpu;
use super::exit::Ending;
use super::exit::exit;
use crate::say;

const VECTORS: usize = 32;
const PAGE_FAULT: u64 = 14;
/// Every stub has this many bytes.
const STUB: usize = 16;

// (0x6a pushes a byte.) A stub makes the stack the same for all: vector, error code, then what the processor pushed.
// 0x60227d00 has a bit for each vector that comes with an error code.
global_asm!(
    ".section .text.traps, \"ax\"",
    ".balign 16",
    "trap_stubs:",
    ".set vector, 0",
    ".rept 32",
    ".balign 16",
    ".if (0x60227d00 >> vector) & 1 == 0",
    ".byte 0x6a, 0",
    ".endif",
    ".byte 0x6a, vector",
    "jmp trap_common",
    ".set vector, vector + 1",
    ".endr",
    "trap_common:",
    "cld",
    "mov rdi, rsp",
    "and rsp, -16",
    "call {told}",
    "ud2",
    ".text",
    told = sym told,
);

unsafe extern "C" {
    static trap_stubs: u8;
}

/// What lies on the stack when a stub is through.
#[repr(C)]
struct Frame {
    vector: u64,
    error: u64,
    instruction: u64,
}

#[repr(C, align(16))]
struct Table([[u64; 2]; VECTORS]);

static TABLE: OneCpu<UnsafeCell<Table>> = OneCpu::new(UnsafeCell::new(Table([[0; 2]; VECTORS])));

/// Tells the processor where the stubs are.
pub(super) fn install() {
    let stubs = (&raw const trap_stubs).addr();
    // SAFETY: called once, before anything else runs; the processor only reads the table.
    let table = unsafe { &mut *TABLE.get() };
    for (vector, entry) in table.0.iter_mut().enumerate() {
        let at = (stubs + vector * STUB) as u64;
        // An interrupt gate of segment 8.
        entry[0] = (at & 0xffff) | 8 << 16 | 0x8e00 << 32 | (at >> 16 & 0xffff) << 48;
        entry[1] = at >> 32;
    }
    let mut pointer = [0_u8; 10];
    let limit = (size_of::<Table>() as u16 - 1).to_le_bytes();
    let base = (TABLE.get().addr() as u64).to_le_bytes();
    for (to, from) in pointer.iter_mut().zip(limit.into_iter().chain(base)) {
        *to = from;
    }
    // SAFETY: the table is complete and stays for ever.
    unsafe { asm!("lidt [{}]", in(reg) &pointer, options(readonly, nostack)) };
}

extern "C" fn told(frame: &Frame) -> ! {
    let Frame { vector, error, instruction } = frame;
    let address: u64;
    // SAFETY: reading the fault address changes nothing.
    unsafe { asm!("mov {}, cr2", out(reg) address, options(nomem, nostack)) };
    say!("trap vector={vector} error={error:#x} at={instruction:#x} address={address:#x}");
    exit(if *vector == PAGE_FAULT { Ending::PageFault } else { Ending::Exception })
}
