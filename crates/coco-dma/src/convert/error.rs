//! How a conversion ends when it does not end well.

use core::fmt;

use crate::addr::PhysRange;
use crate::ledger::Conflict;
use crate::platform::ConvertError;
use crate::state::Visibility;

/// A conversion that failed, with what became of the memory. Nothing is lost unaccounted:
/// `unchanged`, `converted` and `quarantined` add up to the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConvertFailed {
    /// What was to be converted.
    pub run: PhysRange,
    /// To what.
    pub to: Visibility,
    /// Why it failed.
    pub why: ConvertErrorKind,
    /// Bytes from the start that are in the new state and usable. (A failed share is undone, so
    /// that nothing is; a failed reclaim keeps what it has.)
    pub converted: u64,
    /// Bytes after those whose state nobody knows, in quarantine now.
    pub quarantined: u64,
}

impl ConvertFailed {
    /// Bytes that are as they were before.
    pub fn unchanged(&self) -> u64 {
        self.run.len().saturating_sub(self.converted).saturating_sub(self.quarantined)
    }

    /// Whether the memory was not in the state to begin with, so that nobody was asked.
    pub(crate) fn is_conflict(&self) -> bool {
        matches!(self.why, ConvertErrorKind::Ledger(_))
    }
}

/// Why a conversion failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConvertErrorKind {
    /// The ledger contradicts: the memory is in another state, pinned, not registered or not made
    /// of whole granules.
    Ledger(Conflict),
    /// The platform could not convert it.
    Platform(ConvertError),
    /// The CPU cannot be given a view of the memory, so that it can be neither wiped nor
    /// initialised.
    NoView,
    /// Too much memory is in quarantine already: the host is failing conversions.
    QuarantineFull {
        /// Bytes in quarantine.
        held: u64,
        /// The most there may be.
        limit: u64,
    },
    /// The memory is an open pool's.
    Pool(PhysRange),
    /// Nothing is shared any more: everything is being taken back.
    Stopped,
    /// Nothing converts on this machine.
    NoGuest,
}

impl fmt::Display for ConvertFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { run, to, why, .. } = self;
        match why {
            ConvertErrorKind::Ledger(conflict) => {
                write!(f, "{run} was not made {to:?}: {conflict}")?
            }
            ConvertErrorKind::Platform(error) => write!(f, "{run} was not made {to:?}: {error}")?,
            ConvertErrorKind::NoView => {
                write!(f, "{run} was not made {to:?}: the CPU has no view of it")?
            }
            ConvertErrorKind::QuarantineFull { held, limit } => write!(
                f,
                "{run} was not made {to:?}: {held:#x} bytes are in quarantine, and {limit:#x} are \
                 the limit; retry their conversions"
            )?,
            ConvertErrorKind::Pool(range) => {
                write!(
                    f,
                    "{run} was not made {to:?}: the pool at {range} is open; shrink it first"
                )?;
            }
            ConvertErrorKind::Stopped => write!(
                f,
                "{run} was not made {to:?}: everything shared is being taken back; allow sharing \
                 first"
            )?,
            ConvertErrorKind::NoGuest => {
                write!(f, "{run} was not made {to:?}: memory converts in guests only")?;
            }
        }
        if self.quarantined > 0 {
            write!(f, "; {:#x} bytes are in quarantine", self.quarantined)?;
        }
        Ok(())
    }
}

impl core::error::Error for ConvertFailed {}
