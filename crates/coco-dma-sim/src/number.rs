//! Lengths between the two widths that they have: 64 bits in addresses, a word in memory.

use coco_dma::addr::PhysAddr;
use coco_dma::addr::PhysRange;

/// A length in memory. What a machine of this host cannot hold saturates, and then fits nowhere.
pub(crate) fn size(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

/// A length in addresses.
pub(crate) fn wide(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

/// The granules of a run that is made of whole ones.
pub(crate) fn granules(run: PhysRange, granule: u64) -> impl Iterator<Item = PhysRange> {
    (0..run.len() / granule).filter_map(move |index| run.slice(index * granule, granule))
}

/// The run of `len` bytes at `base`.
pub(crate) fn run(base: u64, len: u64) -> Option<PhysRange> {
    PhysRange::new(PhysAddr::new(base), len)
}
