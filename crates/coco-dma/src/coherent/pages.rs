//! Allocations from pages of our own: converted where the device needs it, and taken back step by
//! step where a later step fails.
// UNSAFETY: pages change hands between their owner, the host and the device.
#![expect(unsafe_code)]

use core::ops::Range;
use core::ptr::NonNull;

use super::raw::AllocInfo;
use super::raw::AllocOptions;
use super::raw::RawCoherent;
use super::raw::Source;
use crate::addr::DmaAddr;
use crate::addr::PhysRange;
use crate::copy::zero;
use crate::device::Device;
use crate::ledger::Pin;
use crate::plan::OwnPages;
use crate::platform::CpuView;
use crate::platform::PageSource;
use crate::platform::Platform;
use crate::reason::Refuse;
use crate::state::Context;
use crate::state::State;

impl<P: Platform + ?Sized> Device<'_, P> {
    /// Our own pages as `plan` wants them; why not where a step fails, with all earlier ones
    /// undone.
    pub(super) fn alloc_pages(
        &self,
        pages: OwnPages,
        options: AllocOptions,
    ) -> Result<RawCoherent, Refuse> {
        let source = self.dma().pages().ok_or(Refuse::OutOfPages)?;
        let context = options.context;
        let taken = self.take_pages(source, pages, context);
        let (run, addr) = taken.ok_or(Refuse::OutOfPages)?;
        let (view, len, pin) = self.prepare(source, run, (pages.state, pages.convert), options)?;
        let given = match addr {
            Some(addr) => Ok((addr, None)),
            None => {
                let bytes = NonNull::slice_from_raw_parts(view.start, len);
                // SAFETY: the pages are ours and pinned in this state, if it can change.
                unsafe { self.expose_pages(run, bytes, (pages.state, pages.align)) }
            }
        };
        let (addr, mapped) = match given {
            Ok(given) => given,
            Err(reason) => {
                // SAFETY: nobody was given it.
                unsafe { self.free_pages((view, len), run, pages.lent(), pin) };
                return Err(reason);
            }
        };
        let source = Source::Pages { run, lent: pages.lent(), pin };
        let made = AllocInfo { options, state: pages.state };
        Ok(RawCoherent { owner: self.owner(), addr, view, len, source, made, mapped })
    }

    /// The first run that a source gives as `plan` asks for it, and its address for the device
    /// (`None` where a domain gives it). Everything that can be known is asked here, before anything
    /// is converted.
    fn take_pages(
        &self,
        source: &dyn PageSource,
        pages: OwnPages,
        context: Context,
    ) -> Option<(PhysRange, Option<DmaAddr>)> {
        let (regime, info) = (self.regime(), self.info());
        pages.queries(regime, info, context).find_map(|query| {
            let run = source.alloc(&query.constraints)?;
            let placed = query.place(regime, info, run, &mut ());
            // All but the part that is the allocation goes back, which is all where it is none.
            let kept = placed.and_then(|(part, _)| {
                let start = part.base().offset_from(run.base())?;
                Some(start..start.checked_add(part.len())?)
            });
            free_except(source, run, &kept.unwrap_or(0..0), context);
            placed
        })
    }

    /// Brings pages that were taken into a state, pins them there, and gives the CPU its view of
    /// them, zeroed. Where a step fails all earlier ones are undone, and the pages given back.
    pub(super) fn prepare(
        &self,
        source: &dyn PageSource,
        run: PhysRange,
        (state, convert): (State, bool),
        options: AllocOptions,
    ) -> Result<(CpuView, usize, Option<Pin>), Refuse> {
        let context = options.context;
        let Ok(len) = usize::try_from(run.len()) else {
            // SAFETY: nobody used it.
            unsafe { source.free(run, context) };
            return Err(Refuse::OutOfPages);
        };
        if convert {
            // SAFETY: the pages are ours by the contract of `PageSource`.
            if let Err(failed) = unsafe { self.dma().lend(run, state) } {
                free_except(source, run, &failed.lost, context); // sabotage: doubtful-pages-reused
                return Err(Refuse::ConversionFailed);
            }
        }
        // The device is to have it: it stays in this state until it is freed. An error says that
        // the books know it as something else.
        let pin = match self.dma().ledger().pin_state(run, state) {
            Ok(pin) => pin,
            Err(conflict) => {
                self.undo(source, run, convert.then_some(state), context);
                return Err(conflict.refusal());
            }
        };
        // SAFETY: the pages are ours and in this state; the view ends before that changes.
        let view = unsafe { self.platform().map_cpu(run, state, options.cache, options.context) };
        let Ok(view) = view else {
            if let Some(pin) = pin {
                self.dma().ledger().unpin(pin);
            }
            self.undo(source, run, convert.then_some(state), context);
            return Err(Refuse::NoView);
        };
        if !convert {
            // SAFETY: a view is writable for the whole run.
            unsafe { zero(view.start.as_ptr(), len) };
        }
        Ok((view, len, pin))
    }

    /// Takes an allocation apart again; `lent` is the state that it was converted to, if it was.
    ///
    /// # Safety
    ///
    /// `view` is the view of `run` that `alloc_pages` made, and nobody uses it any more.
    pub(super) unsafe fn free_pages(
        &self,
        (view, len): (CpuView, usize),
        run: PhysRange,
        lent: Option<State>,
        pin: Option<Pin>,
    ) {
        if lent.is_none() {
            // Through the view that is there: to make one may block.
            // SAFETY: it is writable until it ends.
            unsafe { zero(view.start.as_ptr(), len) };
        }
        // SAFETY: this function's condition.
        unsafe { self.platform().unmap_cpu(view, run) };
        if let Some(pin) = pin {
            self.dma().ledger().unpin(pin);
        }
        // What converts back is freed in blocking context alone; of the rest nobody says.
        let context = if lent.is_some() { Context::Blocking } else { Context::Atomic };
        if let Some(source) = self.dma().pages() {
            self.undo(source, run, lent, context);
        }
    }

    /// Gives pages back as they came, from the state that they were converted to (none: they were
    /// not), without what does not come back.
    fn undo(&self, source: &dyn PageSource, run: PhysRange, lent: Option<State>, context: Context) {
        // sabotage: stays-converted
        let lost = if let Some(state) = lent {
            // SAFETY: the pages are ours, and the device has stopped or never had them.
            unsafe { self.dma().take_back_or_lose(run, state) }
        } else {
            0..0
        };
        free_except(source, run, &lost, context);
    }
}

/// Gives back all of a run but for a part: what the allocation is, or what was lost. (What that is, is
/// what the conversion said; the books may have moved on since.)
fn free_except(source: &dyn PageSource, run: PhysRange, part: &Range<u64>, context: Context) {
    let before = run.slice(0, part.start);
    let after = run.slice(part.end, run.len() - part.end);
    for part in before.into_iter().chain(after) {
        // SAFETY: the part is private again or was never converted, and nobody uses it.
        unsafe { source.free(part, context) };
    }
}
