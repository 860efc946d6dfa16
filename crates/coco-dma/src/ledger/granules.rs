//! The entries of a range: which words hold those of a run, and how all of them change or none.

use core::convert::Infallible;

use super::Found;
use super::GranuleState;
use super::RangeState;
use super::entry::Entry;
use super::entry::PER_WORD;
use super::entry::Part;
use super::window::Window;
use crate::addr::PhysAddr;
use crate::addr::PhysRange;
use crate::word::Ordering;
use crate::word::Word;

/// The entries of a range.
pub(super) struct Granules<'m> {
    base: PhysAddr,
    shift: u32,
    count: usize,
    /// Granules in quarantine, those under retry included. Changed before a granule goes in and
    /// after it came out, so that it is never too small for what can be seen.
    pub(super) quarantined: &'m Word,
    words: &'m [Word],
}

/// Granules of one range, by number.
#[derive(Clone, Copy)]
pub(super) struct Span {
    pub(super) first: usize,
    pub(super) count: usize,
}

impl<'m> Granules<'m> {
    /// `count` granules of `1 << shift` bytes from `base`, kept in `words`.
    pub(super) const fn new(
        base: PhysAddr,
        shift: u32,
        count: usize,
        quarantined: &'m Word,
        words: &'m [Word],
    ) -> Self {
        Self { base, shift, count, quarantined, words }
    }

    /// Puts all of them into one state, unpinned. Relaxed: nobody else has them yet.
    pub(super) fn fill(&self, state: GranuleState) {
        self.quarantined.0.store(0, Ordering::Relaxed);
        for word in self.words {
            word.0.store(Entry::new(state).repeated(), Ordering::Relaxed);
        }
    }

    /// Bytes of a granule.
    pub(super) const fn bytes(&self) -> u64 {
        1 << self.shift
    }

    /// Those that a run touches which lies in the range.
    #[inline]
    pub(super) fn span(&self, run: PhysRange) -> Span {
        let number = |at: PhysAddr| {
            let offset = at.offset_from(self.base).unwrap_or(0);
            usize::try_from(offset >> self.shift).unwrap_or(usize::MAX)
        };
        let first = number(run.base());
        Span { first, count: number(run.last()) - first + 1 }
    }

    /// Those in whole words that lie in `part`, which is a part of the range; `None` where there are
    /// none.
    pub(super) fn window(&self, part: PhysRange) -> Option<Window<'m>> {
        let granules = part.base().offset_from(self.base)?.div_ceil(self.bytes());
        let first = usize::try_from(granules).ok()?.div_ceil(PER_WORD);
        let past = part.last().offset_from(self.base)?.checked_add(1)? >> self.shift;
        let words = self.words.get(first..usize::try_from(past).ok()? / PER_WORD)?;
        (!words.is_empty()).then(|| Window::new(self.at(first * PER_WORD), self.shift, words))
    }

    /// Where a granule begins.
    pub(super) fn at(&self, granule: usize) -> PhysAddr {
        PhysAddr::new(self.base.raw() + ((granule as u64) << self.shift))
    }

    /// The words of a span in ascending order, each with the entries that are meant.
    pub(super) fn parts(&self, span: Span) -> impl Iterator<Item = Part<'m>> + use<'m> {
        let words = self.words;
        let end = span.first + span.count;
        let indices =
            if span.count == 0 { 0..0 } else { span.first / PER_WORD..end.div_ceil(PER_WORD) };
        indices.filter_map(move |index| {
            let start = index * PER_WORD;
            let lanes = span.first.max(start) - start..end.min(start + PER_WORD) - start;
            Some(Part::new(words.get(index)?, start, lanes))
        })
    }

    /// The granules from `first` on that are like it: their state, whether they are pinned, and the
    /// number of the one behind them. `None` past the end.
    pub(super) fn alike(&self, first: usize) -> Option<(GranuleState, bool, usize)> {
        let count = self.count.checked_sub(first)?;
        let mut entries = self.parts(Span { first, count }).flat_map(|part| part.entries());
        let like = |entry: Entry| (entry.state(), entry.pins() > 0);
        let (state, pinned) = like(entries.next()?.1);
        let other = entries.find(|(_, entry)| like(*entry) != (state, pinned));
        Some((state, pinned, other.map_or(self.count, |(granule, _)| granule)))
    }

    /// What the granules of a span are, one word after the other: not all at one moment.
    #[inline]
    pub(super) fn look(&self, span: Span) -> RangeState {
        // Mostly they are alike.
        let last = (span.first + span.count).wrapping_sub(1);
        Entry::alike(self.words, span.first, last)
            .map_or_else(|| self.look_through(span), RangeState::Uniform)
    }

    /// The same one by one.
    fn look_through(&self, span: Span) -> RangeState {
        let mut entries = self.parts(span).flat_map(|part| part.entries());
        let Some((_, one)) = entries.next() else { return RangeState::Untracked };
        let before = one.state();
        match entries.find(|(_, entry)| entry.state() != before) {
            None => RangeState::Uniform(before),
            Some((granule, entry)) => {
                RangeState::Mixed { first: self.at(granule), before, after: entry.state() }
            }
        }
    }

    /// Changes every granule of a span, or none: where `forward` refuses one, what was changed
    /// goes through `back`, and the answer says where and why.
    ///
    /// Everybody climbs. Of several that are in each other's way the one that stands highest
    /// finds nobody above it: however many give up, one of them gets on.
    pub(super) fn all_or_none(
        &self,
        span: Span,
        forward: impl Fn(Entry) -> Result<Entry, Found>,
        back: impl Fn(Entry) -> Entry,
    ) -> Result<(), (PhysAddr, Found)> {
        for part in self.parts(span) {
            // Acquire: what was done to the memory before it came into this state, or by whoever
            // had it pinned, happens before what the caller does with it.
            let step = part.update(Ordering::Acquire, |_, entry| forward(entry));
            if let Err((granule, found)) = step {
                let below = Span { first: span.first, count: part.first() - span.first };
                self.each(below, |_, entry| back(entry));
                return Err((self.at(granule), found));
            }
        }
        Ok(())
    }

    /// Changes every granule of a span.
    pub(super) fn each(&self, span: Span, change: impl Fn(usize, Entry) -> Entry) {
        for part in self.parts(span) {
            // Release: what the caller did with the memory happens before whatever the next one
            // does that finds it in this state or unpinned. (Taking back half a step would not
            // need it; it is off the fast path.)
            let Ok(()) = part.update(Ordering::Release, |granule, entry| {
                Ok::<_, Infallible>(change(granule, entry))
            });
        }
    }
}
