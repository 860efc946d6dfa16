//! The books as runs that are alike, for whoever walks through all of them.

use super::Ledger;
use super::RangeState;
use crate::addr::PhysAddr;
use crate::addr::PhysRange;

/// A run of one range whose granules are all alike, as long as it can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) run: PhysRange,
    pub(crate) seen: RangeState,
    /// Whether direct DMA holds each of them.
    pub(crate) pinned: bool,
}

impl Ledger<'_> {
    /// The first registered memory at `at` or above, as far as it is alike; while others work, of
    /// no one moment. Any context; takes time in its length.
    pub(crate) fn extent_from(&self, at: PhysAddr) -> Option<Extent> {
        let below = self.ranges().partition_point(|tracked| tracked.range().last() < at);
        let tracked = self.ranges().get(below)?;
        let range = tracked.range();
        let byte = PhysRange::new(range.base().max(at), 1)?;
        let granules = match tracked.granules() {
            Ok(granules) => granules,
            Err(visibility) => {
                let offset = byte.base().offset_from(range.base())?;
                let run = range.slice(offset, range.len() - offset)?;
                return Some(Extent { run, seen: RangeState::Foreign(visibility), pinned: false });
            }
        };
        let first = granules.span(byte).first;
        let (state, pinned, end) = granules.alike(first)?;
        let len = (end - first) as u64 * granules.bytes();
        let run = PhysRange::new(granules.at(first), len)?;
        Some(Extent { run, seen: RangeState::Uniform(state), pinned })
    }
}
