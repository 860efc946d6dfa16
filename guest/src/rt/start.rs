//! What QEMU says at the start: how much memory there is, and the command line.
// UNSAFETY: structures of the boot protocol, at addresses that it names.
#![expect(unsafe_code)]

/// `hvm_start_info` of the PVH boot protocol, version 1.
#[repr(C)]
struct StartInfo {
    magic: u32,
    version: u32,
    flags: u32,
    modules: u32,
    module_list: u64,
    command_line: u64,
    rsdp: u64,
    map: u64,
    map_entries: u32,
    reserved: u32,
}

#[repr(C)]
struct MapEntry {
    start: u64,
    len: u64,
    kind: u32,
    reserved: u32,
}

const MAGIC: u32 = 0x336e_c578;
const RAM: u32 = 1;

/// What the guest was started with.
#[derive(Debug)]
pub struct Boot {
    /// The end of the memory that starts at 1 MiB.
    pub memory_end: u64,
    /// The command line, cut off where it is too long.
    line: [u8; 256],
}

impl Boot {
    /// Reads it, once: what lies there is the host's, and copied before it is looked at.
    ///
    /// # Safety
    ///
    /// `at` is what the boot protocol gave, and the first 4 GiB are mapped to themselves.
    pub(super) unsafe fn read(at: u64) -> Self {
        let pointer = |at: u64| core::ptr::with_exposed_provenance::<u8>(at as usize);
        // SAFETY: the caller's condition.
        let info = unsafe { pointer(at).cast::<StartInfo>().read_volatile() };
        let mut boot = Self { memory_end: 0, line: [0; 256] };
        if info.magic != MAGIC || info.version < 1 {
            return boot;
        }
        for entry in 0..u64::from(info.map_entries.min(64)) {
            let entry = pointer(info.map + entry * 24).cast::<MapEntry>();
            // SAFETY: the table has that many entries.
            let entry = unsafe { entry.read_volatile() };
            if entry.kind == RAM && entry.start == 0x10_0000 {
                boot.memory_end = entry.start.saturating_add(entry.len) & !0xfff;
            }
        }
        for (offset, byte) in (0..255).zip(&mut boot.line) {
            // SAFETY: the line ends in a zero, and nothing behind it is read.
            *byte = unsafe { pointer(info.command_line + offset).read_volatile() };
            if *byte == 0 {
                break;
            }
        }
        boot
    }

    /// The value of `key=value` on the command line.
    pub fn option(&self, key: &str) -> Option<&str> {
        let end = self.line.iter().position(|byte| *byte == 0).unwrap_or(0);
        let line = core::str::from_utf8(self.line.get(..end)?).ok()?;
        line.split(' ').find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
    }

    /// The same as a number, in decimal.
    pub fn number(&self, key: &str) -> Option<u64> {
        self.option(key)?.parse().ok()
    }
}
