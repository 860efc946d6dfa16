//! An NVMe driver (base specification 2.0): two pairs of queues, a list for long transfers, and
//! commands one at a time. Control structures are coherent memory of the layer; data is whatever
//! the caller mapped.
// UNSAFETY: a device is given addresses.
#![expect(unsafe_code)]

use coco_dma::attrs::Attrs;
use coco_dma::coherent::Coherent;
use coco_dma::state::Context;
use coco_dma::state::Direction;

use super::DeviceError;
use super::registers::Registers;
use crate::Failure;
use crate::layer::GuestDevice;
use crate::memory::PAGE;
use crate::pci;
use crate::pci::Found;

/// Class and subclass on the bus.
pub const CLASS: (u8, u8) = (1, 8);

const CAPABILITIES: u64 = 0x00;
const CONFIGURATION: u64 = 0x14;
const STATUS: u64 = 0x1c;
const ADMIN_SIZES: u64 = 0x24;
const ADMIN_SUBMISSION: u64 = 0x28;
const ADMIN_COMPLETION: u64 = 0x30;
const DOORBELLS: u64 = 0x1000;

/// Enabled, entries of 64 and 16 bytes.
const ENABLE: u32 = 1 | 6 << 16 | 4 << 20;
const READY: u32 = 1;

const CREATE_SUBMISSION: u8 = 1;
const CREATE_COMPLETION: u8 = 5;
const IDENTIFY: u8 = 6;
const WRITE: u8 = 1;
const READ: u8 = 2;

/// Bytes of a block of the disks here.
pub const BLOCK: u64 = 512;
/// The longest transfer here, in bytes.
pub const LONGEST: usize = 64 << 10;
/// Entries of each queue.
const ENTRIES: u16 = 16;
/// How often a completion is looked for before the device counts as silent.
const PATIENCE: u32 = 100_000_000;

type Memory = Coherent<&'static GuestDevice>;

/// A submission queue with its completion queue.
#[derive(Debug)]
struct Queue {
    number: u16,
    commands: Memory,
    completions: Memory,
    tail: u16,
    head: u16,
    phase: bool,
}

/// A command that the device has. Its memory must stay until it ended.
#[derive(Debug)]
pub struct Pending(u16);

/// A controller.
#[derive(Debug)]
pub struct Nvme {
    device: &'static GuestDevice,
    registers: Registers,
    stride: u64,
    admin: Queue,
    io: Queue,
    list: Memory,
    gone: bool,
}

impl Queue {
    fn new(device: &'static GuestDevice, number: u16) -> Result<Self, Failure> {
        let page = || device.alloc(PAGE as usize, Context::Blocking).map(|page| page.expose());
        let (commands, completions) = (page()?, page()?);
        Ok(Self { number, commands, completions, tail: 0, head: 0, phase: true })
    }
}

impl Nvme {
    /// Brings a controller up.
    pub fn new(device: &'static GuestDevice, found: Found) -> Result<Self, Failure> {
        pci::enable(found.at);
        let (start, len) = pci::registers(found.at).ok_or("nvme: no registers")?;
        let registers = Registers::new(start, len);
        let mut nvme = Self {
            device,
            stride: 4 << (registers.read64(CAPABILITIES) >> 32 & 15),
            registers,
            admin: Queue::new(device, 0)?,
            io: Queue::new(device, 1)?,
            list: device.alloc(PAGE as usize, Context::Blocking)?.expose(),
            gone: false,
        };
        nvme.stop()?;
        let sizes = u32::from(ENTRIES - 1);
        nvme.registers.write32(ADMIN_SIZES, sizes << 16 | sizes);
        // The addresses of the queues go out here: `stop` ends what the device does with them.
        nvme.registers.write64(ADMIN_SUBMISSION, nvme.admin.commands.addr().raw());
        nvme.registers.write64(ADMIN_COMPLETION, nvme.admin.completions.addr().raw());
        nvme.registers.write32(CONFIGURATION, ENABLE);
        nvme.wait_ready(READY)?;
        let (sizes, contiguous) = (u32::from(ENTRIES - 1) << 16, 1);
        let (completions, commands) = (nvme.io.completions.addr(), nvme.io.commands.addr());
        let page = PAGE as usize;
        nvme.admin(CREATE_COMPLETION, completions.raw(), page, sizes | 1, contiguous)?;
        nvme.admin(CREATE_SUBMISSION, commands.raw(), page, sizes | 1, contiguous | 1 << 16)?;
        Ok(nvme)
    }

