//! Giving memory out: runs for whoever converts them, buffers for drivers, pools as they come.

use std::fmt;
use std::ptr::NonNull;

use coco_dma::Word;
use coco_dma::addr::PhysRange;
use coco_dma::pool::Pool;
use coco_dma::state::CacheMode;
use coco_dma::state::PoolLabel;
use coco_dma::state::State;

use super::Machine;
use super::Violation;
use crate::number;
use crate::ram::GranuleState;

impl Machine {
    /// A run of at least `len` bytes in whole granules, which nobody else is given, in the state
    /// in which memory comes. Its bytes are what its last owner left in it. It is the lowest free
    /// one.
    pub fn take(&self, len: u64) -> Result<PhysRange, NoMemory> {
        self.take_fitting(len, |_| true)
    }

    /// The same, of those runs that fit.
    pub fn take_fitting(
        &self,
        len: u64,
        fits: impl Fn(PhysRange) -> bool,
    ) -> Result<PhysRange, NoMemory> {
        let granule = self.rules().granule();
        let state = self.hardware().at_boot;
        let count = number::size(len.div_ceil(granule));
        let mut live = self.live();
        let mut regions = live.ram.regions_mut().iter_mut();
        let found = if count == 0 {
            None
        } else {
            regions.find_map(|region| region.take(granule, count, state, &fits))
        };
        found.ok_or(NoMemory::Full { len })
    }

    /// This run, if nobody has a part of it. It has to be made of whole granules of RAM.
    pub fn take_at(&self, run: PhysRange) -> Result<PhysRange, NoMemory> {
        let granule = self.rules().granule();
        let mut live = self.live();
        let mut regions = live.ram.regions_mut().iter_mut();
        let region = regions.find(|region| region.range().contains(run));
        match region {
            Some(region) if run.is_aligned(granule) && !region.any_taken(granule, run) => {
                region.mark(granule, run, true);
                Ok(run)
            }
            _ => Err(NoMemory::NotFree { run }),
        }
    }

    /// Gives a run back. It has to be in the state in which it was given.
    pub fn free(&self, run: PhysRange) {
        let granule = self.rules().granule();
        let mut live = self.live();
        if let Some((at, found)) = live.ram.first_not(run, self.hardware().at_boot) {
            live.violations.push(Violation::FreedConverted { run, at, found });
        }
        let mut regions = live.ram.regions_mut().iter_mut();
        match regions.find(|region| region.range().contains(run)) {
            Some(region)
                if number::granules(run, granule).all(|part| region.any_taken(granule, part)) =>
            {
                region.mark(granule, run, false);
            }
            _ => live.violations.push(Violation::FreedUntaken { run }),
        }
    }

    /// A buffer of `len` bytes, as a driver has one: private memory in a guest, at the start of a
    /// granule of its own. Its bytes are what its last owner left in it.
    pub fn alloc(&self, len: usize) -> Result<GuestBuffer, NoMemory> {
        self.alloc_at_offset(len, 0)
    }

    /// The same, `offset` bytes into its first granule.
    pub fn alloc_at_offset(&self, len: usize, offset: usize) -> Result<GuestBuffer, NoMemory> {
        let missing = NoMemory::Full { len: number::wide(len) };
        if len == 0 {
            return Err(missing);
        }
        let whole = len.checked_add(offset).ok_or(missing)?;
        let run = self.take(number::wide(whole))?;
        let range = run.slice(number::wide(offset), number::wide(len)).ok_or(missing)?;
        let start = self.live().ram.pointer(range, CacheMode::WriteBack).ok_or(missing)?;
        let bytes = NonNull::slice_from_raw_parts(start, len);
        Ok(GuestBuffer { machine: self.clone(), run, range, bytes })
    }

    /// Memory for a pool that comes in the state of its label: what firmware or the host set up
    /// before the layer began. It stays taken.
    pub fn adopt_pool(&self, label: PoolLabel, len: u64) -> Result<PoolMemory, NoMemory> {
        let state = self.state_of(label)?;
        self.pool_in(label, state, self.take(len)?)
    }

