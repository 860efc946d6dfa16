//! What a bounce costs from end to end: requests to a real device process that stores nothing, with
//! buffers in private memory, which go through the pool, and with buffers in memory that is shared
//! already, which the device uses where they lie. Same device, same queue, same code: the layer
//! decides by where a buffer lies.
//!
//! Both ways contain everything else that a request costs: the queue, the event descriptors, two
//! processes that wake each other, and the work of the device, which fills what it reads with
//! zeroes. So `ns` is not the cost of a map; the difference of the two ways is.
//!
//! The ways are measured in turn, a window of each, after a warm-up before each window. A window
//! that waits for a device is full of context switches, so that none is thrown away for them, as a
//! measurement of the pool alone would: the lower quartile of the windows is reported, and for
//! ratios the median over pairs of neighbours.

mod control;
mod figures;
mod stage;
mod window;

use std::time::Duration;

use coco_dma::convert::ConvertFailed;
use coco_dma::device::{BindError, CountersNow};
use coco_dma::state::Direction;
use coco_dma_virtio::AlreadyBound;

use crate::device::{DeviceError, Keeper};
use crate::disk::{DiskError, FRAME, QUEUE_BYTES, slots};
use crate::machine::Layer;
use crate::memory::{MAX_ARENA, MemoryError};
use coco_dma::addr::SLOT;
pub use figures::CostRow;

/// Bytes of a request.
pub const SIZES: [usize; 2] = [4 << 10, 128 << 10];
/// Requests in flight.
pub const DEPTHS: [usize; 2] = [1, 32];
/// Which way the bytes go: [`Direction::ToDevice`] is writing.
pub const DIRECTIONS: [Direction; 2] = [Direction::ToDevice, Direction::FromDevice];

/// The deepest of [`DEPTHS`]: so many buffers of each size there are.
const MOST: usize = 32;
/// The largest of [`SIZES`].
const LARGEST: usize = 128 << 10;

/// Bytes of private memory that a measurement needs.
pub const ARENA: usize = MAX_ARENA;
/// Bytes of the region that a measurement shares for the buffers that lie in shared memory: the
/// machine's first ([`UserMachine::with_regions`](crate::machine::UserMachine::with_regions)).
pub const REGION: usize = 8 << 20;
/// Bytes of pool that a measurement needs. Large buffers lie in runs of 64 slots of their own, where
/// they can; the small ones share two such runs.
pub const POOL: u64 = QUEUE_BYTES + (MOST as u64 * slots(LARGEST as u64) + 2 * 64) * SLOT;

const _: () = assert!((SIZES[0] + SIZES[1] + FRAME) * MOST <= ARENA);
const _: () = assert!((SIZES[0] + SIZES[1] + FRAME) * MOST <= REGION);

/// Where a request's buffers lie.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Way {
    /// In private memory: through the pool.
    Bounced,
    /// In shared memory: used where they lie.
    Direct,
}

impl Way {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Bounced => "bounced",
            Self::Direct => "direct",
        }
    }
}

/// What to measure with.
#[derive(Clone, Copy, Debug)]
pub struct CostJob {
    /// The export of the process that is used: a writable disk of 128 KiB at least that
    /// reads as zeroes.
    pub export: usize,
    /// Windows of each way at each point, at least one.
    pub windows: usize,
    /// How long a window is. A warm-up takes a quarter of that more.
    pub window: Duration,
    /// How long the device may complete nothing before its process is lost.
    pub patience: Duration,
}

/// What was measured.
#[derive(Clone, Debug)]
pub struct CostReport {
    /// A row for each size, depth, direction and way, in this order.
    pub rows: Vec<CostRow>,
    /// Requests carried out in the windows, warm-ups and controls apart.
    pub requests: u64,
    /// Their bytes.
    pub bytes: u64,
    /// All maps, of warm-ups and controls too.
    pub maps: CountersNow,
    /// What the device said it is called, through a bounce and without one.
    pub identity: String,
    /// How many memory regions the device takes.
    pub region_limit: u64,
    /// What the device process had mapped of shared memory: lines of `/proc/PID/maps`.
    pub device_mappings: Vec<String>,
}

/// A measurement that failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CostError {
    /// The disk failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// There is no process, or it could not say what it has mapped.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// Memory for buffers is missing.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The machine has too little memory for it, or pools over its regions.
    #[error(
        "a measurement needs an arena of {ARENA} bytes and a region of {REGION} bytes that no pool \
         is over: make a machine with them"
    )]
    Region,
    /// The region could not be shared.
    #[error("the region for direct buffers cannot be shared: {0}")]
    Share(ConvertFailed),
    /// The layer binds no such device.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// Another measurement runs in this process.
    #[error("another measurement runs in this process: wait for its end ({0})")]
    Busy(AlreadyBound),
    /// The pool is too small.
    #[error("the pool has no room for {MOST} requests of {LARGEST} bytes: it needs {POOL} bytes")]
    NoRoom,
    /// The disk is no disk for measuring.
    #[error("the disk has {sectors} sectors: export a writable one of {LARGEST} bytes at least")]
    Unfit {
        /// Its sectors of 512 bytes.
        sectors: u64,
    },
    /// What was measured is not what it is called: nothing is worth anything then.
    #[error("the {} way {what}: this measures something else", way.name())]
    Control {
        /// Which way.
        way: Way,
        /// What it did.
        what: String,
    },
}

impl CostError {
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

/// Measures with the process of `keeper`, and calls `progress` with the share of points done, from
/// 0 to 1. Blocks until all is measured; the machine's first region is shared meanwhile, and
/// private again afterwards.
///
/// A device that is lost is replaced, and the point at which it was lost is measured anew.
///
/// # Errors
///
/// Any [`CostError`].
pub fn measure(
    layer: &Layer<'_>,
    keeper: &mut Keeper<'_>,
    job: &CostJob,
    progress: &mut dyn FnMut(f64),
) -> Result<CostReport, CostError> {
    stage::run(layer, keeper, job, progress)
}