    /// Stops the controller: from then on it touches no memory.
    pub fn stop(&mut self) -> Result<(), DeviceError> {
        self.registers.write32(CONFIGURATION, 0);
        self.wait_ready(0)
    }

    fn wait_ready(&mut self, wanted: u32) -> Result<(), DeviceError> {
        for _ in 0..PATIENCE / 100 {
            self.gone |= is_gone(&self.registers);
            if self.gone {
                return Err(DeviceError::Gone);
            }
            if self.registers.read32(STATUS) & READY == wanted {
                return Ok(());
            }
        }
        Err(DeviceError::Silent)
    }

    /// What the controller says of itself: 4096 bytes.
    pub fn identify(&mut self) -> Result<[u8; PAGE as usize], DeviceError> {
        const CONTROLLER: u32 = 1;
        let mut answer = [0; PAGE as usize];
        let device = self.device;
        device.with_mapped(&mut answer, Direction::FromDevice, Attrs::NONE, |lent| {
            self.admin(IDENTIFY, lent.addr().raw(), lent.len(), CONTROLLER, 0)?;
            lent.written(lent.len());
            Ok::<_, DeviceError>(())
        })??;
        Ok(answer)
    }

    /// Reads blocks from `block` on into private memory.
    pub fn read(&mut self, block: u64, to: &mut [u8]) -> Result<(), DeviceError> {
        let device = self.device;
        device.with_mapped(to, Direction::FromDevice, Attrs::NONE, |lent| {
            // SAFETY: the map lives until this closure ends, and `transfer` waits for the device
            // or stops it.
            unsafe { self.transfer(false, block, lent.addr().raw(), lent.len()) }?;
            lent.written(lent.len());
            Ok(())
        })?
    }

    /// Writes blocks from `block` on out of private memory.
    pub fn write(&mut self, block: u64, from: &[u8]) -> Result<(), DeviceError> {
        let device = self.device;
        device.with_mapped_ref(from, Attrs::NONE, |lent| {
            // SAFETY: as in `read`.
            unsafe { self.transfer(true, block, lent.addr().raw(), lent.len()) }
        })?
    }

    /// Has the device read or write `len` bytes at `addr`, an address for the device.
    ///
    /// # Safety
    ///
    /// The device may do that: the bytes are mapped for it until this returns.
    pub unsafe fn transfer(
        &mut self,
        write: bool,
        block: u64,
        addr: u64,
        len: usize,
    ) -> Result<(), DeviceError> {
        // SAFETY: the caller's condition.
        let pending = unsafe { self.submit(write, block, addr, len) }?;
        self.wait(&pending)
    }

    /// Gives the device a command and does not wait.
    ///
    /// # Safety
    ///
    /// The device may touch the bytes: they are mapped for it until the command ended or the
    /// device was stopped.
    pub unsafe fn submit(
        &mut self,
        write: bool,
        block: u64,
        addr: u64,
        len: usize,
    ) -> Result<Pending, DeviceError> {
        if len == 0 || len > LONGEST || !(len as u64).is_multiple_of(BLOCK) {
            return Err(DeviceError::Status(0x4002));
        }
        let mut command = [0; 16];
        command[0] = u32::from(if write { WRITE } else { READ });
        command[1] = 1;
        self.point(&mut command, addr, len);
        (command[10], command[11]) = (block as u32, (block >> 32) as u32);
        command[12] = (len as u64 / BLOCK - 1) as u32;
        Ok(self.put(false, command))
    }

    /// Waits until a command ended. A device that does not answer is stopped.
    pub fn wait(&mut self, pending: &Pending) -> Result<(), DeviceError> {
        self.answer(false, pending)
    }