    /// The same, at this address.
    pub fn adopt_pool_at(&self, label: PoolLabel, run: PhysRange) -> Result<PoolMemory, NoMemory> {
        let state = self.state_of(label)?;
        self.pool_in(label, state, self.take_at(run)?)
    }

    fn state_of(&self, label: PoolLabel) -> Result<State, NoMemory> {
        let at_boot = self.hardware().at_boot;
        match (label, at_boot) {
            (PoolLabel::Ordinary, State::Ordinary | State::ENCRYPTED) => Ok(at_boot),
            (PoolLabel::HostPlain, State::ENCRYPTED) => Ok(State::PLAIN),
            (PoolLabel::GuestShared, State::PRIVATE) => Ok(State::SHARED),
            (PoolLabel::GuestPrivate, State::PRIVATE) => Ok(State::PRIVATE),
            _ => Err(NoMemory::NoSuchLabel(label)),
        }
    }

    fn pool_in(
        &self,
        label: PoolLabel,
        state: State,
        run: PhysRange,
    ) -> Result<PoolMemory, NoMemory> {
        let mut live = self.live();
        live.ram.set_state(run, GranuleState::In(state));
        let view = live.ram.pointer(run, CacheMode::WriteBack).ok_or(NoMemory::NotFree { run })?;
        Ok(PoolMemory { label, range: run, view })
    }
}

/// Memory in the state of a pool's label: all that `Pool::adopt` asks for.
#[derive(Clone, Copy, Debug)]
pub struct PoolMemory {
    /// The label.
    pub label: PoolLabel,
    /// Where it lies.
    pub range: PhysRange,
    /// Where the CPU sees it, for as long as the machine lives.
    pub view: NonNull<u8>,
}

impl PoolMemory {
    /// Storage for the pool's bookkeeping.
    pub fn words(&self) -> Vec<Word> {
        (0..Pool::words(self.range.len())).map(|_| Word::new()).collect()
    }
}

/// A buffer of a driver. Dropping it frees it.
#[derive(Debug)]
pub struct GuestBuffer {
    machine: Machine,
    run: PhysRange,
    range: PhysRange,
    bytes: NonNull<[u8]>,
}

impl GuestBuffer {
    /// The bytes, for as long as the buffer lives. Nothing else points there, devices apart.
    pub fn bytes(&self) -> NonNull<[u8]> {
        self.bytes
    }

    /// Where they lie.
    pub fn range(&self) -> PhysRange {
        self.range
    }

    /// The whole granules that are the buffer's own, bytes before and after it included.
    pub fn run(&self) -> PhysRange {
        self.run
    }

    /// Copies `from` to the start of the buffer. `false`, and nothing is copied, where it is
    /// longer.
    pub fn write(&self, from: &[u8]) -> bool {
        from.len() <= self.bytes.len() && self.machine.guest_write(self.range.base(), from)
    }

    /// A copy of the bytes.
    pub fn read(&self) -> Vec<u8> {
        let mut copy = vec![0; self.bytes.len()];
        self.machine.guest_read(self.range.base(), &mut copy);
        copy
    }
}

impl Drop for GuestBuffer {
    fn drop(&mut self) {
        self.machine.free(self.run);
    }
}

/// The machine has no such memory to give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NoMemory {
    /// No free run is as long as this many bytes (nor is one ever empty).
    Full {
        /// Bytes asked for.
        len: u64,
    },
    /// The run is not made of whole granules of RAM, or somebody has a part of it.
    NotFree {
        /// The run asked for.
        run: PhysRange,
    },
    /// No memory of this machine can have this label.
    NoSuchLabel(PoolLabel),
}

impl fmt::Display for NoMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full { len } => write!(f, "the machine has no run of {len:#x} free bytes"),
            Self::NotFree { run } => {
                write!(f, "{run} is not free, or not made of whole granules of RAM")
            }
            Self::NoSuchLabel(label) => write!(f, "no memory of this machine is {label}"),
        }
    }
}

impl std::error::Error for NoMemory {}
