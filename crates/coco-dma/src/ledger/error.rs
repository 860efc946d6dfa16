//! What the ledger says no to: each answer names the memory, what was wanted and what there is.

use core::fmt;

use super::GranuleState;
use super::entry::Entry;
use crate::addr::PhysAddr;
use crate::addr::PhysRange;
use crate::reason::Refuse;
use crate::state::Visibility;

/// A ledger or a registered range that cannot be. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LedgerError {
    /// The granule, in bytes, is no power of two.
    Granule(u64),
    /// The range does not begin and end at a multiple of the granule. It is never rounded.
    Misaligned {
        /// The range that was given.
        range: PhysRange,
        /// The granule in bytes.
        granule: u64,
    },
    /// The range has more granules than this machine's words can count.
    TooLarge {
        /// The range that was given.
        range: PhysRange,
        /// The granule in bytes.
        granule: u64,
    },
    /// The storage has fewer words than [`Tracked::words`](super::Tracked::words) asks for.
    Storage {
        /// Words needed.
        wanted: usize,
        /// Words given.
        given: usize,
    },
    /// Two ranges overlap, or do not stand in ascending order.
    Order {
        /// The one that stands before.
        before: PhysRange,
        /// The one that stands behind it.
        after: PhysRange,
    },
}

impl fmt::Display for LedgerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Granule(bytes) => {
                write!(f, "a granule of {bytes:#x} bytes is no power of two")
            }
            Self::Misaligned { range, granule } => {
                write!(f, "{range} is not made of whole granules of {granule:#x} bytes")
            }
            Self::TooLarge { range, granule } => {
                write!(f, "{range} has more granules of {granule:#x} bytes than this machine ")?;
                f.write_str("can count")
            }
            Self::Storage { wanted, given } => {
                write!(f, "the ledger's entries need {wanted} words, and {given} were given")
            }
            Self::Order { before, after } => {
                write!(f, "{before} and {after} overlap, or are not in ascending order")
            }
        }
    }
}

impl core::error::Error for LedgerError {}

/// A pin, a conversion or a declaration that the ledger contradicts. Nothing was changed: what
/// was done up to the granule that differs is undone exactly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The run that was asked for.
    pub run: PhysRange,
    /// The state that every granule of it should have been in.
    pub wanted: GranuleState,
    /// The address of the first granule that is not as wanted, or of the first byte where a run
    /// leaves its range.
    pub at: PhysAddr,
    /// What there is instead.
    pub found: Found,
}

impl Conflict {
    /// Why a request is refused that met this each time it was planned. Whatever else was found
    /// than the limit of the count is another state than the one that was seen when it was planned.
    pub(crate) const fn refusal(&self) -> Refuse {
        match self.found {
            Found::TooManyPins => Refuse::PinnedOut,
            _ => Refuse::Busy,
        }
    }
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { run, wanted, at, found } = self;
        write!(f, "{run} should be {wanted}, but at {at} it {found}; {}", found.way_out())
    }
}

impl core::error::Error for Conflict {}

/// What the ledger found where it should have found something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Found {
    /// A granule in this state. [`GranuleState::Converting`] may be the mark of a conversion that
    /// is about to give up: look again and plan again.
    State(GranuleState),
    /// A granule in the wanted state that direct DMA has pinned. It may be the mark of a pin that
    /// is about to give up.
    Pinned,
    /// A granule that holds as many pins as can be counted, 8191.
    TooManyPins,
    /// Memory that somebody else made private or shared, and that is never converted.
    Foreign(Visibility),
    /// Memory of no registered range.
    Untracked,
    /// The border of registered memory: the run lies partly in no registered range.
    Border,
    /// A run that is not made of whole granules.
    Misaligned {
        /// The granule in bytes.
        granule: u64,
    },
}

impl Found {
    /// What the caller can do about it.
    pub const fn way_out(self) -> &'static str {
        match self {
            Self::State(GranuleState::Private | GranuleState::Shared) => {
                "convert it first, or ask for the state that it is in"
            }
            Self::State(GranuleState::Encrypted | GranuleState::Plain) => {
                "store it so and declare it, or ask for the state that it is in"
            }
            Self::State(GranuleState::Converting) => "wait until the conversion has ended",
            Self::State(GranuleState::Quarantined) => "retry its conversion, or use other memory",
            Self::State(GranuleState::Unaccepted) => "accept it first",
            Self::State(GranuleState::Absent) => "add it when the memory is there",
            Self::Pinned | Self::TooManyPins => "finish the maps of it",
            Self::Foreign(_) => "use it as it is, or use other memory",
            Self::Untracked => "register it when the ledger is made",
            Self::Border => "ask for the parts one by one, or register the rest",
            Self::Misaligned { .. } => "give whole granules",
        }
    }
}

impl fmt::Display for Found {
    /// As the rest of a sentence about the memory.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::State(state) => write!(f, "is {state}"),
            Self::Pinned => f.write_str("is pinned by direct DMA"),
            Self::TooManyPins => {
                write!(f, "holds {} pins, as many as can be counted", Entry::MAX_PINS)
            }
            Self::Foreign(visibility) => {
                write!(
                    f,
                    "is {} for ever by somebody else's doing",
                    GranuleState::from(*visibility)
                )
            }
            Self::Untracked => f.write_str("lies in no registered range"),
            Self::Border => f.write_str("is past the border of registered memory"),
            Self::Misaligned { granule } => {
                write!(f, "is not made of whole granules of {granule:#x} bytes")
            }
        }
    }
}
