//! The page tables that tell private memory from shared.
//!
//! Every page of RAM is mapped exactly once: at its own address while it is private, at its
//! address plus [`ALIAS`] while it is shared. To convert a page takes one mapping away before it
//! makes the other, so that a pointer of the wrong state faults. Page 0 is never mapped.
// UNSAFETY: page tables.
#![expect(unsafe_code)]

use core::arch::asm;
use core::cell::Cell;

use coco_dma::state::Visibility;

use super::PAGE;
use super::TABLES;
use super::TABLES_LEN;
use super::private;
use crate::rt::OneCpu;

/// Where the alias of shared memory begins.
pub const ALIAS: u64 = 0x4000_0000_0000;

const PRESENT: u64 = 1;
const WRITABLE: u64 = 2;
const UNCACHED: u64 = 0x18;
const LARGE: u64 = 0x80;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
const GIB: u64 = 1 << 30;

/// The tables.
#[derive(Debug)]
pub struct Paging {
    next: Cell<u64>,
    root: Cell<u64>,
    end: Cell<u64>,
}

/// The one set of tables.
pub static PAGING: OneCpu<Paging> = OneCpu::new(Paging::new());

impl Paging {
    const fn new() -> Self {
        Self { next: Cell::new(TABLES), root: Cell::new(0), end: Cell::new(0) }
    }

    /// Maps memory up to `end`, all of it private, and switches to these tables.
    pub fn start(&self, end: u64) {
        self.end.set(end);
        self.root.set(self.table());
        for page in (PAGE..end).step_by(PAGE as usize) {
            self.set(page, page | PRESENT | WRITABLE);
            self.set(ALIAS + page, 0);
        }
        self.map_registers(0xc000_0000, GIB);
        // SAFETY: the image, the stack and the tables are mapped where they lie.
        unsafe { asm!("mov cr3, {}", in(reg) self.root.get(), options(nostack)) };
    }

    /// The end of memory.
    pub fn end(&self) -> u64 {
        self.end.get()
    }

    /// Makes a page private or shared. A page that is so already stays so.
    pub fn convert(&self, page: u64, to: Visibility) {
        let (take, make) = match to {
            Visibility::Shared => (page, ALIAS + page),
            Visibility::Private => (ALIAS + page, page),
        };
        self.set(take, 0);
        // SAFETY: forgets a translation; the tables are what counts.
        unsafe { asm!("invlpg [{}]", in(reg) take, options(nostack)) };
        self.set(make, page | PRESENT | WRITABLE);
    }

    /// How a page of memory is mapped now.
    pub fn state(&self, page: u64) -> Visibility {
        let entry = self.entry(ALIAS + page);
        // SAFETY: the entry lies in a table.
        if unsafe { entry.read_volatile() } & PRESENT == 0 {
            Visibility::Private
        } else {
            Visibility::Shared
        }
    }

    /// Maps registers of a device to their own address, uncached, in pages of 1 GiB. Memory ends
    /// below the first of them.
    pub fn map_registers(&self, at: u64, len: u64) {
        for page in (at & !(GIB - 1)..at + len).step_by(GIB as usize) {
            assert!(page >= GIB, "registers amid memory");
            let value = page | PRESENT | WRITABLE | UNCACHED | LARGE;
            // SAFETY: the entry lies in a table, and no memory in this GiB.
            unsafe { self.walk(page, 30).write_volatile(value) };
        }
    }

    fn set(&self, virt: u64, value: u64) {
        // SAFETY: the entry lies in a table.
        unsafe { self.entry(virt).write_volatile(value) };
    }

    /// The entry of a page of 4 KiB.
    fn entry(&self, virt: u64) -> *mut u64 {
        self.walk(virt, 12)
    }

    /// The entry for `virt` in the table that covers it in steps of `1 << last` bytes. Tables on
    /// the way are made where they are missing.
    fn walk(&self, virt: u64, last: u32) -> *mut u64 {
        let (mut table, mut shift) = (self.root.get(), 39);
        loop {
            let entry = private(table + (virt >> shift & 511) * 8).cast::<u64>();
            if shift == last {
                return entry;
            }
            // SAFETY: the entry lies in a table.
            let mut value = unsafe { entry.read_volatile() };
            if value & PRESENT == 0 {
                value = self.table() | PRESENT | WRITABLE;
                // SAFETY: as above.
                unsafe { entry.write_volatile(value) };
            }
            (table, shift) = (value & ADDRESS, shift - 9);
        }
    }

    /// A new table, zeroed.
    fn table(&self) -> u64 {
        let table = self.next.get();
        assert!(table < TABLES + TABLES_LEN, "no room for page tables");
        self.next.set(table + PAGE);
        // SAFETY: the area belongs to the tables, and each page of it is given once.
        unsafe { private(table).write_bytes(0, PAGE as usize) };
        table
    }
}
