//! What a look at the ledger answers.

use core::fmt;

use super::GranuleState;
use crate::addr::PhysAddr;
use crate::addr::PhysRange;
use crate::state::Memory;
use crate::state::State;
use crate::state::Visibility;

/// The state of a run of bytes: of all granules that it touches, partly touched ones included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RangeState {
    /// Every granule is in this state.
    Uniform(GranuleState),
    /// Memory of a range that somebody else made private or shared; it is never converted.
    Foreign(Visibility),
    /// No byte of it is in a registered range: nobody keeps its state.
    Untracked,
    /// The granules are in different states.
    Mixed {
        /// The address of the first granule that differs from the ones before it.
        first: PhysAddr,
        /// The state of the ones before it.
        before: GranuleState,
        /// Its own state.
        after: GranuleState,
    },
    /// The run lies partly in no registered range: as good as mixed, since nobody keeps the state
    /// of that part. (Ranges that stand side by side have no border between them.)
    Border {
        /// The address of the first byte on the other side.
        first: PhysAddr,
    },
}

impl RangeState {
    /// What several ranges side by side are together; `None` of none. Foreign memory beside our own
    /// is in its state like that one.
    pub(super) fn of_several(parts: impl Iterator<Item = (PhysRange, Self)>) -> Option<Self> {
        let mut whole = None;
        for (run, seen) in parts {
            let (before, after) = match (whole, seen) {
                (None, Self::Mixed { .. }) => return Some(seen),
                (None, _) => {
                    whole = Some(seen);
                    continue;
                }
                (Some(before), _) if before == seen => continue,
                (Some(before), _) => match (before.first_state(), seen.first_state()) {
                    (Some(before), Some(after)) => (before, after),
                    _ => return Some(Self::Border { first: run.base() }),
                },
            };
            if before != after {
                return Some(Self::Mixed { first: run.base(), before, after });
            }
            if let Self::Mixed { .. } = seen {
                return Some(seen);
            }
            whole = Some(Self::Uniform(before));
        }
        whole
    }

    /// The state of the first granule.
    fn first_state(self) -> Option<GranuleState> {
        match self {
            Self::Uniform(state) | Self::Mixed { before: state, .. } => Some(state),
            Self::Foreign(visibility) => Some(visibility.into()),
            Self::Untracked | Self::Border { .. } => None,
        }
    }

    /// Who may access the whole run; `None` where there is no such answer (as on an SME host), or
    /// where nobody may rely on one (converting, quarantined, unaccepted).
    pub const fn visibility(self) -> Option<Visibility> {
        match self {
            Self::Uniform(state) => state.visibility(),
            Self::Foreign(visibility) => Some(visibility),
            Self::Untracked | Self::Mixed { .. } | Self::Border { .. } => None,
        }
    }

    /// The same as what a decision is made by: the one place that says which is which.
    pub const fn memory(self) -> Memory {
        match self {
            Self::Untracked => Memory::Untracked,
            Self::Mixed { .. } | Self::Border { .. } => Memory::Mixed,
            Self::Foreign(visibility) => Memory::Known(State::Guest(visibility)),
            Self::Uniform(state) => match state {
                GranuleState::Private => Memory::Known(State::PRIVATE),
                GranuleState::Shared => Memory::Known(State::SHARED),
                GranuleState::Encrypted => Memory::Known(State::ENCRYPTED),
                // sabotage: sme-plain-as-encrypted
                GranuleState::Plain => Memory::Known(State::PLAIN),
                GranuleState::Converting => Memory::Converting,
                GranuleState::Quarantined => Memory::Quarantined,
                // What is not there yet was never accepted either: no device is shown it.
                GranuleState::Unaccepted | GranuleState::Absent => Memory::Unaccepted,
            },
        }
    }
}

impl fmt::Display for RangeState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uniform(state) => state.fmt(f),
            Self::Foreign(visibility) => write!(f, "foreign {}", GranuleState::from(*visibility)),
            Self::Untracked => f.write_str("untracked"),
            Self::Mixed { first, before, after } => {
                write!(f, "mixed: {before}, and from {first} on {after}")
            }
            Self::Border { first } => write!(f, "mixed: from {first} on not all in the books"),
        }
    }
}

/// All that is kept of one granule, at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Granule {
    /// Where it lies.
    pub run: PhysRange,
    /// Its state.
    pub state: GranuleState,
    /// How many pins direct DMA holds on it, 0 to 8191.
    pub pins: usize,
}

impl fmt::Display for Granule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { run, state, pins } = self;
        write!(f, "{run} {state}, {pins} pins")
    }
}
