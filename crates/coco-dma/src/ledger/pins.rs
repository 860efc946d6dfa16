//! Pins: direct DMA holds the state of the memory that it goes to.

use core::fmt;

use super::Conflict;
use super::Found;
use super::GranuleState;
use super::Ledger;
use super::Place;
use super::Tracked;
use super::entry::Entry;
use super::parts;
use crate::addr::PhysAddr;
use crate::addr::PhysRange;
use crate::state::Cipher;
use crate::state::State;
use crate::state::Visibility;

/// Memory that stays in its state while a device has it. Not `Copy`: who holds it keeps the
/// memory from being converted, and losing it keeps it so for ever.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "memory whose pin is lost can never be converted again"]
pub struct Pin {
    run: PhysRange,
    counted: bool,
}

impl Pin {
    /// The bytes that are pinned.
    #[inline]
    pub fn run(&self) -> PhysRange {
        self.run
    }

    /// Whether the ledger counts the pin. It does not for foreign memory, which nobody converts,
    /// nor for untracked memory, for which nothing stands but the word of whoever asked.
    #[inline]
    pub fn is_counted(&self) -> bool {
        self.counted
    }
}

impl Pin {
    /// The pin of a pool that was opened over `run`: the pool itself is the token. (Of memory that
    /// is not counted there is nothing to give back.)
    pub(crate) const fn of_pool(run: PhysRange) -> Self {
        Self { run, counted: true }
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = if self.counted { "pinned" } else { "in use, not counted" };
        write!(f, "{} {how}", self.run)
    }
}

impl Ledger<'_> {
    /// Pins every granule that `run` touches, all or none, expecting all to be in one state.
    ///
    /// Errors name the first granule that is in another state or holds as many pins as can be
    /// counted (8191, the thirteen bits of an entry). A conversion that is about to give up may
    /// be in the way for a moment ([`GranuleState::Converting`]), and so may another pin that is,
    /// at the upper end of the count: look again and plan again. Foreign memory is not counted
    /// but has to be in that state; untracked memory is taken as the caller says.
    ///
    /// Any context; never waits; one compare-and-swap a word.
    pub fn pin(&self, run: PhysRange, expect: Visibility) -> Result<Pin, Conflict> {
        self.pin_as(run, expect.into())
    }

    /// The same on an SME host: the memory stays encrypted, or plain, while a device has it.
    pub fn pin_cipher(&self, run: PhysRange, expect: Cipher) -> Result<Pin, Conflict> {
        self.pin_as(run, expect.into())
    }

    /// The same for the state that was planned; `None` on an open machine, where it cannot change.
    pub(crate) fn pin_state(&self, run: PhysRange, expect: State) -> Result<Option<Pin>, Conflict> {
        let wanted = match expect {
            State::Ordinary => return Ok(None),
            State::Host(cipher) => cipher.into(),
            State::Guest(visibility) => visibility.into(),
        };
        self.pin_as(run, wanted).map(Some)
    }

    fn pin_as(&self, run: PhysRange, wanted: GranuleState) -> Result<Pin, Conflict> {
        let conflict = |(at, found)| Conflict { run, wanted, at, found };
        let counted = match self.find(run) {
            Place::Untracked => false,
            Place::Border(at) => return Err(conflict((at, Found::Border))),
            Place::In(tracked) => pin_in(tracked, run, wanted).map_err(conflict)?,
            Place::Across(ranges) => {
                let mut counted = false;
                for (tracked, part) in parts(ranges, run) {
                    match pin_in(tracked, part, wanted) {
                        Ok(here) => counted |= here,
                        Err(found) => {
                            let below = |(tracked, other): (_, PhysRange)| {
                                if other.base() < part.base() {
                                    unpin_in(tracked, other);
                                }
                            };
                            parts(ranges, run).for_each(below);
                            return Err(conflict(found));
                        }
                    }
                }
                counted
            }
        };
        Ok(Pin { run, counted })
    }

    /// Gives a pin back. The device must have stopped: what it and the CPU did with the memory
    /// happens before the next conversion of it.
    ///
    /// The pin has to be one of this ledger; another one's takes a pin away that somebody else
    /// may rely on. Any context; never waits.
    pub fn unpin(&self, pin: Pin) {
        if !pin.counted {
            return;
        }
        match self.find(pin.run) {
            Place::In(tracked) => unpin_in(tracked, pin.run),
            Place::Across(ranges) => {
                parts(ranges, pin.run).for_each(|(tracked, part)| unpin_in(tracked, part));
            }
            Place::Untracked | Place::Border(_) => {}
        }
    }
}

/// Pins a run that lies in one range; answers whether it is counted.
fn pin_in(
    tracked: &Tracked<'_>,
    run: PhysRange,
    wanted: GranuleState,
) -> Result<bool, (PhysAddr, Found)> {
    let granules = match tracked.granules() {
        Err(foreign) if GranuleState::from(foreign) == wanted => return Ok(false),
        Err(foreign) => return Err((run.base(), Found::Foreign(foreign))),
        Ok(granules) => granules,
    };
    let forward = |entry: Entry| {
        if entry.state() != wanted {
            return Err(Found::State(entry.state()));
        }
        entry.pinned().ok_or(Found::TooManyPins)
    };
    granules.all_or_none(granules.span(run), forward, Entry::unpinned).map(|()| true)
}

fn unpin_in(tracked: &Tracked<'_>, run: PhysRange) {
    if let Ok(granules) = tracked.granules() {
        granules.each(granules.span(run), |_, entry| entry.unpinned());
    }
}
