//! What can go wrong with a disk.

use std::io;
use std::time::Duration;

use coco_dma::reason::Refuse;

use super::{Op, Status};
use crate::device::DeviceError;
use crate::front::FrontError;

/// A disk that failed. Whatever was in flight on it is lost; nothing that it said is believed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DiskError {
    /// There is no process to talk to.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The device is gone, or wants no more of us.
    #[error("{disk}: the device process {pid} {how}; start it again")]
    Lost {
        /// Which disk.
        disk: &'static str,
        /// The process.
        pid: u32,
        /// How it went, with what it said last.
        how: String,
    },
    /// The connection could not be set up.
    #[error("{disk}: {source}")]
    Front {
        /// Which disk.
        disk: &'static str,
        /// What went wrong.
        source: FrontError,
    },
    /// The device says that a request failed.
    #[error("{disk}: {op} failed, the device says {status}; check the image and its storage")]
    Io {
        /// Which disk.
        disk: &'static str,
        /// The request.
        op: Op,
        /// What the device says.
        status: Status,
    },
    /// The device said something that makes no sense.
    #[error("{disk}: the device broke the protocol: {what}; use another device")]
    Protocol {
        /// Which disk.
        disk: &'static str,
        /// What it said.
        what: &'static str,
    },
    /// Nothing was completed for too long.
    #[error(
        "{disk}: the device completed none of {in_flight} requests within {waited:?}; look at its \
         storage, or start it again"
    )]
    Timeout {
        /// Which disk.
        disk: &'static str,
        /// Requests that it has.
        in_flight: usize,
        /// How long we waited.
        waited: Duration,
    },
    /// The layer refuses such maps for good.
    #[error("{disk}: the layer refuses the buffers ({reason}): {}; {}", reason.text(), reason.way_out())]
    Refused {
        /// Which disk.
        disk: &'static str,
        /// Why.
        reason: Refuse,
    },
    /// A request was submitted whose buffer could not be mapped after all.
    #[error(
        "{disk}: the pool ran out between asking and mapping; let nobody else use it meanwhile"
    )]
    Stray {
        /// Which disk.
        disk: &'static str,
    },
    /// The queue could not be made.
    #[error("{disk}: no queue ({reason}); register a larger pool")]
    Queue {
        /// Which disk.
        disk: &'static str,
        /// What `virtio-drivers` says.
        reason: virtio_drivers::Error,
    },
    /// A request that no disk takes: outside of it, longer than its buffer, or no whole sectors.
    #[error("{disk}: {op} of {len} bytes does not fit the disk of {sectors} sectors or its buffer")]
    Request {
        /// Which disk.
        disk: &'static str,
        /// The request.
        op: Op,
        /// Its length in bytes.
        len: usize,
        /// The size of the disk in sectors of 512 bytes.
        sectors: u64,
    },
    /// Memory for headers is missing.
    #[error(transparent)]
    Memory(#[from] crate::memory::MemoryError),
    /// The kernel does not let us wait.
    #[error("cannot wait for the device: {0}; raise the limits of this process")]
    Wait(io::Error),
}

impl DiskError {
    /// Whether the device is lost: dead, gone or silent for too long. Another process may do what
    /// it left undone. (A device that reports errors or lies is not lost.)
    #[must_use]
    pub fn is_loss(&self) -> bool {
        match self {
            Self::Device(error) => error.is_loss(),
            Self::Front { source, .. } => source.is_loss(),
            Self::Lost { .. } | Self::Timeout { .. } => true,
            _ => false,
        }
    }
}
