//! Conversions in the books: begun all or none, settled by what the platform answered.

use core::fmt;

use super::Conflict;
use super::Found;
use super::GranuleState;
use super::Initial;
use super::Ledger;
use super::Place;
use super::RangeState;
use super::Tracked;
use super::entry::Entry;
use super::granules::Granules;
use super::parts;
use crate::addr::PhysRange;
use crate::state::Cipher;
use crate::state::State;
use crate::state::Visibility;
use crate::word::Ordering;

/// Memory that is being converted and belongs to whoever holds this. Not `Copy`; one that is
/// never settled leaves the memory out of use for ever.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "memory whose conversion is not settled stays out of use"]
pub struct Conversion {
    run: PhysRange,
    from: GranuleState,
}

impl Conversion {
    /// The run, made of whole granules.
    pub fn run(&self) -> PhysRange {
        self.run
    }

    /// The state in which all of it was.
    pub fn from(&self) -> GranuleState {
        self.from
    }
}

impl fmt::Display for Conversion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} converting, {} before", self.run, self.from)
    }
}

/// What became of a conversion, in bytes of whole granules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settled {
    /// Now in the new state, from the start of the run.
    pub done: u64,
    /// In quarantine after those, because nobody knows their state.
    pub doubt: u64,
    /// As before, up to the end of the run.
    pub unchanged: u64,
}

impl fmt::Display for Settled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { done, doubt, unchanged } = self;
        write!(f, "{done:#x} bytes done, {doubt:#x} in quarantine, {unchanged:#x} unchanged")
    }
}

impl<'m> Ledger<'m> {
    /// Takes a run of whole granules, all in state `from` and unpinned, for a conversion.
    ///
    /// Errors name the first granule that is in another state or pinned; a run that is not made
    /// of whole granules is one, and so is memory that is foreign or untracked, for which the
    /// ledger cannot vouch. A pin or another conversion that is about to give up may be in the
    /// way for a moment; of several that are in each other's way one always gets on.
    ///
    /// Any context; never waits. (The conversion itself is for blocking context only.)
    pub fn begin(&self, run: PhysRange, from: Visibility) -> Result<Conversion, Conflict> {
        self.begin_from(run, from.into())
    }

    /// The same for any state that converts, of a guest or of an SME host.
    pub(crate) fn begin_state(&self, run: PhysRange, from: State) -> Result<Conversion, Conflict> {
        self.begin_from(run, from.into())
    }

    /// Takes memory that was never accepted, in order to accept it; otherwise as
    /// [`begin`](Self::begin).
    pub fn begin_accept(&self, run: PhysRange) -> Result<Conversion, Conflict> {
        self.begin_from(run, GranuleState::Unaccepted)
    }

    /// Takes memory in quarantine, in order to try its conversion again; otherwise as
    /// [`begin`](Self::begin). It counts as quarantined until it is settled, and what is not
    /// surely done then stays so.
    pub fn begin_retry(&self, run: PhysRange) -> Result<Conversion, Conflict> {
        self.begin_from(run, GranuleState::Quarantined)
    }

    /// Ends a conversion with what the platform answered: the first `done` bytes are `to`, of the
    /// next `doubt` bytes nobody knows, the rest is unchanged. `done` as long as the run is
    /// success.
    ///
    /// A granule that is only partly done, or partly in doubt, is in doubt. An answer that cannot
    /// be is not believed: doubt beyond the end goes to the end, and where more is done than was
    /// asked for, all is in doubt. (The numbers are those of
    /// [`ConvertError`](crate::platform::ConvertError).)
    ///
    /// The caller has done to the memory whatever must come first (initialised it, say): whoever
    /// pins or converts it next sees that. Any context; never waits. The conversion has to be one
    /// of this ledger; another one's changes nothing that is not being converted here.
    pub fn settle(&self, conversion: Conversion, done: u64, doubt: u64, to: Visibility) -> Settled {
        self.settle_as(conversion, done, doubt, to.into())
    }

