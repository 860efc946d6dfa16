//! The transaction itself.
// UNSAFETY: memory is wiped through raw views and handed to the platform.
#![expect(unsafe_code)]

use core::ops::Range;

use super::ConvertErrorKind;
use super::ConvertFailed;
use crate::addr::PhysRange;
use crate::copy::zero;
use crate::dma::Dma;
use crate::ledger::Conflict;
use crate::ledger::Conversion;
use crate::ledger::Found;
use crate::observe::Event;
use crate::plan;
use crate::platform::ConvertError;
use crate::platform::Platform;
use crate::pool::Pool;
use crate::state::CacheMode;
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
        let to = Visibility::Shared;
        self.visibility_converts(run, to)?;
        // SAFETY: this function's condition.
        unsafe { self.lend(run, State::SHARED) }.map_err(|failed| failed.told(run, to))
    }

    /// Brings memory that is the caller's into the state in which it is `lent` to devices: shared in
    /// a guest, plain on an SME host. A failure also says which bytes of the run are lost to
    /// quarantine; the others are as before.
    ///
    /// # Safety
    ///
    /// As for [`share`](Self::share).
    pub(crate) unsafe fn lend(&self, run: PhysRange, lent: State) -> Result<(), NotConverted> {
        let own = plan::restored(lent);
        self.check_run(run, own)?;
        self.check_quarantine(run)?;
        let conversion = self.ledger().begin_state(run, own)?;
        if lent == State::SHARED && !self.may_share() {
            self.ledger().settle_state(conversion, 0, 0, lent);
            return Err(ConvertErrorKind::Stopped.into());
        }
        // sabotage: share-without-wipe
        if plan::keeps_contents(self.regime(), lent) && !self.wipe(run, own) {
            self.ledger().settle_state(conversion, 0, 0, lent);
            return Err(ConvertErrorKind::NoView.into());
        }
        // SAFETY: the run is the caller's alone by this function's condition, and the ledger's
        // answer says that no device has it mapped.
        let why = match unsafe { self.convert_run(run, own, lent) } {
            // sabotage: share-without-init
            Ok(()) if self.wipe(run, lent) => {
                self.ledger().settle_state(conversion, run.len(), 0, lent);
                self.notify_converted(run, lent);
                return Ok(());
            }
            Ok(()) => (ConvertErrorKind::NoView, run.len(), 0),
            Err((error, done, doubt)) => (ConvertErrorKind::Platform(error), done, doubt),
        };
        Err(self.undo_lend(conversion, (own, lent), why))
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
        self.visibility_converts(run, to)?;
        // SAFETY: this function's condition.
        let done = unsafe { self.take_back(run, State::SHARED, Rest::Stays) };
        done.map_err(|failed| failed.told(run, to))
    }

    /// Takes memory back that nobody answers for afterwards, from the state in which it was `lent`;
    /// says which bytes of it did not come. They are in quarantine, those included that the host
    /// refused to touch: nobody is left who could ask again. (Only memory that the ledger does not
    /// let go of, because a map of it still lives, stays as it is.)
    ///
    /// # Safety
    ///
    /// As for [`reclaim`](Self::reclaim).
    pub(crate) unsafe fn take_back_or_lose(&self, run: PhysRange, lent: State) -> Range<u64> {
        // SAFETY: this function's condition.
        match unsafe { self.take_back(run, lent, Rest::Lost) } {
            Ok(()) => 0..0,
            Err(failed) => failed.converted..run.len(),
        }
    }

    /// # Safety
    ///
    /// As for [`reclaim`](Self::reclaim).
    unsafe fn take_back(
        &self,
        run: PhysRange,
        lent: State,
        rest: Rest,
    ) -> Result<(), NotConverted> {
        let own = plan::restored(lent);
        self.check_run(run, lent)?;
        let conversion = self.ledger().begin_state(run, lent)?;
        // SAFETY: this function's condition; the ledger's answer says that nothing is pinned.
        let converted = unsafe { self.convert_run(run, lent, own) };
        let (why, done, doubt) = match converted {
            Ok(()) => (None, run.len(), 0),
            Err((error, done, doubt)) => (Some(ConvertErrorKind::Platform(error)), done, doubt),
        };
        // What the host could write last is gone before anybody uses the memory again.
        let usable = match run.slice(0, done) {
            Some(part) if self.wipe(part, own) => done, // sabotage: reclaim-not-wiped
            _ => 0,
        };
        let doubt = match rest {
            Rest::Stays => doubt + (done - usable),
            Rest::Lost => run.len() - usable,
        };
        let why = why.or((usable < run.len()).then_some(ConvertErrorKind::NoView));
        let settled = self.ledger().settle_state(conversion, usable, doubt, own);
        let Some(why) = why else {
            self.notify_converted(run, own);
            return Ok(());
        };
        let (converted, quarantined) = (settled.done, settled.doubt);
        self.notify_failed(run, own, quarantined, &why);
        Err(NotConverted { why, converted, quarantined, lost: converted..converted + quarantined })
    }

    /// Brings back what a failed [`lend`](Self::lend) did, and settles the books.
    fn undo_lend(
        &self,
        conversion: Conversion,
        (own, lent): (State, State),
        (why, done, doubt): (ConvertErrorKind, u64, u64),
    ) -> NotConverted {
        let run = conversion.run();
        let back = match run.slice(0, done) {
            None => 0,
            Some(part) => {
                let (from, to) = (lent, own); // sabotage: share-not-undone
                // SAFETY: the run is still the conversion's alone.
                let undone = match unsafe { self.convert_run(part, from, to) } {
                    Ok(()) => done,
                    Err((_, undone, _)) => undone,
                };
                match run.slice(0, undone) {
                    Some(part) if self.wipe(part, own) => undone,
                    _ => 0,
                }
            }
        };
        // `back` bytes are as they were again; what lies between them and the unchanged rest is in
        // doubt.
        let lost = done - back + doubt; // sabotage: doubt-unchanged
        let settled = self.ledger().settle_state(conversion, back, lost, own);
        let quarantined = settled.doubt;
        self.notify_failed(run, lent, quarantined, &why);
        let lost = settled.done..settled.done + quarantined;
        NotConverted { why, converted: 0, quarantined, lost }
    }

    /// Tells that a run is in state `to` now: who may see it, or how it is stored.
    fn notify_converted(&self, run: PhysRange, to: State) {
        match to {
            State::Ordinary => {}
            State::Guest(to) => self.notify(&Event::Converted { run, to }),
            State::Host(to) => self.notify(&Event::CipherChanged { run, to }),
        }
    }

    fn notify_failed(&self, run: PhysRange, to: State, quarantined: u64, why: &ConvertErrorKind) {
        let code = code(why);
        match to {
            State::Ordinary => {}
            State::Guest(to) => {
                self.notify(&Event::ConversionFailed { run, to, quarantined, code });
            }
            State::Host(to) => self.notify(&Event::CipherFailed { run, to, quarantined, code }),
        }
    }

    /// Asks the platform to convert a run: once for each range of the ledger that it lies in, since
    /// those are memory of its own to whoever made them two, and no further than the first that
    /// fails. An error has the bytes that are done from the start of the run, and those in doubt
    /// after them.
    ///
    /// # Safety
    ///
    /// As for [`Platform::convert`].
    unsafe fn convert_run(
        &self,
        run: PhysRange,
        from: State,
        to: State,
    ) -> Result<(), (ConvertError, u64, u64)> {
        let mut before = 0;
        for piece in self.ledger().pieces(run) {
            // SAFETY: this function's condition, of a part of it.
            if let Err(error) = unsafe { self.platform().convert(piece, from, to) } {
                let (done, doubt) = self.believed(piece, error);
                return Err((error, before + done, doubt));
            }
            before += piece.len(); // sabotage: border-undone-in-part
        }
        Ok(())
    }

    /// Zeroes memory, range by range; false where there is no view of a part of it.
    pub(crate) fn wipe(&self, run: PhysRange, state: State) -> bool {
        self.ledger().pieces(run).all(|piece| self.wipe_piece(piece, state))
    }

    /// Zeroes memory through a view in its state; false where there is none. The view is cached:
    /// whoever sees the memory otherwise next has it out of the caches first, and what is converted
    /// is out of them by the platform's doing.
    fn wipe_piece(&self, run: PhysRange, state: State) -> bool {
        let Ok(len) = usize::try_from(run.len()) else { return false };
        let cache = CacheMode::WriteBack;
        // SAFETY: the memory is in this state (the callers convert it), and the view ends before
        // it changes.
        let view = unsafe { self.platform().map_cpu(run, state, cache, Context::Blocking) };
        let Ok(view) = view else { return false };
        // SAFETY: a view is writable for the whole run.
        unsafe { zero(view.start.as_ptr(), len) };
        // SAFETY: the view is this one's, and it is not used any more.
        unsafe { self.platform().unmap_cpu(view, run) };
        true
    }

    /// Whether who may see memory changes on this machine.
    fn visibility_converts(&self, run: PhysRange, to: Visibility) -> Result<(), ConvertFailed> {
        if plan::converts_visibility(self.regime()) {
            return Ok(());
        }
        Err(NotConverted::from(ConvertErrorKind::NoGuest).told(run, to))
    }

    /// Whether this is made of what converts, and whether no pool is in use over it. (The ledger's
    /// granules may be smaller than the machine's, and the memory of a pool that was adopted may be
    /// called something else there.)
    fn check_run(&self, run: PhysRange, wanted: State) -> Result<(), ConvertErrorKind> {
        let granule = self.regime().granule();
        if !run.is_aligned(granule) {
            let found = Found::Misaligned { granule };
            let conflict = Conflict { run, wanted: wanted.into(), at: run.base(), found };
            return Err(ConvertErrorKind::Ledger(conflict));
        }
        // sabotage: pool-in-use-converted
        let in_use = |pool: &&Pool<'_>| pool.is_open() && pool.range().overlaps(run);
        match self.pools().iter().find(in_use) {
            Some(pool) => Err(ConvertErrorKind::Pool(pool.range())),
            None => Ok(()),
        }
    }

    /// Whether the run may be put at risk: all of it could end in quarantine.
    fn check_quarantine(&self, run: PhysRange) -> Result<(), ConvertErrorKind> {
        let (held, limit) = (self.ledger().quarantined(), self.quarantine_limit());
        if held.saturating_add(run.len()) > limit {
            Err(ConvertErrorKind::QuarantineFull { held, limit })
        } else {
            Ok(())
        }
    }

    /// What a platform's error says, in whole granules: one that is partly done is in doubt, and
    /// an answer that is longer than the run says nothing.
    pub(super) fn believed(&self, run: PhysRange, error: ConvertError) -> (u64, u64) {
        let granule = self.regime().granule();
        let touched = error.done.checked_add(error.doubt).filter(|touched| *touched <= run.len());
        let known = touched.and_then(|touched| touched.checked_next_multiple_of(granule));
        match known {
            // The run is made of whole granules, so that what is rounded up still lies in it.
            Some(known) => {
                let done = error.done - error.done.checked_rem(granule).unwrap_or(0);
                (done, known.min(run.len()) - done)
            }
            None => (0, run.len()), // sabotage: overclaim-believed
        }
    }
}

