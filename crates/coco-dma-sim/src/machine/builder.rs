//! Putting a machine together.

use std::fmt;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;

use coco_dma::addr::PhysAddr;
use coco_dma::addr::PhysRange;
use coco_dma::regime::Parameters;
use coco_dma::regime::PlatformName;
use coco_dma::regime::WrongParameter;

use super::Inner;
use super::Live;
use super::Machine;
use super::MachineCounts;
use crate::eye::Eye;
use crate::hardware::Hardware;
use crate::number;
use crate::ram::Ram;
use crate::ram::Region;

/// A machine to be. RAM comes private in a guest, encrypted on an SME host, and zeroed.
#[derive(Clone, Debug)]
pub struct Builder {
    platform: PlatformName,
    numbers: Parameters,
    ram: Vec<(u64, u64)>,
    ceiling: Option<PhysAddr>,
    seed: u64,
    caches: bool,
}

impl Builder {
    pub(super) fn new(platform: PlatformName) -> Self {
        let (numbers, ram) = (Parameters::default(), Vec::new());
        Self { platform, numbers, ram, ceiling: None, seed: 0, caches: false }
    }

    /// The numbers in which this machine differs from others of its platform.
    #[must_use]
    pub fn numbers(self, numbers: Parameters) -> Self {
        Self { numbers, ..self }
    }

    /// RAM of `size` bytes at `base`, both whole granules. May be said several times; what stands
    /// side by side is one run of this process's memory too. What is never touched costs this process nothing.
    #[must_use]
    pub fn ram(mut self, base: u64, size: u64) -> Self {
        self.ram.push((base, size));
        self
    }

    /// The last address that memory may ever have ([`MemoryMap::ceiling`]); by default that of the
    /// RAM that is there.
    ///
    /// [`MemoryMap::ceiling`]: coco_dma::addr::MemoryMap::ceiling
    #[must_use]
    pub fn ceiling(self, last: PhysAddr) -> Self {
        Self { ceiling: Some(last), ..self }
    }

    /// The seed of the guest's key and of what the host leaves in its pages (default 0).
    #[must_use]
    pub fn seed(self, seed: u64) -> Self {
        Self { seed, ..self }
    }

    /// With caches that not everybody sees: devices that are
    /// [not coherent](crate::SimDevice::not_coherent) and uncached views go past them. Without,
    /// everybody sees everything at once.
    #[must_use]
    pub fn caches(self) -> Self {
        Self { caches: true, ..self }
    }

    /// The machine.
    pub fn build(self) -> Result<Machine, BuildError> {
        let regime = self.platform.regime(&self.numbers).map_err(BuildError::Parameter)?;
        let hardware = Hardware::new(self.platform, &self.numbers);
        let granule = regime.granule();
        let mut ranges: Vec<PhysRange> = Vec::new();
        for (base, size) in self.ram {
            let wrong = BuildError::Ram { base, size, granule };
            let range = number::run(base, size).ok_or(wrong)?;
            if !range.is_aligned(granule) || range.last().raw() > regime.memory_limit().raw() {
                return Err(wrong);
            }
            if let Some(other) = ranges.iter().find(|other| other.overlaps(range)) {
                return Err(BuildError::Overlap { first: *other, second: range });
            }
            ranges.push(range);
        }
        ranges.sort_by_key(|range| range.base());
        let mut regions: Vec<Region> = Vec::new();
        for range in side_by_side(&ranges) {
            let region = Region::new(range, granule, hardware.at_boot, self.caches);
            regions.push(region.ok_or(BuildError::TooLarge { size: range.len() })?);
        }
        let present: Box<[_]> = regions.iter().map(Region::range).collect();
        let highest = present.last().map(|range| range.last());
        let ceiling = self.ceiling.max(highest);
        let live = Live {
            ram: Ram::new(regions, granule, hardware, self.seed),
            eye: Eye::default(),
            accesses: Vec::new(),
            counts: MachineCounts::default(),
            violations: Vec::new(),
            views: Vec::new(),
            atomic: Vec::new(),
        };
        let (name, live) = (self.platform, Mutex::new(live));
        let inner =
            Inner { name, regime, hardware, present, ceiling, cpu: AtomicUsize::new(0), live };
        Ok(Machine { inner: Arc::new(inner) })
    }
}

/// Ranges in ascending order, those in one that stand side by side: a buffer may lie across.
fn side_by_side(ranges: &[PhysRange]) -> Vec<PhysRange> {
    let mut merged: Vec<PhysRange> = Vec::new();
    for range in ranges {
        let touches = |last: &&mut PhysRange| last.last().checked_add(1) == Some(range.base());
        match merged.last_mut().filter(touches) {
            Some(last) => {
                *last = PhysRange::new(last.base(), last.len() + range.len()).unwrap_or(*last);
            }
            None => merged.push(*range),
        }
    }
    merged
}

/// A machine that cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BuildError {
    /// A number that no machine of the platform has.
    Parameter(WrongParameter),
    /// RAM that is empty, wraps, is not made of whole granules, or lies beyond the last address
    /// of the platform's memory.
    Ram {
        /// Where it should be.
        base: u64,
        /// How long it should be, in bytes.
        size: u64,
        /// The granule of this machine in bytes.
        granule: u64,
    },
    /// Two runs of RAM at the same address.
    Overlap {
        /// One.
        first: PhysRange,
        /// The other.
        second: PhysRange,
    },
    /// This process cannot have so much memory.
    TooLarge {
        /// Bytes asked for.
        size: u64,
    },
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Parameter(wrong) => wrong.fmt(f),
            Self::Ram { base, size, granule } => write!(
                f,
                "{size:#x} bytes at {base:#x} are no RAM of this machine: whole granules of \
                 {granule:#x} bytes, at addresses that its memory has"
            ),
            Self::Overlap { first, second } => write!(f, "RAM at {first} and at {second} overlaps"),
            Self::TooLarge { size } => write!(f, "this process cannot have {size:#x} bytes of RAM"),
        }
    }
}

impl std::error::Error for BuildError {}
