//! Gathering the runs of a scattered allocation: the longest that there are, each brought into its
//! state and pinned, then all of them behind one address; undone run by run.
// UNSAFETY: pages change hands between their owner, the host and the device.
#![expect(unsafe_code)]

use super::raw::AllocInfo;
use super::raw::AllocOptions;
use super::scattered::Failed;
use super::scattered::Many;
use super::scattered::Run;
use crate::device::Device;
use crate::iommu::Fit;
use crate::iommu::PartialMap;
use crate::plan::OwnPages;
use crate::platform::PageSource;
use crate::platform::Platform;
use crate::reason::Refuse;
use crate::state::Direction;
use crate::state::State;

impl<P: Platform + ?Sized> Device<'_, P> {
    /// Pages from wherever there are some, one behind the other in the device's domain.
    pub(super) fn alloc_in_runs<'s>(
        &self,
        pages: OwnPages,
        options: AllocOptions,
        room: &'s mut [Option<Run>],
    ) -> Result<Many<'s>, Failed<'s>> {
        let source = self.dma().pages().ok_or((Refuse::OutOfPages, None))?;
        let len = usize::try_from(pages.len).map_err(|_| (Refuse::OutOfPages, None))?;
        if room.iter().any(Option::is_some) {
            return Err((Refuse::TooScattered, None));
        }
        if let Err(reason) = self.alloc_runs(source, pages, options, room) {
            // SAFETY: nobody was given any of it.
            unsafe { self.free_runs(room, pages.lent()) };
            return Err((reason, None));
        }
        for run in room.iter().flatten() {
            self.platform().sync_for_device(run.bytes(), Direction::Both, !self.info().coherent);
        }
        let runs = room.iter().flatten().map(|run| run.range);
        let entry = self.entry(Direction::Both, pages.state, false);
        // SAFETY: the runs are ours, whole pages, and pinned in this state where it can change.
        let (addr, mapped, why) = match unsafe {
            self.translate_runs(runs, (pages.len, Fit::Aligned(pages.align)), entry)
        } {
            Ok((addr, mapped)) => (addr, mapped, None),
            Err((reason, Some(PartialMap { addr, mapped, .. }))) => (addr, mapped, Some(reason)),
            Err((reason, None)) => {
                // SAFETY: nobody was given any of it, and nothing of it is mapped.
                unsafe { self.free_runs(room, pages.lent()) };
                return Err((reason, None));
            }
        };
        let made = AllocInfo { options, state: pages.state };
        let (owner, lent) = (self.owner(), pages.lent());
        let many = Many { owner, addr, len, runs: room, lent, made, mapped };
        match why {
            None => Ok(many),
            Some(reason) => Err((reason, Some(many))),
        }
    }

    /// Fills `room` with runs of `pages.len` bytes in all: the longest that there are, in as few as
    /// halving finds. What it took before it failed stays there.
    fn alloc_runs(
        &self,
        source: &dyn PageSource,
        pages: OwnPages,
        options: AllocOptions,
        room: &mut [Option<Run>],
    ) -> Result<(), Refuse> {
        let OwnPages { unit, state, convert, len, longest, .. } = pages;
        let (mut left, mut most) = (len, longest);
        for place in room {
            if left == 0 {
                break;
            }
            let (run, asked) = loop {
                // Both are whole multiples of `unit`, so that this ends at one of it.
                most = most.min(left);
                let asked = pages.piece(self.regime(), most, options.context);
                match source.alloc(&asked) {
                    Some(run) => break (run, asked),
                    None if most <= unit => return Err(Refuse::OutOfPages),
                    None => most = (most / 2).next_multiple_of(unit),
                }
            };
            if !asked.met_by(run) {
                // SAFETY: nobody used it.
                unsafe { source.free(run, options.context) };
                return Err(Refuse::OutOfPages);
            }
            let (view, bytes, pin) = self.prepare(source, run, (state, convert), options)?;
            *place = Some(Run { view, len: bytes, range: run, pin });
            left -= most;
        }
        if left == 0 { Ok(()) } else { Err(Refuse::TooScattered) }
    }

    /// Takes every run apart again.
    ///
    /// # Safety
    ///
    /// No device reaches them, and nobody uses their pointers any more.
    pub(super) unsafe fn free_runs(&self, room: &mut [Option<Run>], lent: Option<State>) {
        // sabotage: gather-leaks-first
        for Run { view, len, range, pin } in room.iter_mut().filter_map(Option::take) {
            // SAFETY: this function's condition.
            unsafe { self.free_pages((view, len), range, lent, pin) };
        }
    }
}
