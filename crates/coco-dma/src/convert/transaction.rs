//! The transaction itself.
// UNSAFETY: memory is wiped through raw views and handed to the platform.
#![expect(unsafe_code)]

use super::ConvertFailed;
use super::Why;
use crate::addr::PhysRange;
use crate::copy::zero;
use crate::dma::Dma;
use crate::ledger::Conversion;
use crate::observe::Event;
use crate::platform::ConvertError;
use crate::platform::Platform;
use crate::regime::Contents;
use crate::regime::Regime;
use crate::state::Context;
use crate::state::State;
use crate::state::Visibility;

impl<P: Platform + ?Sized> Dma<'_, P> {
    /// Shares private memory with the host: whole granules, in one go or not at all. The memory is
    /// zero afterwards, and no byte that was in it before can be seen by anybody. Blocks.
    ///
    /// A failure in the middle is undone: what could be brought back is private and zero, what
    /// could not is in quarantine.
    ///
    /// # Safety
    ///
    /// The caller owns the memory: nobody else uses it, no reference points into it, and its
    /// contents are not needed any more.
    pub unsafe fn share(&self, run: PhysRange) -> Result<(), ConvertFailed> {
        let failed =
            |why| ConvertFailed { run, to: Visibility::Shared, why, converted: 0, quarantined: 0 };
        self.check_quarantine().map_err(failed)?;
        let conversion = self
            .ledger()
            .begin(run, Visibility::Private)
            .map_err(|conflict| failed(Why::Ledger(conflict)))?;
        if self.keeps_contents_on_share() && !self.wipe(run, State::PRIVATE) {
            self.ledger().settle(conversion, 0, 0, Visibility::Shared);
            return Err(failed(Why::NoView));
        }
        // SAFETY: the run is the caller's alone by this function's condition, and the ledger's
        // answer says that no device has it mapped.
        let why = match unsafe { self.platform().convert(run, Visibility::Shared) } {
            Ok(()) if self.wipe(run, State::SHARED) => {
                self.ledger().settle(conversion, run.len(), 0, Visibility::Shared);
                self.tell(&Event::Converted { run, to: Visibility::Shared });
                return Ok(());
            }
            Ok(()) => (Why::NoView, run.len(), 0),
            Err(error) => {
                let (done, doubt) = believed(run, error);
                (Why::Platform(error), done, doubt)
            }
        };
        Err(self.undo_share(conversion, why))
    }

    /// Takes shared memory back from the host: whole granules. The memory is private and zero
    /// afterwards. Blocks.
    ///
    /// A failure in the middle keeps what it has: `converted` bytes from the start are private,
    /// `quarantined` bytes after them are in doubt, the rest is shared as before.
    ///
    /// # Safety
    ///
    /// The caller owns the memory, no device uses it, no reference points into it, and its
    /// contents are not needed any more.
    pub unsafe fn reclaim(&self, run: PhysRange) -> Result<(), ConvertFailed> {
        let to = Visibility::Private;
        let failed = |why| ConvertFailed { run, to, why, converted: 0, quarantined: 0 };
        if !self.regime().is_guest() {
            return Err(failed(Why::NoGuest));
        }
        let conversion = self
            .ledger()
            .begin(run, Visibility::Shared)
            .map_err(|conflict| failed(Why::Ledger(conflict)))?;
        // SAFETY: this function's condition; the ledger's answer says that nothing is pinned.
        let (why, done, doubt) = match unsafe { self.platform().convert(run, to) } {
            Ok(()) => (None, run.len(), 0),
            Err(error) => {
                let (done, doubt) = believed(run, error);
                (Some(Why::Platform(error)), done, doubt)
            }
        };
        // What the host could write last is gone before anybody uses the memory again.
        let usable = match run.slice(0, done) {
            Some(part) if self.wipe(part, State::PRIVATE) => done,
            _ => 0,
        };
        let doubt = doubt + (done - usable);
        let why = why.or((usable < run.len()).then_some(Why::NoView));
        let settled = self.ledger().settle(conversion, usable, doubt, to);
        let Some(why) = why else {
            self.tell(&Event::Converted { run, to });
            return Ok(());
        };
        let quarantined = settled.doubt;
        self.tell(&Event::ConversionFailed { run, to, quarantined, code: code(&why) });
        Err(ConvertFailed { run, to, why, converted: settled.done, quarantined })
    }

    /// Brings what a failed share did back to private, and settles the books.
    fn undo_share(
        &self,
        conversion: Conversion,
        (why, done, doubt): (Why, u64, u64),
    ) -> ConvertFailed {
        let run = conversion.run();
        let back = match run.slice(0, done) {
            None => 0,
            Some(part) => {
                // SAFETY: the run is still the conversion's alone.
                let undone = match unsafe { self.platform().convert(part, Visibility::Private) } {
                    Ok(()) => done,
                    Err(error) => believed(part, error).0,
                };
                match run.slice(0, undone) {
                    Some(part) if self.wipe(part, State::PRIVATE) => undone,
                    _ => 0,
                }
            }
        };
        // `back` bytes are private again; what lies between them and the unchanged rest is in
        // doubt.
        let lost = done - back + doubt;
        let settled = self.ledger().settle(conversion, back, lost, Visibility::Private);
        let (to, quarantined) = (Visibility::Shared, settled.doubt);
        self.tell(&Event::ConversionFailed { run, to, quarantined, code: code(&why) });
        ConvertFailed { run, to, why, converted: 0, quarantined }
    }

    /// Zeroes memory through a view in its state; false where there is none.
    pub(crate) fn wipe(&self, run: PhysRange, state: State) -> bool {
        let Ok(len) = usize::try_from(run.len()) else { return false };
        // SAFETY: the memory is in this state (the callers convert it), and the view ends before
        // it changes.
        let Ok(start) = (unsafe { self.platform().view(run, state, Context::Blocking) }) else {
            return false;
        };
        // SAFETY: a view is writable for the whole run.
        unsafe { zero(start.as_ptr(), len) };
        // SAFETY: the view is this one's, and it is not used any more.
        unsafe { self.platform().unview(start, run) };
        true
    }

    /// Whether more memory may be put at risk.
    pub(super) fn check_quarantine(&self) -> Result<(), Why> {
        if !self.regime().is_guest() {
            return Err(Why::NoGuest);
        }
        let (held, limit) = (self.ledger().quarantined(), self.quarantine_limit());
        if held > limit { Err(Why::QuarantineFull { held, limit }) } else { Ok(()) }
    }

    /// Whether sharing leaves the old bytes readable for the host. Where nobody knows, it may.
    fn keeps_contents_on_share(&self) -> bool {
        match self.regime() {
            Regime::Guest(guest) => guest.on_share != Contents::Zeroed,
            _ => false,
        }
    }
}

/// What a platform's error says, as far as it can be: more than all is nothing that it knows.
pub(super) fn believed(run: PhysRange, error: ConvertError) -> (u64, u64) {
    match error.done.checked_add(error.doubt) {
        Some(touched) if touched <= run.len() => (error.done, error.doubt),
        _ => (0, run.len()),
    }
}

/// The platform's own code, or 0.
pub(super) fn code(why: &Why) -> u64 {
    match why {
        Why::Platform(error) => error.code,
        _ => 0,
    }
}
