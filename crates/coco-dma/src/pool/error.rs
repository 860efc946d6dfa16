//! What is wrong with a pool that cannot be.

use core::fmt;

use crate::addr::SLOT;
use crate::slots::SlotsError;

/// A pool that cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PoolError {
    /// The memory holds not a single slot of 2048 bytes.
    TooSmall,
    /// The memory is longer than this machine's words can count.
    TooLarge,
    /// The storage has fewer words than [`Pool::words`](super::Pool::words) asks for.
    Storage {
        /// Words needed.
        wanted: usize,
        /// Words given.
        given: usize,
    },
}

impl fmt::Display for PoolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooSmall => write!(f, "a pool needs room for at least one slot of {SLOT} bytes"),
            Self::TooLarge => f.write_str("the pool is longer than this machine can count"),
            Self::Storage { wanted, given } => {
                write!(f, "the pool's bookkeeping needs {wanted} words, and {given} were given")
            }
        }
    }
}

impl core::error::Error for PoolError {}

impl From<SlotsError> for PoolError {
    fn from(error: SlotsError) -> Self {
        match error {
            SlotsError::TooSmall => Self::TooSmall,
            SlotsError::TooLarge => Self::TooLarge,
            SlotsError::Storage { wanted, given } => Self::Storage { wanted, given },
        }
    }
}
