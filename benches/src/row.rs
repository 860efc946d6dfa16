//! What is measured, and what it came to. The keys are those of the JSON document.

use core::fmt;

use coco_dma::state::Direction;
use serde::Serialize;
use serde::Serializer;

use crate::aims::Aim;
use crate::hand::Handle;
use crate::hand::Way;
use crate::measure::Cores;
use crate::measure::Latency;
use crate::terms::Rules;
use crate::terms::Terms;

/// In which order mappings end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// As they were made.
    #[serde(rename = "in-order")]
    Fifo,
    /// In any.
    Random,
}

/// What the threads do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Work {
    /// Each maps and finishes its own.
    Own,
    /// One maps, the other finishes.
    Handoff,
    /// One maps and finishes, the other is a device that touches every byte in between.
    Device,
    /// One asks for what there is not: `size` bytes of a pool every other slot of which is in use.
    Failing,
}

/// One point of the space that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Point {
    /// What the threads do.
    pub work: Work,
    /// The length of a mapping in bytes.
    pub size: usize,
    /// Threads.
    pub threads: usize,
    /// Mappings that each keeps at once.
    pub depth: usize,
    /// The part of the pool in percent that other mappings hold.
    pub occupancy: usize,
    /// The length of the pool in bytes.
    pub pool_size: usize,
    /// The low bits of addresses that are kept.
    pub min_align_mask: usize,
    /// Whether bytes are copied, and not only slots taken and given back.
    pub sync: bool,
    /// Which way the bytes go.
    #[serde(serialize_with = "direction")]
    pub direction: Direction,
    /// In which order mappings end.
    pub order: Order,
    /// Whose rules of copying.
    pub rules: Rules,
}

impl Point {
    /// 64 bytes to the device, one at a time, in an empty pool of 64 MiB.
    pub const START: Self = Self {
        work: Work::Own,
        size: 64,
        threads: 1,
        depth: 1,
        occupancy: 0,
        pool_size: 64 << 20,
        min_align_mask: 0,
        sync: true,
        direction: Direction::ToDevice,
        order: Order::Fifo,
        rules: Rules::Linux,
    };

    /// The terms of its maps.
    pub fn terms(&self) -> Terms {
        let Self { direction, rules, sync, min_align_mask, .. } = *self;
        Terms { direction, rules, sync, min_align_mask }
    }

    /// Mappings that live at once.
    pub(crate) fn live(&self) -> usize {
        match self.work {
            Work::Own => self.threads * self.depth,
            Work::Handoff => self.depth.max(crate::work::RING),
            Work::Device | Work::Failing => self.depth,
        }
    }
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { size, threads, depth, occupancy, .. } = self;
        write!(f, "{size} B, {threads} threads, depth {depth}, {occupancy} % full")
    }
}

fn direction<S: Serializer>(direction: &Direction, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(word(*direction))
}

/// The word for a direction, as in `coco-dma explain`.
pub fn word(direction: Direction) -> &'static str {
    match direction {
        Direction::ToDevice => "to",
        Direction::FromDevice => "from",
        Direction::Both => "both",
    }
}

/// What one way through the core took at one point.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// The point.
    #[serde(flatten)]
    pub point: Point,
    /// Which way was measured.
    pub way: Way,
    /// How its caches are reached.
    pub handle: Handle,
    /// Nanoseconds a pair of map and finish, a thread: the lower quartile of the windows.
    pub ns: f64,
    /// The copies of the same pairs alone, at the same places in the same order (of one thread).
    pub floor_ns: f64,
    /// The reference at the same point; none where it refuses such a mapping.
    pub reference_ns: Option<f64>,
    /// The copies of the reference's pairs alone, at its own places.
    pub reference_floor_ns: Option<f64>,
    /// `reference_ns / ns`.
    pub ratio: Option<f64>,
    /// The median over all rounds of the same ratio in one round: what is compared with the aims.
    pub ratio_median: Option<f64>,
    /// Single maps.
    pub latency: Option<Latency>,
    /// Single maps of the reference.
    pub reference_latency: Option<Latency>,
    /// Two threads: the cores as they were just before.
    pub cores: Option<Cores>,
    /// Rounds that nothing came between; 0: the machine was too busy, and all rounds count.
    pub quiet_rounds: usize,
    /// What issue 6 asks of the pool alone here.
    pub aims: Vec<Aim>,
}

/// How full of small mappings a pool may be until large ones find no room.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Fragmentation {
    /// The length of the large mapping in bytes.
    pub size: usize,
    /// The length of the pool in bytes.
    pub pool_size: usize,
    /// Which way was measured.
    pub way: Way,
    /// How its caches are reached.
    pub handle: Handle,
    /// The last occupancy in percent at which it was had.
    pub occupancy: usize,
    /// The same of the reference.
    pub reference_occupancy: usize,
    /// What issue 6 asks for here, in percent.
    pub aim: Option<Aim>,
}

/// All that one run measured.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// The cores, as they were at the start; none where there is one alone.
    pub cores: Option<Cores>,
    /// Windows of each implementation at each point.
    pub windows: usize,
    /// Their length in microseconds, about.
    pub window_us: f64,
    /// A row for each point and way.
    pub rows: Vec<Row>,
    /// How long large mappings can be had.
    pub fragmentation: Vec<Fragmentation>,
    /// What could not be measured here, and why.
    pub left_out: Vec<String>,
}
