//! The userspace machine: a confidential guest whose memory is this process's, with invented
//! physical addresses. Its private memory is a [`PrivateArena`] and everything else that this
//! process has; its shared memory are [`SharedRegion`]s that device processes are given.
// UNSAFETY: the layer believes what a platform says of memory.
#![expect(unsafe_code)]

mod layer;

use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, Ordering};

use coco_dma::addr::{DmaAddr, PhysAddr, PhysRange};
use coco_dma::platform::{ConvertError, NoView, Platform};
use coco_dma::pool::{Pool, PoolError};
use coco_dma::regime::Regime;
use coco_dma::state::{Context, PoolLabel, State, Trust, Visibility};

use crate::memory::{MemoryError, PrivateArena, SharedRegion};
pub use layer::{Layer, Storage};

/// Where arena and pool lie in the invented physical memory: like RAM of a machine with 16 GiB,
/// or below 2 GiB for platforms whose marks leave no more. Far apart, holes in between.
const PLACES: [(u64, u64); 2] = [(0x1_0000_0000, 0x2_0000_0000), (0x2000_0000, 0x4000_0000)];

/// A machine that cannot be.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MachineError {
    /// Nothing is private on such a platform.
    #[error("nothing is private on this platform: choose one of a confidential guest")]
    NothingPrivate,
    /// The pool does not fit below the marks of the platform's addresses.
    #[error(
        "a pool of {size} bytes does not fit below {limit:#x}, where the memory of this platform \
         ends: make it smaller, or give the platform more address bits"
    )]
    TooLarge {
        /// Bytes asked for.
        size: usize,
        /// The last address of memory.
        limit: u64,
    },
    /// Memory could not be had.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The layer does not take the memory as a pool.
    #[error("the shared memory makes no pool: {0}")]
    Pool(PoolError),
    /// The pool was made already.
    #[error("the machine's pool was made already: keep the first one, or make another machine")]
    PoolTaken,
}

/// One region of shared memory with the addresses that it has.
#[derive(Debug)]
pub struct Placed {
    /// The memory.
    pub region: SharedRegion,
    /// Where the machine has it.
    pub range: PhysRange,
    /// Where an untrusted device sees it: the DMA form of that address.
    pub dma: DmaAddr,
}

/// The machine.
#[derive(Debug)]
pub struct UserMachine {
    regime: Regime,
    arena: PrivateArena,
    arena_range: PhysRange,
    shared: [Placed; 1],
    pool_taken: AtomicBool,
}

impl UserMachine {
    /// A machine with these rules, private memory and `pool_size` bytes of shared memory (whole
    /// pages of 4096).
    ///
    /// # Errors
    ///
    /// [`MachineError::NothingPrivate`] for rules that are no guest's, [`MachineError::TooLarge`],
    /// [`MachineError::Memory`].
    pub fn new(
        regime: Regime,
        arena: PrivateArena,
        pool_size: usize,
    ) -> Result<Self, MachineError> {
        if !regime.is_guest() {
            return Err(MachineError::NothingPrivate);
        }
        let region = SharedRegion::new(pool_size)?;
        let limit = regime.memory_limit().raw();
        let place = |(private, shared): (u64, u64)| {
            let arena_range = run(private, arena.len()).filter(|run| run.last().raw() <= limit)?;
            let range = run(shared, pool_size).filter(|run| run.last().raw() <= limit)?;
            let dma = regime.dma_form(Trust::Untrusted, State::SHARED, shared)?;
            (!arena_range.overlaps(range)).then_some((arena_range, range, dma))
        };
        let (arena_range, range, dma) = (PLACES.into_iter().find_map(place))
            .ok_or(MachineError::TooLarge { size: pool_size, limit })?;
        let shared = [Placed { region, range, dma }];
        Ok(Self { regime, arena, arena_range, shared, pool_taken: AtomicBool::new(false) })
    }

    /// Its rules.
    #[must_use]
    pub fn rules(&self) -> &Regime {
        &self.regime
    }

    /// The private memory.
    #[must_use]
    pub fn arena(&self) -> &PrivateArena {
        &self.arena
    }

    /// Where the private memory lies.
    #[must_use]
    pub fn arena_range(&self) -> PhysRange {
        self.arena_range
    }

    /// The shared regions: everything that a device process is given.
    #[must_use]
    pub fn shared(&self) -> &[Placed] {
        &self.shared
    }

    /// Makes the pool over the shared memory. Once: nothing else may use that memory.
    fn adopt<'m>(&'m self, words: &'m [coco_dma::Word]) -> Result<Pool<'m>, MachineError> {
        let [placed] = &self.shared;
        if self.pool_taken.swap(true, Ordering::AcqRel) {
            return Err(MachineError::PoolTaken);
        }
        let (label, view) = (PoolLabel::GuestShared, placed.region.start());
        // SAFETY: 1. the region is mapped as long as `self` is borrowed, and `range` has its
        // length. 2. It is shared from birth and for good: `convert` does nothing. 3. Of this
        // process only the pool touches it, made once (`pool_taken`); the front end passes on
        // its descriptor, and nothing makes references to it.
        unsafe { Pool::adopt(label, placed.range, view, words) }.map_err(MachineError::Pool)
    }
}

// SAFETY: 1. `regime` is a constant of the machine. 2. `locate` answers only for the two mappings
// that the machine owns, linearly. 3. `convert` never succeeds and changes nothing. 4. `view`
// answers with the mappings themselves, readable and writable for the machine's whole life, in
// the one state that each has.
unsafe impl Platform for UserMachine {
    fn regime(&self) -> Regime {
        self.regime
    }

    fn locate(&self, bytes: NonNull<[u8]>) -> Option<PhysRange> {
        let len = u64::try_from(bytes.len()).ok()?;
        let private = self.arena.offset_of(bytes).map(|offset| (self.arena_range, offset));
        let (range, offset) = private.or_else(|| {
            let within = |placed: &Placed| Some((placed.range, placed.region.offset_of(bytes)?));
            self.shared.iter().find_map(within)
        })?;
        range.slice(u64::try_from(offset).ok()?, len)
    }

    unsafe fn convert(&self, _run: PhysRange, _to: Visibility) -> Result<(), ConvertError> {
        // Regions that come and go are not built yet.
        Err(ConvertError { done: 0, doubt: 0, code: u64::from(libc::EOPNOTSUPP.unsigned_abs()) })
    }

    unsafe fn view(
        &self,
        run: PhysRange,
        state: State,
        _context: Context,
    ) -> Result<NonNull<u8>, NoView> {
        let (range, start) = match state {
            State::PRIVATE => (self.arena_range, self.arena.start()),
            State::SHARED => {
                let holds = |placed: &&Placed| placed.range.contains(run);
                let placed = self.shared.iter().find(holds).ok_or(NoView)?;
                (placed.range, placed.region.start())
            }
            _ => return Err(NoView),
        };
        if !range.contains(run) {
            return Err(NoView);
        }
        let offset = run.base().offset_from(range.base()).ok_or(NoView)?;
        let offset = usize::try_from(offset).map_err(|_| NoView)?;
        // SAFETY: the run lies in the mapping that starts here.
        Ok(unsafe { start.add(offset) })
    }

    unsafe fn unview(&self, _start: NonNull<u8>, _run: PhysRange) {
        // The view is the mapping itself.
    }
}

fn run(base: u64, len: usize) -> Option<PhysRange> {
    PhysRange::new(PhysAddr::new(base), u64::try_from(len).ok()?)
}

#[cfg(test)]
mod tests;
