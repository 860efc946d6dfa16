//! What can go wrong between a front end and its device.

use std::io;
use std::time::Duration;

/// A connection that could not be used, or not any longer. The first one is kept: what fails
/// after it is its consequence.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FrontError {
    /// The device gave no answer in time; the connection was closed.
    #[error("the device did not answer {asked} within {waited:?}: start a new device process")]
    Silent {
        /// The message.
        asked: &'static str,
        /// How long we waited.
        waited: Duration,
    },
    /// The device closed the connection, refused a message or answered nonsense.
    #[error("the device failed {asked}: {source}; see what it said last")]
    Failed {
        /// The message.
        asked: &'static str,
        /// What the protocol's crate says of it.
        source: vhost::Error,
    },
    /// The device lacks something that we cannot do without.
    #[error("the device does not offer {0}: use another device")]
    Missing(&'static str),
    /// More regions than the device takes.
    #[error("the device takes {limit} memory regions, and {wanted} are shared: use fewer")]
    TooManyRegions {
        /// Regions to be shared.
        wanted: usize,
        /// What the device says it takes.
        limit: u64,
    },
    /// A queue that lies outside of shared memory, or a second one.
    #[error("the queue at {address:#x} does not lie in shared memory: allocate it from the pool")]
    Queue {
        /// Where its descriptors lie, as the device sees them.
        address: u64,
    },
    /// The kernel gives no event descriptors or threads.
    #[error("the kernel gives no {what}: {source}; raise its limits")]
    Kernel {
        /// What was asked for.
        what: &'static str,
        /// What it said.
        source: io::Error,
    },
}

impl FrontError {
    /// Whether the connection is lost: the device is dead or might as well be.
    #[must_use]
    pub fn is_loss(&self) -> bool {
        matches!(self, Self::Silent { .. } | Self::Failed { .. })
    }
}
