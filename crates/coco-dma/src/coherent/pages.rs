//! Allocations from pages of our own: converted where the device needs it, and taken back step by
//! step where a later step fails.
// UNSAFETY: pages change hands between their owner, the host and the device.
#![expect(unsafe_code)]

use core::ptr::NonNull;

use super::raw::PAGE;
use super::raw::RawCoherent;
use super::raw::Source;
use crate::addr::DmaAddr;
use crate::addr::PhysAddr;
use crate::addr::PhysRange;
use crate::device::Device;
use crate::ledger::GranuleState;
use crate::ledger::Seen;
use crate::plan::OwnPages;
use crate::platform::PageSource;
use crate::platform::Platform;
use crate::state::Context;
use crate::state::State;

impl<P: Platform + ?Sized> Device<'_, P> {
    /// `len` bytes of our own pages as `plan` wants them; `None` where a step fails, with all
    /// earlier ones undone.
    pub(super) fn take_pages(
        &self,
        pages: OwnPages,
        len: u64,
        context: Context,
    ) -> Option<RawCoherent> {
        let source = self.dma().pages()?;
        let regime = self.regime();
        let page = PAGE.max(self.iommu_page());
        let unit = if pages.convert { regime.granule().max(page) } else { page };
        let whole = len.checked_next_multiple_of(unit)?;
        let last = self.last_page(pages.state)?;
        let run = source.take(whole, unit, PhysAddr::new(last), context)?;
        // Everything that can be known before is asked before anything is converted.
        let reach = self.reached(run, pages.state).filter(|_| run.len() == whole);
        let (Some(reach), Ok(size)) = (reach, usize::try_from(whole)) else {
            // SAFETY: nobody used it.
            unsafe { source.give(run) };
            return None;
        };
        if pages.convert {
            // SAFETY: the pages are ours by the contract of `PageSource`.
            if unsafe { self.dma().share(run) }.is_err() {
                self.give_private(source, run);
                return None;
            }
        } else if !self.dma().wipe(run, pages.state) {
            // SAFETY: nobody used it.
            unsafe { source.give(run) };
            return None;
        }
        // SAFETY: the pages are ours and in this state; the view ends before that changes.
        let view = unsafe { self.platform().view(run, pages.state, context) };
        let found = view.ok().and_then(|start| {
            let bytes = NonNull::slice_from_raw_parts(start, size);
            let given = match reach {
                Reach::Addr(addr) => Ok((addr, None)),
                // SAFETY: the pages are ours, and nothing changes their state before they are
                // unmapped.
                Reach::Domain => unsafe { self.expose_pages(run, bytes, pages.state) },
            };
            if given.is_err() {
                // SAFETY: the view was made above, and nobody uses it.
                unsafe { self.platform().unview(start, run) };
            }
            Some((start, given.ok()?))
        });
        let Some((start, (addr, mapped))) = found else {
            if pages.convert {
                // SAFETY: no device was given the address.
                let _ = unsafe { self.dma().reclaim(run) };
            }
            self.give_private(source, run);
            return None;
        };
        Some(RawCoherent {
            owner: self.owner(),
            addr,
            start,
            len: size,
            source: Source::Pages { run, state: pages.state, converted: pages.convert },
            mapped,
        })
    }

    /// Takes an allocation apart again.
    ///
    /// # Safety
    ///
    /// `start` is the view of `run` that `take_pages` made, and nobody uses it any more.
    pub(super) unsafe fn give_pages(
        &self,
        start: NonNull<u8>,
        run: PhysRange,
        state: State,
        converted: bool,
    ) {
        // SAFETY: this function's condition.
        unsafe { self.platform().unview(start, run) };
        if converted {
            // What does not come back stays shared or goes to quarantine; only what is private
            // again is given back below.
            // SAFETY: the pages are ours, and the device has stopped.
            let _ = unsafe { self.dma().reclaim(run) };
        } else {
            self.dma().wipe(run, state);
        }
        if let Some(source) = self.dma().pages() {
            self.give_private(source, run);
        }
    }

    /// Gives the parts of a run back that are surely as the source gave them. The rest is lost:
    /// in quarantine, or shared still because the host refuses to give it back.
    fn give_private(&self, source: &dyn PageSource, run: PhysRange) {
        let granule = self.regime().granule();
        let usable = |part: PhysRange| {
            !matches!(
                self.dma().ledger().peek(part),
                Seen::Uniform(
                    GranuleState::Shared | GranuleState::Quarantined | GranuleState::Converting
                )
            )
        };
        if !self.regime().is_guest() {
            // SAFETY: nobody uses it any more.
            return unsafe { source.give(run) };
        }
        // Whole stretches at a time: most often that is all of it.
        let (mut from, mut at) = (0, 0);
        while at < run.len() {
            let step = granule.min(run.len() - at);
            let good = run.slice(at, step).is_some_and(usable);
            if !good {
                if let Some(part) = run.slice(from, at - from) {
                    // SAFETY: as above.
                    unsafe { source.give(part) };
                }
                from = at + step;
            }
            at += step;
        }
        if let Some(part) = run.slice(from, at.saturating_sub(from)) {
            // SAFETY: as above.
            unsafe { source.give(part) };
        }
    }

    /// The last address of memory that the device can be given in this state.
    fn last_page(&self, state: State) -> Option<u64> {
        let (face, regime) = (self.face(), self.regime());
        let most = regime.memory_limit().raw();
        if face.attachment.is_translated() {
            return Some(most);
        }
        let mark = regime.dma_mark(face.trust, state)?;
        Some(face.limit().raw().checked_sub(mark)?.min(most))
    }

    /// How the device gets at `run`, if it reaches all of it in this state.
    fn reached(&self, run: PhysRange, state: State) -> Option<Reach> {
        let face = self.face();
        if face.attachment.is_translated() {
            return Some(Reach::Domain);
        }
        let bus = face.bus.to_bus(run)?;
        let addr = self.regime().dma_form(face.trust, state, bus)?;
        let last = addr.checked_add(run.len() - 1)?;
        (last.raw() <= face.limit().raw()).then_some(Reach::Addr(addr))
    }
}

/// How a device gets at memory.
#[derive(Clone, Copy)]
enum Reach {
    /// At this address.
    Addr(DmaAddr),
    /// At an address of its domain.
    Domain,
}
