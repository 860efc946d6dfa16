//! QEMU's educational device: one DMA engine with a buffer of 4096 bytes, and a mask of 28 bits
//! that it does not check but cuts addresses off with.
// UNSAFETY: a device is given addresses.
#![expect(unsafe_code)]

use coco_dma::attrs::Attrs;
use coco_dma::state::Direction;

use super::DeviceError;
use super::registers::Registers;
use crate::Failure;
use crate::layer::GuestDevice;
use crate::pci;
use crate::pci::Found;

/// Vendor and device.
pub const ID: (u16, u16) = (0x1234, 0x11e8);
/// Bits of an address that it looks at.
pub const MASK_BITS: u32 = 28;
/// Bytes of a transfer: half its buffer (QEMU 7.2 takes one of all 4096 for an overrun).
pub const BUFFER: usize = 2048;

const SOURCE: u64 = 0x80;
const DESTINATION: u64 = 0x88;
const COUNT: u64 = 0x90;
const COMMAND: u64 = 0x98;
const START: u32 = 1;
const TO_MEMORY: u32 = 2;
/// Where its buffer begins, as its engine sees it.
const INSIDE: u64 = 0x40000;
const PATIENCE: u32 = 5_000_000;

/// The device.
#[derive(Debug)]
pub struct Edu {
    device: &'static GuestDevice,
    registers: Registers,
}

impl Edu {
    /// Brings it up.
    pub fn new(device: &'static GuestDevice, found: Found) -> Result<Self, Failure> {
        pci::enable(found.at);
        let (start, len) = pci::registers(found.at).ok_or("edu: no registers")?;
        Ok(Self { device, registers: Registers::new(start, len) })
    }

    /// Fills the device's buffer from private memory.
    pub fn put(&mut self, from: &[u8]) -> Result<(), DeviceError> {
        let device = self.device;
        device.with_mapped_ref(from, Attrs::NONE, |lent| {
            // SAFETY: the map lives until this closure ends, and `transfer` waits for the device.
            unsafe { self.transfer(false, lent.addr().raw(), lent.len()) }
        })?
    }

    /// Empties the device's buffer into private memory.
    pub fn get(&mut self, to: &mut [u8]) -> Result<(), DeviceError> {
        let device = self.device;
        device.with_mapped(to, Direction::FromDevice, Attrs::NONE, |lent| {
            // SAFETY: as in `put`.
            unsafe { self.transfer(true, lent.addr().raw(), lent.len()) }?;
            lent.written(lent.len());
            Ok(())
        })?
    }

    /// Has the device read or write `len` bytes at `addr`, an address for the device.
    ///
    /// # Safety
    ///
    /// The device may do that: the bytes are mapped for it until this returns.
    pub unsafe fn transfer(
        &mut self,
        to_memory: bool,
        addr: u64,
        len: usize,
    ) -> Result<(), DeviceError> {
        let (source, destination) = if to_memory { (INSIDE, addr) } else { (addr, INSIDE) };
        self.registers.write64(SOURCE, source);
        self.registers.write64(DESTINATION, destination);
        self.registers.write64(COUNT, len.min(BUFFER) as u64);
        self.registers.write32(COMMAND, START | if to_memory { TO_MEMORY } else { 0 });
        for _ in 0..PATIENCE {
            match self.registers.read32(COMMAND) {
                u32::MAX => return Err(DeviceError::Gone),
                command if command & START == 0 => return Ok(()),
                _ => core::hint::spin_loop(),
            }
        }
        // There is no way to stop its engine; the longest transfer takes a tenth of a second.
        Err(DeviceError::Silent)
    }
}
