//! The kinds of memory of the userspace machine: a [`PrivateArena`] that no other process is
//! given, [`SharedRegion`]s that are, and patches that change from one to the other.

mod arena;
mod buffer;
mod map;
mod patches;
mod shared;

use std::io;

pub(crate) use arena::room;
pub use arena::{ArenaKind, MAX_ARENA, PrivateArena};
pub use buffer::{ArenaBuffer, SharedBuffer};
pub use patches::REGION_NAME;
pub(crate) use patches::{Lost, Patch, Patches};
pub use shared::{POOL_NAME, SharedRegion};

/// Memory that could not be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MemoryError {
    /// A size of zero or beyond the limit.
    #[error("{what} of {size} bytes is not possible: ask for 1 to {limit} bytes")]
    Size {
        /// What was asked for.
        what: &'static str,
        /// Bytes asked for.
        size: usize,
        /// The most that is given.
        limit: usize,
    },
    /// The arena has no room for one more buffer.
    #[error(
        "the private arena has no {wanted} bytes left of its {size}: use fewer or smaller requests"
    )]
    ArenaFull {
        /// Bytes asked for.
        wanted: usize,
        /// The arena's size.
        size: usize,
    },
    /// The kernel refused.
    #[error("the kernel gives no {what}: {source}; free some memory or raise its limits")]
    Kernel {
        /// What was asked for.
        what: &'static str,
        /// What it said.
        source: io::Error,
    },
}

#[cfg(test)]
mod tests;
