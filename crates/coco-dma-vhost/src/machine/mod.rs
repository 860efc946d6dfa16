//! The userspace machine: a confidential guest whose memory is this process's, with invented
//! physical addresses. Its private memory is a [`PrivateArena`] and everything else that this
//! process has; its shared memory is a [`SharedRegion`] that device processes are given.
//!
//! Beside these two it can have *regions*: memory that is shared and reclaimed at run time, a
//! region at a time. A region is this machine's granule: device processes are given whole memory
//! files, so that the ledger refuses to convert a part of one. Sharing a region means that every
//! connected device is told of it and has said yes, and every device that connects later is told
//! at once. Reclaiming one means that every device was told to let go, and that the memory itself
//! was replaced by fresh private memory, so that a device which does not let go keeps something
//! that is nobody's.
// UNSAFETY: pools are made over memory that nobody else may use.
#![expect(unsafe_code)]

mod board;
mod layer;
mod peer;
mod platform;
mod regions;

use core::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

use coco_dma::addr::{DmaAddr, PhysAddr, PhysRange};
use coco_dma::ledger::LedgerError;
use coco_dma::pool::{Pool, PoolError};
use coco_dma::regime::Regime;
use coco_dma::state::{PoolLabel, State, Trust};

use crate::memory::{MemoryError, PrivateArena, SharedRegion};
use board::Board;
pub use layer::{Books, Layer, Storage};
pub(crate) use peer::{Peer, Window};
use regions::Regions;

/// Where arena, regions and pool lie in the invented physical memory: like RAM of a machine with
/// 16 GiB, or below 2 GiB for platforms whose marks leave no more. Far apart, holes in between.
const PLACES: [(u64, u64, u64); 2] =
    [(0x1_0000_0000, 0x1_8000_0000, 0x2_0000_0000), (0x2000_0000, 0x3000_0000, 0x4000_0000)];
/// The least that is a hole, in bytes.
const HOLE: u64 = 1 << 20;

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
    /// Regions that do not fit between private memory and pool, or are no granules.
    #[error(
        "{count} regions of {size} bytes are not possible: ask for a power of two of at least \
         4096 bytes each, and less than {room} bytes in all"
    )]
    Regions {
        /// Regions asked for.
        count: usize,
        /// Bytes of each.
        size: usize,
        /// Bytes that there are.
        room: u64,
    },
    /// More regions for pools than there are.
    #[error("the pools want {wanted} regions of {count}: make a machine with more")]
    Growth {
        /// Regions wanted.
        wanted: usize,
        /// Regions that there are.
        count: usize,
    },
    /// Memory could not be had.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The layer does not take the memory as a pool.
    #[error("the shared memory makes no pool: {0}")]
    Pool(PoolError),
    /// The layer keeps no ledger of the regions.
    #[error("the regions make no ledger: {0}")]
    Ledger(LedgerError),
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
    regions: Option<Regions>,
    board: Board,
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
        let place = |(private, _, shared): (u64, u64, u64)| {
            let arena_range = run(private, arena.len()).filter(|run| run.last().raw() <= limit)?;
            let range = run(shared, pool_size).filter(|run| run.last().raw() <= limit)?;
            let dma = regime.dma_form(Trust::Untrusted, State::SHARED, shared)?;
            (!arena_range.overlaps(range)).then_some((arena_range, range, dma))
        };
        let (arena_range, range, dma) = (PLACES.into_iter().find_map(place))
            .ok_or(MachineError::TooLarge { size: pool_size, limit })?;
        let shared = [Placed { region, range, dma }];
        let (regions, board, pool_taken) = (None, Board::new(0), AtomicBool::new(false));
        Ok(Self { regime, arena, arena_range, shared, regions, board, pool_taken })
    }

    /// The same machine with `count` regions of `size` bytes that can be shared at run time
    /// (`size` a power of two of at least 4096). They lie side by side, and are private memory of
    /// this process that is not secret.
    ///
    /// # Errors
    ///
    /// [`MachineError::Regions`] where they do not fit, [`MachineError::Memory`].
    pub fn with_regions(self, count: usize, size: usize) -> Result<Self, MachineError> {
        let base = self.arena_range.base().raw();
        let (_, first, pool) =
            PLACES.into_iter().find(|place| place.0 == base).unwrap_or(PLACES[1]);
        let room = pool - first - HOLE;
        let impossible = MachineError::Regions { count, size, room };
        let whole = size.is_power_of_two() && size >= 4096;
        let len = count.checked_mul(size).filter(|_| whole);
        let range = len.and_then(|len| run(first, len)).filter(|range| range.len() < room);
        let dma = self.regime.dma_form(Trust::Untrusted, State::SHARED, first);
        let (Some(range), Some(dma)) = (range, dma) else { return Err(impossible) };
        let regions = Some(Regions::new(count, size, range, dma)?);
        Ok(Self { regions, board: Board::new(count), ..self })
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

    /// The memory that is shared for good: everything that a device process is given, the regions
    /// apart.
    #[must_use]
    pub fn shared(&self) -> &[Placed] {
        &self.shared
    }

    /// Where the regions lie, all of them together; `None` where the machine has none.
    #[must_use]
    pub fn regions(&self) -> Option<PhysRange> {
        self.regions.as_ref().map(|regions| regions.range)
    }

    /// One of the regions, counted from 0.
    #[must_use]
    pub fn region(&self, number: usize) -> Option<PhysRange> {
        let regions = self.regions.as_ref()?;
        let size = regions.size() as u64;
        regions.range.slice(size.checked_mul(u64::try_from(number).ok()?)?, size)
    }

    /// How many regions there are.
    fn region_count(&self) -> usize {
        let regions = self.regions.as_ref();
        regions.map_or(0, |all| usize::try_from(all.range.len()).unwrap_or(0) / all.size())
    }

    /// Introduces a device: `tell` gives it everything that is shared now, and it is told of every
    /// change from then on, until it is [forgotten](Self::forget).
    pub(crate) fn introduce<E>(
        &self,
        peer: Arc<dyn Peer>,
        tell: impl FnOnce(&[Window<'_>]) -> Result<(), E>,
    ) -> Result<(), E> {
        self.board.introduce(peer, self.pool_window(), self.regions.as_ref(), tell)
    }

    /// Forgets a device whose connection has ended.
    pub(crate) fn forget(&self, peer: &Arc<dyn Peer>) {
        self.board.forget(peer);
    }

    /// Runs `look` with everything that is shared now, the pool first.
    pub(crate) fn windows<R>(&self, look: impl FnOnce(&[Window<'_>]) -> R) -> R {
        self.board.windows(self.pool_window(), self.regions.as_ref(), look)
    }

    fn pool_window(&self) -> Window<'_> {
        let [placed] = &self.shared;
        Window::of_pool(&placed.region, placed.range, placed.dma)
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

    /// Makes a pool over regions. Called by [`Storage::books`] alone, behind `adopt`: each region
    /// is in one pool at most.
    fn convertible<'m>(
        &'m self,
        range: PhysRange,
        words: &'m [coco_dma::Word],
    ) -> Result<Pool<'m>, MachineError> {
        // SAFETY: of this process only the pool touches the regions while it is open: whoever
        // else shares or reclaims memory answers for it that the memory is his (`Dma::share`).
        let pool = unsafe { Pool::convertible(PoolLabel::GuestShared, range, words) };
        pool.map_err(MachineError::Pool)
    }
}

fn run(base: u64, len: usize) -> Option<PhysRange> {
    PhysRange::new(PhysAddr::new(base), u64::try_from(len).ok()?)
}

#[cfg(test)]
mod tests;
