//! Quarantine: how much is lost, and where.

use core::iter::FusedIterator;

use super::GranuleState;
use super::Ledger;
use super::Tracked;
use super::granules::Granules;
use crate::addr::PhysAddr;
use crate::addr::PhysRange;
use crate::word::Ordering;

impl<'m> Ledger<'m> {
    /// Bytes in quarantine, those included whose conversion is being tried again. While others
    /// settle, the number of some moment. Any context; a load a range.
    pub fn quarantined(&self) -> u64 {
        let ranges = self.ranges().iter().filter_map(|tracked| tracked.granules().ok());
        ranges.map(quarantined).fold(0, u64::saturating_add)
    }

    /// The runs in quarantine in ascending order, each as long as it can be within its range;
    /// what is being tried again is not listed. While others settle, what it passes at that
    /// moment. Any context; takes time in the size of the ranges that have lost something.
    pub fn quarantine(&self) -> Quarantine<'m> {
        Quarantine { ranges: self.ranges(), next: 0 }
    }

    /// The same from the granule on that holds `at`.
    pub(crate) fn quarantine_from(&self, at: PhysAddr) -> Quarantine<'m> {
        let below = self.ranges().partition_point(|tracked| tracked.range().last() < at);
        let ranges = self.ranges().get(below..).unwrap_or(&[]);
        let next = match (ranges, PhysRange::new(at, 1)) {
            ([first, ..], Some(byte)) if first.range().contains(byte) => {
                first.granules().map_or(0, |granules| granules.span(byte).first)
            }
            _ => 0,
        };
        Quarantine { ranges, next }
    }
}

/// Bytes of a range in quarantine.
fn quarantined(granules: &Granules<'_>) -> u64 {
    (granules.quarantined.0.load(Ordering::Relaxed) as u64).saturating_mul(granules.bytes())
}

/// The runs in quarantine: see [`Ledger::quarantine`].
#[derive(Clone, Debug)]
pub struct Quarantine<'m> {
    /// What is not passed yet.
    ranges: &'m [Tracked<'m>],
    /// The granule of the first of them to go on at.
    next: usize,
}

impl Iterator for Quarantine<'_> {
    type Item = PhysRange;

    fn next(&mut self) -> Option<PhysRange> {
        while let [tracked, rest @ ..] = self.ranges {
            if let Ok(granules) = tracked.granules()
                && quarantined(granules) > 0
                && let Some((run, next)) = lost(granules, self.next)
            {
                self.next = next;
                return Some(run);
            }
            (self.ranges, self.next) = (rest, 0);
        }
        None
    }
}

impl FusedIterator for Quarantine<'_> {}

/// The first run in quarantine at granule `from` or above, and the granule behind it.
fn lost(granules: &Granules<'_>, from: usize) -> Option<(PhysRange, usize)> {
    let mut first = from;
    while let Some((state, _, end)) = granules.alike(first) {
        if state == GranuleState::Quarantined {
            let len = (end - first) as u64 * granules.bytes();
            return Some((PhysRange::new(granules.at(first), len)?, end));
        }
        first = end;
    }
    None
}
