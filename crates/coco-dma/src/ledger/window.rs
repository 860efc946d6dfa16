//! A part of the books that is looked at again and again, with all that is known beforehand left
//! out of the look.

use super::GranuleState;
use super::Ledger;
use super::entry::Entry;
use crate::addr::PhysAddr;
use crate::addr::PhysRange;
use crate::word::Word;

/// Granules of one range, in whole words of its storage.
#[derive(Clone, Copy)]
pub(crate) struct Window<'m> {
    base: PhysAddr,
    shift: u32,
    words: &'m [Word],
}

impl<'m> Ledger<'m> {
    /// The part of the largest range that lies at `last` or below and shares no byte with any of
    /// `others`: the longest that is found by cutting one after the other off. `None` where
    /// nothing is left.
    pub(crate) fn window(
        &self,
        last: PhysAddr,
        others: impl Iterator<Item = PhysRange>,
    ) -> Option<Window<'m>> {
        let tracked = self.largest?;
        let granules = tracked.granules().ok()?;
        let mut part = up_to(tracked.range(), last)?;
        for other in others {
            part = without(part, other)?;
        }
        granules.window(part)
    }
}

impl<'m> Window<'m> {
    /// Those of `words`, whose first granule begins at `base`.
    pub(super) const fn new(base: PhysAddr, shift: u32, words: &'m [Word]) -> Self {
        Self { base, shift, words }
    }

    /// The state of the granules that `run` touches, where they lie in the window and are in one
    /// state; else whoever wants to know has to look at the whole ledger. As
    /// [`Ledger::peek`] otherwise.
    #[inline]
    pub(crate) fn look(&self, run: PhysRange) -> Option<GranuleState> {
        // What begins below the window is past the end of it then.
        let number = |at: PhysAddr| {
            usize::try_from(at.raw().wrapping_sub(self.base.raw()) >> self.shift).ok()
        };
        Entry::alike(self.words, number(run.base())?, number(run.last())?) // sabotage: fast-window
    }
}

/// The part of a run that lies at `last` or below.
fn up_to(run: PhysRange, last: PhysAddr) -> Option<PhysRange> {
    PhysRange::between(run.base(), run.last().min(last))
}

/// The longer one of the two parts of a run beside another one.
fn without(run: PhysRange, other: PhysRange) -> Option<PhysRange> {
    if !run.overlaps(other) {
        return Some(run);
    }
    let before = other.base().raw().checked_sub(1).map(PhysAddr::new);
    let below = before.and_then(|last| PhysRange::between(run.base(), last));
    let above = other.last().checked_add(1).and_then(|base| PhysRange::between(base, run.last()));
    [below, above].into_iter().flatten().max_by_key(|part| part.len())
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use std::vec::Vec;

    use super::super::Initial;
    use super::super::RangeState;
    use super::super::Tracked;
    use super::*;
    use crate::state::Visibility;

    const GRANULE: u64 = 0x1000;
    const RAM: u64 = 0x1_0000;

    fn run(base: u64, len: u64) -> PhysRange {
        PhysRange::new(PhysAddr::new(base), len).unwrap()
    }

    /// What is in the window is what the ledger says, and none of it is another's or past the end.
    fn agree(ledger: &Ledger<'_>, last: u64, others: &[PhysRange]) -> usize {
        let window = ledger.window(PhysAddr::new(last), others.iter().copied());
        let mut seen = 0;
        for base in (0..RAM + 24 * GRANULE).step_by(0x800) {
            for len in [1, 0x800, 0x801, GRANULE, 2 * GRANULE, 4 * GRANULE, 5 * GRANULE, RAM] {
                let run = run(base, len);
                if let Some(state) = window.and_then(|window| window.look(run)) {
                    assert_eq!(ledger.peek(run), RangeState::Uniform(state), "{run}");
                    assert!(run.last().raw() <= last, "{run}");
                    assert!(!others.iter().any(|other| other.overlaps(run)), "{run}");
                    seen += 1;
                }
            }
        }
        seen
    }

    #[test]
    fn a_window_says_what_the_ledger_says_and_shows_nobody_else() {
        let words: Vec<Word> =
            (0..Tracked::words(19 * GRANULE, GRANULE)).map(|_| Word::new()).collect();
        let ram = Tracked::new(run(RAM, 19 * GRANULE), GRANULE, Initial::Private, &words).unwrap();
        let ranges = [ram];
        let ledger = Ledger::new(&ranges).unwrap();
        ledger.declare(run(RAM + 5 * GRANULE, 4 * GRANULE), Visibility::Shared).unwrap();
        let all = agree(&ledger, u64::MAX, &[]);
        assert!(all > 0);
        for granule in 0..20 {
            let other = run((RAM + granule * GRANULE).saturating_sub(1), 2);
            let rest = agree(&ledger, u64::MAX, &[other]);
            // The longer side is at least half of it, in whole words.
            assert!(rest * 8 >= all, "{other}: {rest} of {all}");
            agree(&ledger, u64::MAX, &[other, run(RAM + 9 * GRANULE, 1)]);
            agree(&ledger, RAM + granule * GRANULE, &[]);
        }
        assert_eq!(agree(&ledger, RAM - 1, &[]), 0);
        assert_eq!(agree(&ledger, u64::MAX, &[run(0, u64::MAX)]), 0);
        assert_eq!(agree(&Ledger::EMPTY, u64::MAX, &[]), 0);
    }

    /// Granules at the end of the address space.
    #[test]
    fn a_window_may_end_at_the_top() {
        let words: Vec<Word> =
            (0..Tracked::words(8 * GRANULE, GRANULE)).map(|_| Word::new()).collect();
        let top = run(0u64.wrapping_sub(8 * GRANULE), 8 * GRANULE);
        let ranges = [Tracked::new(top, GRANULE, Initial::Private, &words).unwrap()];
        let ledger = Ledger::new(&ranges).unwrap();
        let window = ledger.window(PhysAddr::new(u64::MAX), core::iter::empty());
        let look = |run| window.and_then(|window| window.look(run));
        assert_eq!(look(run(top.base().raw(), GRANULE)), Some(GranuleState::Private));
        assert_eq!(look(run(u64::MAX, 1)), Some(GranuleState::Private));
        for low in [run(0, 1), run(0, u64::MAX), run(top.base().raw() - 1, 2)] {
            assert_eq!(look(low), None, "{low}");
        }
    }
}
