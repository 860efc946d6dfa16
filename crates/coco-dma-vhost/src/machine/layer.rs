//! The layer on the userspace machine, set up.

use core::fmt;

use coco_dma::Dma;
use coco_dma::Word;
use coco_dma::platform::Platform;
use coco_dma::pool::Pool;

use super::{MachineError, UserMachine};

/// The storage that a [`Layer`] keeps its books in, and its pool. Make it before the layer:
///
/// ```no_run
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # use coco_dma::regime::{Parameters, PlatformName};
/// # use coco_dma_vhost::{machine::{Layer, Storage, UserMachine}, memory::PrivateArena};
/// let regime = PlatformName::Tdx.regime(&Parameters::default())?;
/// let machine = UserMachine::new(regime, PrivateArena::new(1 << 20)?, 64 << 20)?;
/// let storage = Storage::of(&machine);
/// let pools = storage.pools(&machine)?;
/// let layer = Layer::new(&machine, &pools);
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Storage(Vec<Word>);

impl Storage {
    /// As much as the machine's pool needs.
    #[must_use]
    pub fn of(machine: &UserMachine) -> Self {
        let [placed] = &machine.shared;
        let words = Pool::words(placed.range.len());
        Self((0..words).map(|_| Word::new()).collect())
    }

    /// The machine's pool, as the slice that a [`Layer`] takes.
    ///
    /// # Errors
    ///
    /// [`MachineError::PoolTaken`] the second time.
    pub fn pools<'m>(&'m self, machine: &'m UserMachine) -> Result<[Pool<'m>; 1], MachineError> {
        Ok([machine.adopt(&self.0)?])
    }
}

/// The DMA layer on a [`UserMachine`]: what jobs run on.
pub struct Layer<'m> {
    machine: &'m UserMachine,
    pools: &'m [Pool<'m>; 1],
    dma: Dma<'m>,
}

impl<'m> Layer<'m> {
    /// The layer over the machine with its pool.
    #[must_use]
    pub fn new(machine: &'m UserMachine, pools: &'m [Pool<'m>; 1]) -> Self {
        let platform: &'m (dyn Platform + 'm) = machine;
        Self { machine, pools, dma: Dma::new(platform, pools) }
    }

    /// The machine.
    #[must_use]
    pub fn machine(&self) -> &'m UserMachine {
        self.machine
    }

    /// The pool that every device bounces through.
    #[must_use]
    pub fn pool(&self) -> &'m Pool<'m> {
        let [pool] = self.pools;
        pool
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
