//! Intel VT-d in legacy mode (specification 3.1 or later): root table, a context table for each
//! bus, second-level tables for each domain, invalidation and faults by registers.
// UNSAFETY: registers and tables.
#![expect(unsafe_code)]

use alloc::vec::Vec;
use core::ptr::NonNull;

use coco_dma::addr::DmaAddr;
use coco_dma::observe::Fault;
use coco_dma::observe::FaultReason;

use super::Refused;
use super::Rights;
use crate::devices::registers::Registers;
use crate::memory::PAGE;
use crate::memory::boot_shared;
use crate::memory::shared;

/// Where q35 has it; a real machine reads this from the ACPI table DMAR.
const BASE: u64 = 0xfed9_0000;

const CAPABILITY: u64 = 0x08;
const EXTENDED: u64 = 0x10;
const COMMAND: u64 = 0x18;
const STATUS: u64 = 0x1c;
const ROOT_TABLE: u64 = 0x20;
const CONTEXT_COMMAND: u64 = 0x28;
const FAULT_STATUS: u64 = 0x34;

const TRANSLATE: u32 = 1 << 31;
const SET_ROOT: u32 = 1 << 30;
const BUSY: u64 = 1 << 63;
const CONTEXT_GLOBAL: u64 = 1 << 61;
const IOTLB_GLOBAL: u64 = 1 << 60;
const FAULTED: u64 = 1 << 63;
const WAS_READ: u64 = 1 << 62;
const OVERFLOW: u32 = 1;

const PRESENT: u64 = 1;
const READ: u64 = 1;
const WRITE: u64 = 2;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
/// How often a register is asked before it counts as dead.
const PATIENCE: u32 = 1_000_000;

/// The IOMMU. Its tables lie in memory that is shared, as whoever emulates it has to read them.
#[derive(Debug)]
pub struct Vtd {
    registers: Registers,
    iotlb: u64,
    faults: u64,
    fault_count: u64,
    levels: u32,
    root: u64,
    domains: Vec<(u16, u64)>,
}

impl Vtd {
    /// Switches it on, if there is one: from then on a device that is behind no domain reaches
    /// nothing.
    pub fn start() -> Result<Option<Self>, Refused> {
        let registers = Registers::new(BASE, 0x1000);
        let version = registers.read32(0);
        if version == 0 || version == u32::MAX {
            return Ok(None);
        }
        let (capability, extended) = (registers.read64(CAPABILITY), registers.read64(EXTENDED));
        // Three levels where it has them, or else four.
        let levels = if capability >> 9 & 1 == 1 { 3 } else { 4 };
        let vtd = Self {
            registers,
            iotlb: (extended >> 8 & 0x3ff) * 16 + 8,
            faults: (capability >> 24 & 0x3ff) * 16,
            fault_count: (capability >> 40 & 0xff) + 1,
            levels,
            root: boot_shared::page().ok_or(Refused::NoTable)?.0,
            domains: Vec::new(),
        };
        vtd.registers.write64(ROOT_TABLE, vtd.root);
        vtd.command(SET_ROOT)?;
        vtd.forget_all()?;
        vtd.command(TRANSLATE)?;
        Ok(Some(vtd))
    }

    /// Gives a command and waits until the status shows it.
    fn command(&self, bit: u32) -> Result<(), Refused> {
        let lasting = self.registers.read32(STATUS) & TRANSLATE;
        self.registers.write32(COMMAND, lasting | bit);
        self.wait(|vtd| vtd.registers.read32(STATUS) & bit != 0)
    }

    fn wait(&self, done: impl Fn(&Self) -> bool) -> Result<(), Refused> {
        (0..PATIENCE).any(|_| done(self)).then_some(()).ok_or(Refused::Silent)
    }

    /// Makes it forget everything that it remembers of the tables.
    fn forget_all(&self) -> Result<(), Refused> {
        self.registers.write64(CONTEXT_COMMAND, BUSY | CONTEXT_GLOBAL);
        self.wait(|vtd| vtd.registers.read64(CONTEXT_COMMAND) & BUSY == 0)?;
        self.forget_pages()
    }

    fn forget_pages(&self) -> Result<(), Refused> {
        self.registers.write64(self.iotlb, BUSY | IOTLB_GLOBAL);
        self.wait(|vtd| vtd.registers.read64(vtd.iotlb) & BUSY == 0)
    }

