//! Whose slots are: the marks, read and ended from outside of a map.

use super::HeldRun;
use super::Owner;
use super::SlotRun;
use super::Slots;
use crate::word::Ordering;

/// Whose turn it is to end a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EndState {
    /// The caller's.
    Mine,
    /// The caller's, of a run that could not be ended before.
    Again,
    /// Another thread's, which is at it.
    Elsewhere,
    /// Nobody's: it has ended.
    Over,
}

impl Slots<'_> {
    /// Whether the run is still its holder's.
    pub(crate) fn holds(&self, run: &SlotRun) -> bool {
        let mark = self.marks.get(self.first(run));
        mark.is_some_and(|mark| mark.0.load(Ordering::Relaxed) == run.mark.get())
    }

    /// Ends the holding of a run, whose slots nobody gets before [`free`](Self::free). False where
    /// somebody else ended it: of several that try, one does.
    pub(crate) fn end(&self, run: &SlotRun) -> bool {
        let Some(mark) = self.marks.get(self.first(run)) else { return false };
        mark.0.compare_exchange(run.mark.get(), 0, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// Makes a run of slots another owner's, who has its record from now on.
    pub(crate) fn pass(&self, run: &SlotRun, to: Owner) {
        if let Some(mark) = self.marks.get(self.first(run)) {
            // Release: who finds that its own run is over finds what was done to end it.
            mark.0.store(to.mark(run.count()).get(), Ordering::Release);
        }
    }

    /// Begins to end what an owner holds in two steps, or could not end before. Of several that try,
    /// one does; it says with [`ended`](Self::ended) or [`kept`](Self::kept) what came of it.
    pub(crate) fn begin_end(&self, run: &SlotRun, owner: Owner) -> EndState {
        let count = run.count();
        let Some(mark) = self.marks.get(self.first(run)) else { return EndState::Over };
        let to = owner.ending().mark(count).get();
        let take = |state: Owner| {
            // Acquire: what the last one did to it happened before this.
            let (from, order) = (state.mark(count).get(), Ordering::Acquire);
            mark.0.compare_exchange(from, to, order, order)
        };
        if take(owner).is_ok() {
            return EndState::Mine;
        }
        match take(owner.stuck()) {
            Ok(_) => {
                self.count_used(count);
                EndState::Again
            }
            Err(seen) if seen == to => EndState::Elsewhere,
            Err(_) => EndState::Over,
        }
    }

    /// It has ended: its slots are free. By who had the turn.
    pub(crate) fn ended(&self, run: &SlotRun) {
        if let Some(mark) = self.marks.get(self.first(run)) {
            // Release: who finds that it is over finds what was done to end it.
            mark.0.store(0, Ordering::Release);
        }
        self.clear(run);
    }

    /// It could not be ended, and is nobody's until somebody tries again. By who had the turn.
    pub(crate) fn kept(&self, run: &SlotRun, owner: Owner) {
        let count = run.count();
        self.count_in(count);
        if let Some(mark) = self.marks.get(self.first(run)) {
            mark.0.store(owner.stuck().mark(count).get(), Ordering::Release);
        }
    }

    /// Slots that an owner holds.
    pub(crate) fn held_by(&self, owner: Owner) -> usize {
        let marks = self.marks.iter().map(|mark| mark.0.load(Ordering::Relaxed));
        marks.filter_map(|mark| owner.run_of(mark)).sum()
    }

    /// The runs that are held.
    pub(crate) fn held(&self) -> impl Iterator<Item = HeldRun> {
        let marks = self.marks.iter().enumerate();
        marks.filter_map(|(first, mark)| HeldRun::of(first, mark.0.load(Ordering::Relaxed)))
    }

    /// Frees all that an owner holds; says how many slots that was.
    pub(crate) fn revoke(&self, owner: Owner) -> usize {
        let mut freed = 0;
        for run in self.runs_of(owner) {
            // The record of this run may come later; it finds the mark gone.
            if self.end(&run) {
                self.clear(&run);
                freed += run.count();
            }
        }
        freed
    }

    /// What of an owner's could not be ended before, in the same form.
    pub(crate) fn stuck_of(&self, owner: Owner) -> impl Iterator<Item = SlotRun> {
        self.runs_of(owner.stuck()).map(move |run| SlotRun::of(run.offset, run.count(), owner))
    }

    /// What an owner holds, as the records that it has itself (but for the place in the slots).
    pub(crate) fn runs_of(&self, owner: Owner) -> impl Iterator<Item = SlotRun> {
        self.marks.iter().enumerate().filter_map(move |(first, mark)| {
            let count = owner.run_of(mark.0.load(Ordering::Relaxed))?;
            Some(SlotRun::of(first << self.shift, count, owner))
        })
    }
}
