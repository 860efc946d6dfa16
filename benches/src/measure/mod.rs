//! How time is measured: short windows, implementations window by window beside each other, and
//! nothing counted that the scheduler came between.

mod cores;
mod race;
mod stats;

pub use cores::Cores;
pub(crate) use cores::CpuPair;
pub use cores::Placement;
pub(crate) use cores::cpu;
pub(crate) use cores::pause;
pub(crate) use cores::stand_for;
pub(crate) use race::Lane;
pub use race::Pace;
pub(crate) use race::Race;
pub(crate) use race::race;
pub use stats::Latency;
pub(crate) use stats::lower_quartile;
pub(crate) use stats::median;
