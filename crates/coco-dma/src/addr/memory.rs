//! Where a machine's memory is, and what a run of its pages has to meet.

use super::Boundary;
use super::PhysAddr;
use super::PhysRange;
use crate::state::Context;

/// Where the memory of a machine is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryMap<'a> {
    /// The extents that are present now, of RAM that drivers may be given buffers in; in any order.
    /// Empty where nothing is told.
    pub present: &'a [PhysRange],
    /// The last address that memory may ever have, what is plugged in later included; `None` where
    /// nothing is told: then it is the last address of the machine. Where it lies past all that is
    /// present, memory may come anywhere up to it; where it does not, nothing is ever added.
    pub ceiling: Option<PhysAddr>,
}

impl MemoryMap<'_> {
    /// Nothing is told: memory may be anywhere.
    pub const UNKNOWN: Self = Self { present: &[], ceiling: None };
}

/// What must hold of a run of pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageConstraints {
    /// Its length in bytes, a multiple of a page.
    pub len: u64,
    /// What its first address is a multiple of, a power of two: its length need be none.
    pub align: u64,
    /// The lowest address that a byte of it may have.
    pub first: PhysAddr,
    /// The last address that a byte of it may have.
    pub last: PhysAddr,
    /// The boundary that it may not cross.
    pub boundary: Option<Boundary>,
    /// Whether the source may block.
    pub context: Context,
}

impl PageConstraints {
    /// Whether `run` is what was asked for.
    pub fn met_by(&self, run: PhysRange) -> bool {
        let crossed = |boundary: Boundary| boundary.crossed_by(run.base().raw(), run.len());
        run.len() == self.len
            && run.base().raw() & self.align.wrapping_sub(1) == 0
            && self.first <= run.base()
            && run.last() <= self.last
            && !self.boundary.is_some_and(crossed)
    }
}
