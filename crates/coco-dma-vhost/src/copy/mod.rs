//! The main job: a whole image through the layer, from one disk to another.
//!
//! The device writes what it reads off the first disk into pool slots; the layer brings it to a
//! private buffer; from there it is hashed, in order, and goes back through the pool to the second
//! disk. Memory is what the [`Shape`] says, whatever the size of the image.
//!
//! A device process that is lost on the way, killed or silent for too long, is replaced: its maps
//! are revoked, everything is shared with the next one, and that one is asked for what the first
//! left undone. What is done stays done. A read that was completed is in a private buffer; a write
//! that was completed is in the page cache of the image file, where the death of a process takes
//! nothing away (that of the machine would, which is what the flush at the end is for: it is asked
//! for until one was answered, after the last write). A lost process has ended before the next one
//! starts, so that no write of it comes late.

mod pipeline;
mod shape;
mod stage;

use std::time::Duration;

use coco_dma::device::{BindError, CountersNow};
use coco_dma_virtio::{AdaptorCounters, AlreadyBound};

use crate::device::{DeviceError, Keeper};
use crate::disk::DiskError;
use crate::machine::Layer;
use crate::memory::MemoryError;
pub use shape::{DEFAULT_DEPTH, DEFAULT_REQUEST, Shape, ShapeError};

/// How long the disks may complete nothing, when nothing else is said.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// What to copy.
#[derive(Clone, Copy, Debug)]
pub struct CopyJob {
    /// The export of the process that is read.
    pub input: usize,
    /// Its export that is written, as large as the other or larger.
    pub output: usize,
    /// Bytes to copy: the size of the image, a multiple of 512.
    pub bytes: u64,
    /// How much at once.
    pub shape: Shape,
    /// How long the disks may complete nothing before their process is lost ([`PATIENCE`]).
    pub patience: Duration,
}

/// What one disk did, whichever process served it.
#[derive(Clone, Copy, Debug, Default)]
pub struct DiskReport {
    /// Its maps.
    pub maps: CountersNow,
    /// What went wrong in its adaptor: all zero after a copy that went well.
    pub adaptor: AdaptorCounters,
    /// How many memory regions its device takes.
    pub region_limit: u64,
}

/// A copy that went well.
#[derive(Clone, Debug)]
pub struct CopyReport {
    /// Bytes copied.
    pub bytes: u64,
    /// SHA-256 over the bytes that passed through the private buffers, in order.
    pub sha256: [u8; 32],
    /// Requests of both disks, the flush among them; one that was repeated counts again.
    pub requests: u64,
    /// How often a request had to wait because pool or queue had no room for it.
    pub waits_for_room: u64,
    /// The disk that was read.
    pub input: DiskReport,
    /// The disk that was written.
    pub output: DiskReport,
    /// What the device process had mapped of shared memory at the end, with both disks connected:
    /// lines of `/proc/PID/maps`.
    pub device_mappings: Vec<String>,
    /// Slots of the pool in use at that moment: the queues of both disks.
    pub slots_used: usize,
    /// How long it took, set-up included.
    pub elapsed: Duration,
}

impl CopyReport {
    /// Maps through the pool, of both disks.
    #[must_use]
    pub fn bounced(&self) -> usize {
        self.input.maps.bounced + self.output.maps.bounced
    }

    /// Maps of memory where it lies.
    #[must_use]
    pub fn direct(&self) -> usize {
        self.input.maps.direct + self.output.maps.direct
    }

    /// Maps refused.
    #[must_use]
    pub fn refused(&self) -> usize {
        self.input.maps.refused + self.output.maps.refused
    }
}

/// How far a copy is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Progress {
    /// Bytes that the second disk has taken.
    pub written: u64,
    /// Bytes in all.
    pub bytes: u64,
}

/// A copy that failed. The output holds some of the image, nobody knows how much.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CopyError {
    /// A disk failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// There is no process, or it could not say what it has mapped.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// An image that no disk has.
    #[error(
        "an image of {0} bytes cannot be copied: a disk has whole sectors of 512, at least one"
    )]
    Size(u64),
    /// A disk has another size than the image.
    #[error("{disk}: it has {sectors} sectors and the image {wanted}; give it the whole image")]
    Capacity {
        /// Which disk.
        disk: &'static str,
        /// Its sectors of 512 bytes, as the device says.
        sectors: u64,
        /// Those of the image.
        wanted: u64,
    },
    /// The second disk takes no writes.
    #[error("the output disk is read-only: export it writable")]
    ReadOnly,
    /// Not even one request fits into the empty pool.
    #[error("the pool has no room for one request of {request} bytes: make it larger")]
    NoRoom {
        /// Bytes of a request.
        request: usize,
    },
    /// Memory for buffers is missing.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The layer binds no such device.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// Another copy runs in this process.
    #[error("another copy runs in this process: wait for its end ({0})")]
    Busy(AlreadyBound),
}

impl CopyError {
    /// Whether the device is lost ([`DiskError::is_loss`]).
    #[must_use]
    pub fn is_loss(&self) -> bool {
        match self {
            Self::Disk(error) => error.is_loss(),
            Self::Device(error) => error.is_loss(),
            _ => false,
        }
    }
}

/// Copies with the process of `keeper`, and calls `progress` after each write that is done. Blocks
/// until the image is copied and flushed, or it failed; each wait is bounded by the job's patience.
///
/// A device that is lost is replaced, and the copy goes on where it was.
///
/// # Errors
///
/// Any [`CopyError`]; after three processes in a row that completed no request,
/// [`DeviceError::Fruitless`]. Both disks are closed then, and their slots free again.
pub fn copy(
    layer: &Layer<'_>,
    keeper: &mut Keeper<'_>,
    job: &CopyJob,
    progress: &mut dyn FnMut(Progress),
) -> Result<CopyReport, CopyError> {
    if job.bytes == 0 || !job.bytes.is_multiple_of(512) {
        return Err(CopyError::Size(job.bytes));
    }
    stage::run(layer, keeper, job, progress)
}
