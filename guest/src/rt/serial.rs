//! The serial port: the guest's log and its report.
// UNSAFETY: port input and output.
#![expect(unsafe_code)]

use core::arch::asm;
use core::fmt;

const DATA: u16 = 0x3f8;
const STATUS: u16 = DATA + 5;
const HAS_INPUT: u8 = 1;
const TAKES_OUTPUT: u8 = 0x20;

/// Writes to a port.
pub fn out8(port: u16, value: u8) {
    // SAFETY: touches no memory; the ports that the guest uses have no effect on it.
    unsafe { asm!("out dx, al", in("dx") port, in("al") value, options(nomem, nostack)) };
}

/// Writes 32 bits to a port.
pub fn out32(port: u16, value: u32) {
    // SAFETY: as for `out8`.
    unsafe { asm!("out dx, eax", in("dx") port, in("eax") value, options(nomem, nostack)) };
}

/// Reads from a port.
pub fn in8(port: u16) -> u8 {
    let value;
    // SAFETY: as for `out8`.
    unsafe { asm!("in al, dx", in("dx") port, out("al") value, options(nomem, nostack)) };
    value
}

/// Reads 32 bits from a port.
pub fn in32(port: u16) -> u32 {
    let value;
    // SAFETY: as for `out8`.
    unsafe { asm!("in eax, dx", in("dx") port, out("eax") value, options(nomem, nostack)) };
    value
}

/// The port as text output.
#[derive(Debug)]
pub struct Serial;

impl fmt::Write for Serial {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            while in8(STATUS) & TAKES_OUTPUT == 0 {}
            out8(DATA, byte);
        }
        Ok(())
    }
}

/// Waits for a byte from the host: it did what it was asked for.
pub fn wait_for_host() {
    while in8(STATUS) & HAS_INPUT == 0 {
        core::hint::spin_loop();
    }
    in8(DATA);
}

/// Prints a line to the serial port.
#[macro_export]
macro_rules! say {
    ($($text:tt)*) => {{
        use ::core::fmt::Write as _;
        let _ = ::core::writeln!($crate::rt::serial::Serial, $($text)*);
    }};
}
