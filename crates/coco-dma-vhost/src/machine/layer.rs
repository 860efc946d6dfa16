//! The layer on the userspace machine, set up.

use core::fmt;
use core::num::NonZero;
use std::thread::available_parallelism;

use coco_dma::Dma;
use coco_dma::Word;
use coco_dma::addr::PhysRange;
use coco_dma::ledger::{Initial, Ledger, LedgerError, Tracked};
use coco_dma::observe::Observer;
use coco_dma::platform::Platform;
use coco_dma::pool::{Cache, Pool};
use coco_dma::state::Visibility;

use super::{MachineError, UserMachine};

/// The storage that a [`Layer`] keeps its books in. Make it before the layer:
///
/// ```no_run
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # use coco_dma::regime::{Parameters, PlatformName};
/// # use coco_dma_vhost::{machine::{Layer, Storage, UserMachine}, memory::PrivateArena};
/// let regime = PlatformName::Tdx.regime(&Parameters::default())?;
/// let machine = UserMachine::new(regime, PrivateArena::new(1 << 20)?, 64 << 20)?;
/// let storage = Storage::of(&machine);
/// let metadata = storage.metadata(&machine)?;
/// let layer = Layer::new(&machine, &metadata);
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Storage {
    pool: Vec<Word>,
    /// One for each CPU.
    caches: Vec<Cache>,
    ledger: Vec<Word>,
    /// Pools that open later: where, and their storage.
    growth: Vec<(PhysRange, Vec<Word>)>,
}

impl Storage {
    /// As much as the machine's pool and the ledger of its regions need.
    #[must_use]
    pub fn of(machine: &UserMachine) -> Self {
        let [placed] = &machine.shared;
        let regions = machine.regions.as_ref();
        let ledger = regions.map_or(0, |all| Tracked::words(all.range.len(), all.size() as u64));
        let pool = words(Pool::words(placed.range.len()));
        // Where nobody knows how many there are, all use one; a wrong number costs speed alone.
        let cpus = available_parallelism().map_or(1, NonZero::get);
        let caches = (0..cpus).map(|_| Cache::new()).collect();
        Self { pool, caches, ledger: words(ledger), growth: Vec::new() }
    }

    /// The same, with a pool for each number in `regions`, made of so many regions: the first ones
    /// for the first pool, and so on. They are closed until they [grow](Dma::grow); nobody else
    /// may convert their regions.
    ///
    /// # Errors
    ///
    /// [`MachineError::Growth`] where the machine has not that many.
    pub fn growing(machine: &UserMachine, regions: &[usize]) -> Result<Self, MachineError> {
        let count = machine.region_count();
        let wanted = regions.iter().fold(0_usize, |all, one| all.saturating_add(*one));
        let error = || MachineError::Growth { wanted, count };
        let mut growth = Vec::new();
        let mut first = 0;
        for number in regions {
            let all = machine.regions.as_ref().ok_or_else(error)?;
            let size = all.size() as u64;
            let (at, len) = (first as u64 * size, (*number as u64).saturating_mul(size));
            let range = all.range.slice(at, len).ok_or_else(error)?;
            growth.push((range, words(Pool::words(range.len()))));
            first += number;
        }
        Ok(Self { growth, ..Self::of(machine) })
    }

    /// Opens the books: once, since nobody else may use the machine's pool.
    ///
    /// # Errors
    ///
    /// [`MachineError::PoolTaken`] the second time.
    pub fn metadata<'m>(&'m self, machine: &'m UserMachine) -> Result<Books<'m>, MachineError> {
        let mut pools = vec![machine.adopt(&self.pool)?.with_caches(&self.caches)];
        for (range, words) in &self.growth {
            pools.push(machine.convertible(*range, words)?);
        }
        // What is in no book is untracked; that the arena is private is known.
        let mut ranges = vec![Tracked::foreign(machine.arena_range, Visibility::Private)];
        if let Some(regions) = &machine.regions {
            let (range, granule) = (regions.range, regions.size() as u64);
            let tracked = Tracked::new(range, granule, Initial::Private, &self.ledger);
            ranges.push(tracked.map_err(MachineError::Ledger)?);
        }
        let order = |error: LedgerError| MachineError::Ledger(error);
        Ledger::new(&ranges).map_err(order)?;
        Ok(Books { pools, ranges })
    }
}

fn words(count: usize) -> Vec<Word> {
    (0..count).map(|_| Word::new()).collect()
}

/// The books of a machine: the state of its regions, and its pools.
#[derive(Debug)]
pub struct Books<'m> {
    /// At least one.
    pools: Vec<Pool<'m>>,
    /// In ascending order.
    ranges: Vec<Tracked<'m>>,
}

/// The DMA layer on a [`UserMachine`]: what jobs run on.
pub struct Layer<'m> {
    machine: &'m UserMachine,
    pool: &'m Pool<'m>,
    growth: &'m [Pool<'m>],
    dma: Dma<'m>,
}

impl<'m> Layer<'m> {
    /// The layer over the machine with its books.
    #[must_use]
    pub fn new(machine: &'m UserMachine, metadata: &'m Books<'m>) -> Self {
        let platform: &'m (dyn Platform + 'm) = machine;
        // `Storage::books` saw to both.
        let ledger = Ledger::new(&metadata.ranges).unwrap_or(Ledger::EMPTY);
        #[expect(clippy::expect_used, reason = "metadata are made with a pool")]
        let (pool, growth) = metadata.pools.split_first().expect("metadata have a pool");
        Self { machine, pool, growth, dma: Dma::new(platform, &metadata.pools).with_ledger(ledger) }
    }

    /// The same, with somebody who listens.
    #[must_use]
    pub fn observed(self, observer: &'m dyn Observer) -> Self {
        Self { dma: self.dma.with_observer(observer), ..self }
    }

    /// The machine.
    #[must_use]
    pub fn machine(&self) -> &'m UserMachine {
        self.machine
    }

    /// The pool that is always there, and that every device bounces through first.
    #[must_use]
    pub fn pool(&self) -> &'m Pool<'m> {
        self.pool
    }

    /// The pools of regions, for [`Dma::grow`] and [`Dma::shrink`].
    #[must_use]
    pub fn growth(&self) -> &'m [Pool<'m>] {
        self.growth
    }

    /// The layer itself, to bind devices to.
    #[must_use]
    pub fn dma(&self) -> &Dma<'m> {
        &self.dma
    }
}

impl fmt::Debug for Layer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Layer")
            .field("machine", &self.machine)
            .field("dma", &self.dma)
            .finish_non_exhaustive()
    }
}
