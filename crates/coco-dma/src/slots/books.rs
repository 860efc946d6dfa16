//! Whose slots are: the marks, read and ended from outside of a map.

use super::HeldRun;
use super::Owner;
use super::SlotRun;
use super::Slots;
use crate::word::Ordering;

impl Slots<'_> {
    /// Whether the run is still its holder's.
    pub(crate) fn holds(&self, run: &SlotRun) -> bool {
        let mark = self.marks.get(run.first);
        mark.is_some_and(|mark| mark.0.load(Ordering::Relaxed) == run.mark.get())
    }

    /// Ends the holding of a run, whose slots nobody gets before [`free`](Self::free). False where
    /// somebody else ended it: of several that try, one does.
    pub(crate) fn end(&self, run: &SlotRun) -> bool {
        let Some(mark) = self.marks.get(run.first) else { return false };
        mark.0.compare_exchange(run.mark.get(), 0, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// Makes a run of slots another owner's, who has its record from now on.
    pub(crate) fn pass(&self, run: &SlotRun, to: Owner) {
        if let Some(mark) = self.marks.get(run.first) {
            mark.0.store(to.mark(run.count()).get(), Ordering::Relaxed);
        }
    }

    /// Keeps the slots of a run whose holding was ended by the caller for ever: nobody's.
    pub(crate) fn lose(&self, run: &SlotRun) {
        if let Some(mark) = self.marks.get(run.first) {
            mark.0.store(run.count(), Ordering::Relaxed);
        }
        self.count_in(run.count());
    }

    /// Whether a run was lost. (Or one that was given to somebody else later, of the same slots:
    /// then it is lost all the same.)
    pub(crate) fn is_lost(&self, run: &SlotRun) -> bool {
        let mark = self.marks.get(run.first);
        mark.is_some_and(|mark| mark.0.load(Ordering::Relaxed) == run.count())
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
                self.free(&run);
                freed += run.count();
            }
        }
        freed
    }

    /// What an owner holds, as the records that it has itself (but for the place in the slots).
    pub(crate) fn runs_of(&self, owner: Owner) -> impl Iterator<Item = SlotRun> {
        self.marks.iter().enumerate().filter_map(move |(first, mark)| {
            let count = owner.run_of(mark.0.load(Ordering::Relaxed))?;
            Some(SlotRun::of(first, count, owner))
        })
    }
}
