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
use crate::ledger::GranuleState;
use crate::observe::Event;
use crate::platform::ConvertError;
use crate::platform::Platform;
use crate::pool::Pool;
use crate::regime::Contents;
use crate::regime::Regime;
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
        // SAFETY: this function's condition.
        unsafe { self.try_share(run) }.map_err(|(failed, _)| failed)
    }

    /// The same; a failure also says which bytes of the run are lost to quarantine. The others
    /// are private, as before.
    ///
    /// # Safety
    ///
    /// As for [`share`](Self::share).
    pub(crate) unsafe fn try_share(
        &self,
        run: PhysRange,
    ) -> Result<(), (ConvertFailed, Range<u64>)> {
        let to = Visibility::Shared;
        let failed = |why| (ConvertFailed { run, to, why, converted: 0, quarantined: 0 }, 0..0);
        self.check_run(run, GranuleState::Private).map_err(failed)?;
        self.check_quarantine(run).map_err(failed)?;
        let conversion = self
            .ledger()
            .begin(run, Visibility::Private)
            .map_err(|conflict| failed(ConvertErrorKind::Ledger(conflict)))?;
        if !self.may_share() {
            self.ledger().settle(conversion, 0, 0, to);
            return Err(failed(ConvertErrorKind::Stopped));
        }
        // sabotage: share-without-wipe
        if self.keeps_contents_on_share() && !self.wipe(run, State::PRIVATE) {
            self.ledger().settle(conversion, 0, 0, to);
            return Err(failed(ConvertErrorKind::NoView));
        }
        // SAFETY: the run is the caller's alone by this function's condition, and the ledger's
        // answer says that no device has it mapped.
        let why = match unsafe { self.convert_run(run, State::PRIVATE, State::SHARED) } {
            // sabotage: share-without-init
            Ok(()) if self.wipe(run, State::SHARED) => {
                self.ledger().settle(conversion, run.len(), 0, to);
                self.notify(&Event::Converted { run, to });
                return Ok(());
            }
            Ok(()) => (ConvertErrorKind::NoView, run.len(), 0),
            Err((error, done, doubt)) => (ConvertErrorKind::Platform(error), done, doubt),
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
        // SAFETY: this function's condition.
        unsafe { self.reclaim_part(run, Rest::Stays) }
    }

    /// Takes memory back that nobody answers for afterwards; says which bytes of it did not come.
    /// They are in quarantine, those included that the host refused to touch: nobody is left who
    /// could ask again. (Only memory that the ledger does not let go of, because a map of it still
    /// lives, stays as it is.)
    ///
    /// # Safety
    ///
    /// As for [`reclaim`](Self::reclaim).
    pub(crate) unsafe fn reclaim_or_lose(&self, run: PhysRange) -> Range<u64> {
        // SAFETY: this function's condition.
        match unsafe { self.reclaim_part(run, Rest::Lost) } {
            Ok(()) => 0..0,
            Err(failed) => failed.converted..run.len(),
        }
    }

    /// # Safety
    ///
    /// As for [`reclaim`](Self::reclaim).
    unsafe fn reclaim_part(&self, run: PhysRange, rest: Rest) -> Result<(), ConvertFailed> {
        let to = Visibility::Private;
        let failed = |why| ConvertFailed { run, to, why, converted: 0, quarantined: 0 };
        self.check_run(run, GranuleState::Shared).map_err(failed)?;
        let conversion = self
            .ledger()
            .begin(run, Visibility::Shared)
            .map_err(|conflict| failed(ConvertErrorKind::Ledger(conflict)))?;
        // SAFETY: this function's condition; the ledger's answer says that nothing is pinned.
        let converted = unsafe { self.convert_run(run, State::SHARED, State::PRIVATE) };
        let (why, done, doubt) = match converted {
            Ok(()) => (None, run.len(), 0),
            Err((error, done, doubt)) => (Some(ConvertErrorKind::Platform(error)), done, doubt),
        };
        // What the host could write last is gone before anybody uses the memory again.
        let usable = match run.slice(0, done) {
            Some(part) if self.wipe(part, State::PRIVATE) => done, // sabotage: reclaim-not-wiped
            _ => 0,
        };
        let doubt = match rest {
            Rest::Stays => doubt + (done - usable),
            Rest::Lost => run.len() - usable,
        };
        let why = why.or((usable < run.len()).then_some(ConvertErrorKind::NoView));
        let settled = self.ledger().settle(conversion, usable, doubt, to);
        let Some(why) = why else {
            self.notify(&Event::Converted { run, to });
            return Ok(());
        };
        let quarantined = settled.doubt;
        self.notify(&Event::ConversionFailed { run, to, quarantined, code: code(&why) });
        Err(ConvertFailed { run, to, why, converted: settled.done, quarantined })
    }

    /// Brings what a failed share did back to private, and settles the books.
    fn undo_share(
        &self,
        conversion: Conversion,
        (why, done, doubt): (ConvertErrorKind, u64, u64),
    ) -> (ConvertFailed, Range<u64>) {
        let run = conversion.run();
        let back = match run.slice(0, done) {
            None => 0,
            Some(part) => {
                let (from, to) = (State::SHARED, State::PRIVATE); // sabotage: share-not-undone
                // SAFETY: the run is still the conversion's alone.
                let undone = match unsafe { self.convert_run(part, from, to) } {
                    Ok(()) => done,
                    Err((_, undone, _)) => undone,
                };
                match run.slice(0, undone) {
                    Some(part) if self.wipe(part, State::PRIVATE) => undone,
                    _ => 0,
                }
            }
        };
        // `back` bytes are private again; what lies between them and the unchanged rest is in
        // doubt.
        let lost = done - back + doubt; // sabotage: doubt-unchanged
        let settled = self.ledger().settle(conversion, back, lost, Visibility::Private);
        let (to, quarantined) = (Visibility::Shared, settled.doubt);
        self.notify(&Event::ConversionFailed { run, to, quarantined, code: code(&why) });
        let failed = ConvertFailed { run, to, why, converted: 0, quarantined };
        (failed, settled.done..settled.done + quarantined)
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

    /// Whether memory converts here at all, whether this is made of what converts, and whether no
    /// pool is in use over it. (The ledger's granules may be smaller than the machine's, and the
    /// memory of a pool that was adopted may be called something else there.)
    fn check_run(&self, run: PhysRange, wanted: GranuleState) -> Result<(), ConvertErrorKind> {
        if !self.regime().is_guest() {
            return Err(ConvertErrorKind::NoGuest);
        }
        let granule = self.regime().granule();
        if !run.is_aligned(granule) {
            let found = Found::Misaligned { granule };
            return Err(ConvertErrorKind::Ledger(Conflict { run, wanted, at: run.base(), found }));
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

    /// Whether sharing leaves the old bytes readable for the host. Where nobody knows, it may.
    fn keeps_contents_on_share(&self) -> bool {
        match self.regime() {
            Regime::Guest(guest) => guest.on_share != Contents::Zeroed,
            _ => false,
        }
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