    /// The same for any state that converts.
    pub(crate) fn settle_state(
        &self,
        conversion: Conversion,
        done: u64,
        doubt: u64,
        to: State,
    ) -> Settled {
        self.settle_as(conversion, done, doubt, to.into())
    }

    fn settle_as(
        &self,
        conversion: Conversion,
        done: u64,
        doubt: u64,
        to: GranuleState,
    ) -> Settled {
        let Conversion { run, from } = conversion;
        let (done, doubt) = believed(run.len(), done, doubt);
        let mut whole = Settled::default();
        for (tracked, part) in self.kept(run) {
            let Ok(granules) = tracked.granules() else { continue };
            // How far both reach into this part.
            let before = part.base().offset_from(run.base()).unwrap_or(0);
            let within = |bytes: u64| bytes.saturating_sub(before).min(part.len());
            let (sure, known) = (within(done), within(done + doubt));
            let settled = settle_in(granules, part, (sure, known - sure), from, to);
            whole.done += settled.done;
            whole.doubt += settled.doubt;
            whole.unchanged += settled.unchanged;
        }
        whole
    }

    /// Notes that the kernel itself brought a run of whole granules into state `to`, and nobody
    /// else has to: pages of a hypervisor protocol (GHCB), clock pages, memory that it accepted.
    ///
    /// All granules have to be in one state that nobody is changing (private, shared or
    /// unaccepted) and unpinned; errors name the first that is not. Any context; never waits.
    /// While it runs, others find the memory converting.
    pub fn declare(&self, run: PhysRange, to: Visibility) -> Result<(), Conflict> {
        self.declare_as(run, to.into())
    }

    /// Notes that the kernel of an SME host stores a run of whole granules as `to` from now on (its
    /// own mappings carry the C-bit, or do not). The layer does that itself for pages of its own alone. Declare first and
    /// change the mappings then: a device may have the memory, and the answer says so.
    ///
    /// All granules have to be encrypted, or all plain, and unpinned; otherwise as
    /// [`declare`](Self::declare).
    pub fn declare_cipher(&self, run: PhysRange, to: Cipher) -> Result<(), Conflict> {
        self.declare_as(run, to.into())
    }

    /// Notes that memory came at a run of whole granules, all of which were
    /// [absent](GranuleState::Absent): hot-plugged, or given by a balloon. It is `state` from now on,
    /// which its owner has made true (accepted it, say). Errors name the first granule that is not
    /// absent; memory that may come is registered as [`Initial::Absent`] when the ledger is made.
    /// Any context; never waits.
    pub fn add(&self, run: PhysRange, state: Initial) -> Result<(), Conflict> {
        let conversion = self.begin_from(run, GranuleState::Absent)?;
        self.settle_as(conversion, run.len(), 0, state.into());
        Ok(())
    }

    /// Notes that memory at a run of whole granules goes: no map, share or reclaim of it from now on.
    /// Call it before the memory is given away. All granules have to be in one state and unpinned:
    /// private or unaccepted in a guest, encrypted or plain on a host. Errors name the first that is
    /// not; what is shared is reclaimed first, and what is in quarantine is nobody's to give. Any
    /// context; never waits.
    pub fn remove(&self, run: PhysRange) -> Result<(), Conflict> {
        use GranuleState::{Encrypted, Plain, Private, Unaccepted};
        let from = match self.peek(run) {
            RangeState::Uniform(state @ (Private | Unaccepted | Encrypted | Plain))
            | RangeState::Mixed {
                before: state @ (Private | Unaccepted | Encrypted | Plain),
                ..
            } => state,
            // Refused in the next line, for what it is.
            _ => Private,
        };
        let conversion = self.begin_from(run, from)?;
        self.settle_as(conversion, run.len(), 0, GranuleState::Absent);
        Ok(())
    }

    fn declare_as(&self, run: PhysRange, to: GranuleState) -> Result<(), Conflict> {
        let from = match self.peek(run) {
            RangeState::Uniform(state) | RangeState::Mixed { before: state, .. }
                if state.may_become(to) =>
            {
                state
            }
            // Refused in the next line, for what it is.
            _ => to,
        };
        let conversion = self.begin_from(run, from)?;
        self.settle_as(conversion, run.len(), 0, to);
        Ok(())
    }