    pub(super) fn attach(&mut self, source: u16, domain: u16) -> Result<(), Refused> {
        let tables = self.domain(domain)?;
        let bus = entry(self.root, u64::from(source >> 8) * 2);
        let context = below(bus, PRESENT)?;
        let number = u64::from(source & 0xff) * 2;
        let (low, high) = (entry(context, number), entry(context, number + 1));
        let width = u64::from(self.levels - 2);
        // SAFETY: both words of the entry lie in the context table.
        unsafe { high.write_volatile(width | u64::from(domain + 1) << 8) };
        // SAFETY: as above; present last.
        unsafe { low.write_volatile(tables | PRESENT) };
        self.forget_all()
    }

    /// The tables of a domain, made where there are none yet.
    fn domain(&mut self, domain: u16) -> Result<u64, Refused> {
        if let Some((_, tables)) = self.domains.iter().find(|(number, _)| *number == domain) {
            return Ok(*tables);
        }
        let (tables, _) = boot_shared::page().ok_or(Refused::NoTable)?;
        self.domains.push((domain, tables));
        Ok(tables)
    }

    pub(super) fn map(
        &mut self,
        domain: u16,
        iova: u64,
        page: u64,
        rights: Rights,
    ) -> Result<(), Refused> {
        let leaf = self.leaf(domain, iova)?;
        // SAFETY: the entry lies in a table.
        if unsafe { leaf.read_volatile() } != 0 {
            return Err(Refused::Occupied);
        }
        // What is not there is not remembered, so that nothing has to be forgotten.
        let bits = if rights.reads { READ } else { 0 } | if rights.writes { WRITE } else { 0 };
        // SAFETY: as above.
        unsafe { leaf.write_volatile(page | bits) };
        Ok(())
    }

    pub(super) fn unmap(&mut self, domain: u16, iova: u64, len: u64) -> Result<(), Refused> {
        for page in (iova..iova + len).step_by(PAGE as usize) {
            let leaf = self.leaf(domain, page)?;
            // SAFETY: the entry lies in a table.
            unsafe { leaf.write_volatile(0) };
        }
        self.forget_pages()
    }

    fn leaf(&mut self, domain: u16, iova: u64) -> Result<NonNull<u64>, Refused> {
        let top = 12 + 9 * self.levels;
        if iova >> top != 0 {
            return Err(Refused::TooWide);
        }
        let (mut table, mut shift) = (self.domain(domain)?, top - 9);
        while shift > 12 {
            table = below(entry(table, iova >> shift & 511), READ | WRITE)?;
            shift -= 9;
        }
        Ok(entry(table, iova >> 12 & 511))
    }

    /// Reads the fault records and clears them, or the next fault would be dropped.
    pub(super) fn faults(&mut self) -> Vec<Fault> {
        let mut found = Vec::new();
        for record in 0..self.fault_count {
            let at = self.faults + record * 16;
            let high = self.registers.read64(at + 8);
            if high & FAULTED == 0 {
                continue;
            }
            let code = (high >> 32) as u8;
            found.push(Fault {
                source: u32::from(high as u16),
                addr: DmaAddr::new(self.registers.read64(at) & !(PAGE - 1)),
                write: Some(high & WAS_READ == 0),
                reason: match code {
                    1..=4 => FaultReason::Domain,
                    5 | 6 => FaultReason::Mapping,
                    _ => FaultReason::Unknown,
                },
                code: code.into(),
            });
            self.registers.write32(at + 12, (FAULTED >> 32) as u32);
        }
        self.registers.write32(FAULT_STATUS, OVERFLOW);
        found
    }
}

/// The entry of a table, by its number.
fn entry(table: u64, number: u64) -> NonNull<u64> {
    NonNull::new(shared(table + number * 8).cast()).unwrap_or(NonNull::dangling())
}

/// The table below an entry, made with these bits where there is none yet.
fn below(entry: NonNull<u64>, bits: u64) -> Result<u64, Refused> {
    // SAFETY: the entry lies in a table.
    let value = unsafe { entry.read_volatile() };
    if value & PRESENT != 0 {
        return Ok(value & ADDRESS);
    }
    let (table, _) = boot_shared::page().ok_or(Refused::NoTable)?;
    // SAFETY: as above.
    unsafe { entry.write_volatile(table | bits) };
    Ok(table)
}
