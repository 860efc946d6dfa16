//! Registers of a device, by offset.
// UNSAFETY: registers are raw memory.
#![expect(unsafe_code)]

use core::ptr::NonNull;

use crate::memory::paging::PAGING;
use crate::memory::private;

/// A window of registers. Accesses outside of it read as all ones and write nothing, as those to
/// a device that is gone.
#[derive(Debug)]
pub struct Registers {
    start: NonNull<u8>,
    len: u64,
}

macro_rules! accesses {
    ($($int:ident, $read:ident, $write:ident;)*) => {
        impl Registers {
            $(
                /// Reads a register.
                pub fn $read(&self, at: u64) -> $int {
                    match self.at(at, size_of::<$int>() as u64) {
                        // SAFETY: the register lies in the window, and is aligned.
                        Some(register) => unsafe { register.cast::<$int>().read_volatile() },
                        None => $int::MAX,
                    }
                }

                /// Writes a register.
                pub fn $write(&self, at: u64, value: $int) {
                    if let Some(register) = self.at(at, size_of::<$int>() as u64) {
                        // SAFETY: as for reading. What the device does then is in its driver's
                        // hands.
                        unsafe { register.cast::<$int>().write_volatile(value) };
                    }
                }
            )*
        }
    };
}

accesses! {
    u32, read32, write32;
    u64, read64, write64;
}

impl Registers {
    /// The registers at this physical address, which is no memory.
    pub fn new(at: u64, len: u64) -> Self {
        PAGING.map_registers(at, len);
        Self { start: NonNull::new(private(at)).unwrap_or(NonNull::dangling()), len }
    }

    fn at(&self, at: u64, size: u64) -> Option<NonNull<u8>> {
        let inside = at.checked_add(size).is_some_and(|end| end <= self.len);
        // SAFETY: the offset lies in the window.
        (inside && at.is_multiple_of(size)).then(|| unsafe { self.start.add(at as usize) })
    }
}