    /// The second pointer of a command: nothing, the second page, or a list of the pages after the
    /// first.
    fn describe(&mut self, addr: u64, len: u64) -> u64 {
        let first_end = (addr & !(PAGE - 1)) + PAGE;
        let end = addr + len;
        if end <= first_end {
            return 0;
        }
        if end <= first_end + PAGE {
            return first_end;
        }
        let list = self.list.bytes();
        for (number, page) in (first_end..end).step_by(PAGE as usize).enumerate() {
            // The list holds 512, and the longest transfer has 17 pages.
            let _ = list.write_u64_le(number * 8, page);
        }
        self.list.addr().raw()
    }

    fn admin(
        &mut self,
        opcode: u8,
        addr: u64,
        len: usize,
        ten: u32,
        eleven: u32,
    ) -> Result<(), DeviceError> {
        let mut command = [0; 16];
        command[0] = u32::from(opcode);
        self.point(&mut command, addr, len);
        (command[10], command[11]) = (ten, eleven);
        let pending = self.put(true, command);
        self.answer(true, &pending)
    }

    /// The two pointers of a command.
    fn point(&mut self, command: &mut [u32; 16], addr: u64, len: usize) {
        let second = self.describe(addr, len as u64);
        (command[6], command[7]) = (addr as u32, (addr >> 32) as u32);
        (command[8], command[9]) = (second as u32, (second >> 32) as u32);
    }

    /// Puts a command into a queue and rings.
    fn put(&mut self, admin: bool, mut command: [u32; 16]) -> Pending {
        let stride = self.stride;
        let queue = if admin { &mut self.admin } else { &mut self.io };
        let (slot, number) = (queue.tail, queue.number);
        command[0] |= u32::from(slot) << 16;
        let bytes = queue.commands.bytes();
        for (at, word) in command.iter().enumerate() {
            let _ = bytes.write_u32_le(usize::from(slot) * 64 + at * 4, *word);
        }
        queue.tail = (slot + 1) % ENTRIES;
        let tail = u32::from(queue.tail);
        self.registers.write32(DOORBELLS + 2 * u64::from(number) * stride, tail);
        Pending(slot)
    }

    /// Waits for the completion of the one command that is out.
    fn answer(&mut self, admin: bool, pending: &Pending) -> Result<(), DeviceError> {
        let (stride, mut polls) = (self.stride, 0);
        let queue = if admin { &mut self.admin } else { &mut self.io };
        let at = usize::from(queue.head) * 16;
        let word = loop {
            // Copied once, and judged as a copy: the device may change it at any moment.
            let word = queue.completions.bytes().read_u32_le(at + 12).unwrap_or(0);
            if (word >> 16 & 1 == 1) == queue.phase {
                break word;
            }
            polls += 1;
            if polls % 1_000_000 == 0 && is_gone(&self.registers) {
                self.gone = true;
                return Err(DeviceError::Gone);
            }
            if polls == PATIENCE {
                self.stop()?;
                return Err(DeviceError::Silent);
            }
        };
        queue.head = (queue.head + 1) % ENTRIES;
        queue.phase ^= queue.head == 0;
        let (head, number) = (u32::from(queue.head), queue.number);
        self.registers.write32(DOORBELLS + (2 * u64::from(number) + 1) * stride, head);
        let status = (word >> 17) as u16 & 0x7ff;
        match (status, word as u16 == pending.0) {
            (0, true) => Ok(()),
            // An answer to something that was never asked.
            (0, false) => Err(DeviceError::Status(0xffff)),
            _ => Err(DeviceError::Status(status)),
        }
    }

    /// Stops the controller and gives its memory back. One that is gone touches no memory.
    pub fn end(mut self) -> Result<(), Failure> {
        if !self.gone {
            self.stop()?;
        }
        let Self { admin, io, list, .. } = self;
        for memory in [admin.commands, admin.completions, io.commands, io.completions, list] {
            memory.free(Context::Blocking).map_err(|error| error.reason)?;
        }
        Ok(())
    }
}

/// Whether nobody is there any more: a bus answers with all ones then, QEMU's with zeroes. A
/// controller's capabilities are neither.
fn is_gone(registers: &Registers) -> bool {
    matches!(registers.read32(CAPABILITIES), 0 | u32::MAX)
}
