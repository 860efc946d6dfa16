//! How the guest ends: a number for whoever started QEMU.
// UNSAFETY: the panic handler's companions have fixed names.
#![expect(unsafe_code)]

use core::panic::PanicInfo;

use super::serial::out8;
use crate::say;

/// The port of `-device isa-debug-exit,iobase=0xf4,iosize=4`.
const PORT: u16 = 0xf4;

/// How it ended. QEMU's exit status is twice the number plus one.
#[derive(Clone, Copy, Debug)]
pub enum Ending {
    /// What was to be shown was shown: status 33.
    Held = 0x10,
    /// It was not: status 35.
    Failed = 0x11,
    /// A panic: status 37.
    Panicked = 0x12,
    /// A page fault: status 39.
    PageFault = 0x13,
    /// Another exception: status 41.
    Exception = 0x14,
}

/// Ends the guest.
pub fn exit(ending: Ending) -> ! {
    loop {
        out8(PORT, ending as u8);
    }
}

#[panic_handler]
fn panicked(info: &PanicInfo<'_>) -> ! {
    say!("panic: {info}");
    exit(Ending::Panicked)
}

/// Precompiled `alloc` was built to unwind and names these two. Nothing here unwinds.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}

#[unsafe(no_mangle)]
extern "C" fn _Unwind_Resume() -> ! {
    exit(Ending::Panicked)
}