    fn begin_from(&self, run: PhysRange, from: GranuleState) -> Result<Conversion, Conflict> {
        let conflict = |(at, found)| Conflict { run, wanted: from, at, found };
        let start = |found| Err(conflict((run.base(), found)));
        match self.find(run) {
            Place::Untracked => return start(Found::Untracked),
            Place::Border(at) => return Err(conflict((at, Found::Border))),
            Place::In(_) | Place::Across(_) => {}
        }
        for (tracked, part) in self.kept(run) {
            match tracked.granules() {
                Err(foreign) => return Err(conflict((part.base(), Found::Foreign(foreign)))),
                Ok(granules) if !part.is_aligned(granules.bytes()) => {
                    return start(Found::Misaligned { granule: granules.bytes() });
                }
                Ok(_) => {}
            }
        }
        let forward = |entry: Entry| match (entry.state(), entry.pins()) {
            (state, _) if state != from => Err(Found::State(state)),
            (_, 1..) => Err(Found::Pinned),
            _ => Ok(Entry::new(GranuleState::Converting)),
        };
        // Exact: an entry that was taken was `from` and unpinned, and nobody else changes it.
        let back = |_| Entry::new(from);
        for (tracked, part) in self.kept(run) {
            let Ok(granules) = tracked.granules() else { continue };
            if let Err(found) = granules.all_or_none(granules.span(part), forward, back) {
                let below = self.kept(run).filter(|(_, other)| other.base() < part.base());
                for (tracked, other) in below {
                    if let Ok(granules) = tracked.granules() {
                        granules.each(granules.span(other), |_, entry| back(entry));
                    }
                }
                return Err(conflict(found));
            }
        }
        Ok(Conversion { run, from })
    }

    /// The ranges in which a run lies, with what of it lies in each; none where not all of it does.
    fn kept(&self, run: PhysRange) -> impl Iterator<Item = (&'m Tracked<'m>, PhysRange)> + use<'m> {
        let ranges = match self.find(run) {
            Place::In(tracked) => core::slice::from_ref(tracked),
            Place::Across(ranges) => ranges,
            Place::Untracked | Place::Border(_) => &[],
        };
        parts(ranges, run)
    }
}

/// Settles what of a conversion lies in one range: of `part` the first bytes are done, those after
/// them in doubt.
fn settle_in(
    granules: &Granules<'_>,
    part: PhysRange,
    (done, doubt): (u64, u64),
    from: GranuleState,
    to: GranuleState,
) -> Settled {
    let span = granules.span(part);
    let bytes = granules.bytes();
    // Both count granules of the part, so that they fit.
    let whole = |granules: u64| usize::try_from(granules).unwrap_or(usize::MAX).min(span.count);
    let sure = whole(done / bytes);
    let known = whole((done + doubt).div_ceil(bytes));
    let (done, doubt, rest) = (sure, known - sure, span.count - known);

    let was_lost = from == GranuleState::Quarantined;
    if !was_lost {
        granules.quarantined.0.fetch_add(doubt, Ordering::Relaxed);
    }
    granules.each(span, |granule, entry| match granule.wrapping_sub(span.first) {
        _ if entry.state() != GranuleState::Converting => entry,
        place if place < sure => Entry::new(to),
        place if place < known => Entry::new(GranuleState::Quarantined),
        _ => Entry::new(from),
    });
    if was_lost {
        granules.quarantined.0.fetch_sub(done, Ordering::Relaxed);
    }
    let [done, doubt, unchanged] = [done, doubt, rest].map(|count| count as u64 * bytes);
    Settled { done, doubt, unchanged }
}

/// How many bytes of `len` are done, and how many after those in doubt.
const fn believed(len: u64, done: u64, doubt: u64) -> (u64, u64) {
    match len.checked_sub(done) {
        Some(rest) if doubt <= rest => (done, doubt),
        Some(rest) => (done, rest),
        None => (0, len),
    }
}
