//! Quarantine: how much is lost, and where.

use core::iter::FusedIterator;

use super::GranuleState;
use super::Ledger;
use super::Tracked;
use super::granules::Granules;
use super::granules::Span;
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
    let all = granules.all();
    let count = all.count.checked_sub(from)?;
    let parts = granules.parts(Span { first: from, count });
    let mut entries = parts
        .flat_map(|part| part.entries())
        .skip_while(|(_, entry)| entry.state() != GranuleState::Quarantined);
    let (first, _) = entries.next()?;
    let end = entries
        .find(|(_, entry)| entry.state() != GranuleState::Quarantined)
        .map_or(all.count, |(granule, _)| granule);
    let len = (end - first) as u64 * granules.bytes();
    Some((PhysRange::new(granules.at(first), len)?, end))
}