/// A conversion that failed, whatever was converted to what.
pub(crate) struct NotConverted {
    why: ConvertErrorKind,
    converted: u64,
    quarantined: u64,
    /// The bytes of the run that are in quarantine.
    pub(crate) lost: Range<u64>,
}

impl NotConverted {
    fn told(self, run: PhysRange, to: Visibility) -> ConvertFailed {
        let Self { why, converted, quarantined, lost: _ } = self;
        ConvertFailed { run, to, why, converted, quarantined }
    }
}

impl From<ConvertErrorKind> for NotConverted {
    /// Nothing was done.
    fn from(why: ConvertErrorKind) -> Self {
        Self { why, converted: 0, quarantined: 0, lost: 0..0 }
    }
}

impl From<Conflict> for NotConverted {
    fn from(conflict: Conflict) -> Self {
        ConvertErrorKind::Ledger(conflict).into()
    }
}

/// What becomes of memory that a conversion did not touch.
#[derive(Clone, Copy)]
enum Rest {
    /// It stays shared: its owner may ask again.
    Stays,
    /// Quarantine: it has no owner who could.
    Lost,
}

/// The platform's own code, or 0.
fn code(why: &ConvertErrorKind) -> u64 {
    match why {
        ConvertErrorKind::Platform(error) => error.code,
        _ => 0,
    }
}
