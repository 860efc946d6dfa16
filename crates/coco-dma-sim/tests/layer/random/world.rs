//! A machine with everything that a layer can have, and the model of it.

use std::ptr::NonNull;
use std::sync::Mutex;

use coco_dma::Dma;
use coco_dma::addr::PhysRange;
use coco_dma::coherent::RawCoherent;
use coco_dma::device::Device;
use coco_dma::observe::Event;
use coco_dma::observe::Observer;
use coco_dma::plan::AllocKind;
use coco_dma::pool::Pool;
use coco_dma::state::Direction;
use coco_dma::stream::RawMapping;
use coco_dma_sim::Faulty;
use coco_dma_sim::Machine;
use coco_dma_sim::SimDevice;

use super::build::ARENA;
use super::build::HEAP;
use super::model::Model;
use super::paths::Path;
use crate::support::Arena;
use crate::support::BASE;
use crate::support::part_of;
use crate::support::run;

pub(crate) type Host = Faulty<Machine>;

/// The layer, the machine under it, the model beside it, and what lives.
pub(crate) struct World<'w> {
    pub(crate) machine: &'w Machine,
    pub(crate) host: &'w Host,
    pub(crate) arena: &'w Arena,
    pub(crate) dma: &'w Dma<'w, Host>,
    pub(crate) pools: Vec<&'w Pool<'w>>,
    pub(crate) devices: Vec<Device<'w, Host>>,
    pub(crate) own: &'w [&'w Pool<'w>],
    pub(super) heap_start: NonNull<[u8]>,
    /// A granule that is nobody's, and the peer's memory behind it.
    pub(super) by_peers: NonNull<[u8]>,
    pub(crate) nics: Vec<SimDevice>,
    pub(crate) maps: Vec<LiveMap>,
    pub(crate) memories: Vec<LiveMemory>,
    pub(crate) model: Model,
    pub(crate) log: &'w Log,
    pub(crate) secret: [u8; 32],
    /// Whether the platform lies as it likes.
    pub(crate) wild: bool,
    /// Whether it never lies at all.
    pub(crate) honest: bool,
    pub(crate) now: String,
    /// The way that maps and their ends take.
    pub(crate) path: Path,
    /// How often what happened.
    pub(crate) met: Met,
}

/// How often what happened, by its name.
pub(crate) type Met = std::collections::BTreeMap<String, usize>;

/// A map that lives.
pub(crate) struct LiveMap {
    pub(crate) device: usize,
    pub(crate) mapping: RawMapping,
    /// Where the buffer lies in the heap.
    pub(crate) at: usize,
    pub(crate) len: usize,
    pub(crate) direction: Direction,
    /// The driver syncs by hand.
    pub(crate) by_hand: bool,
    /// The slots, and what the device has in them; in place there are none.
    pub(crate) bounced: Option<(usize, Vec<u8>)>,
}

/// An allocation that lives.
pub(crate) struct LiveMemory {
    pub(crate) device: usize,
    pub(crate) memory: RawCoherent,
    pub(crate) kind: AllocKind,
    /// Slots, or granules of the arena.
    pub(crate) place: MemoryPlace,
    pub(crate) bytes: Vec<u8>,
}

#[derive(Clone, Debug)]
pub(crate) enum MemoryPlace {
    Slots(usize),
    /// Granules that it touches, and how many pages it has.
    Pages(std::ops::Range<usize>, usize),
}

/// Everything that was told.
#[derive(Debug, Default)]
pub(crate) struct Log {
    pub(crate) bounced: Mutex<usize>,
    pub(crate) refused: Mutex<usize>,
    pub(crate) lost: Mutex<u64>,
    pub(crate) recovered: Mutex<u64>,
}

impl Observer for Log {
    fn event(&self, event: &Event<'_>) {
        match event {
            Event::Bounced { .. } => *self.bounced.lock().unwrap() += 1,
            Event::Refused { .. } => *self.refused.lock().unwrap() += 1,
            Event::ConversionFailed { quarantined, .. } => {
                *self.lost.lock().unwrap() += quarantined;
            }
            Event::Recovered { run } => *self.recovered.lock().unwrap() += run.len(),
            _ => {}
        }
    }
}

/// What the platform's word is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Truth {
    /// It fails, and says so.
    Honest,
    /// It lies, and a look at the memory shows it.
    Seen,
    /// It lies as it likes.
    Wild,
}

impl World<'_> {
    /// Notes that something happened: a test that never met what it is about proves nothing.
    pub(crate) fn met(&mut self, what: impl ToString) {
        *self.met.entry(what.to_string()).or_default() += 1;
    }

    /// The granules of the heap.
    pub(crate) fn heap(&self) -> std::ops::Range<usize> {
        ARENA..ARENA + HEAP
    }

    /// The granules of the arena.
    pub(crate) fn arena_granules(&self) -> std::ops::Range<usize> {
        0..ARENA
    }

    pub(crate) fn part(&self, granules: std::ops::Range<usize>) -> PhysRange {
        let granule = self.model.granule;
        let [first, count] =
            [granules.start, granules.len()].map(|number| u64::try_from(number).unwrap());
        run(BASE + first * granule, count * granule)
    }

    /// The bytes of the heap from `at` on, by their address.
    pub(crate) fn heap_range(&self, at: usize, len: usize) -> PhysRange {
        let heap = self.part(self.heap());
        heap.slice(u64::try_from(at).unwrap(), u64::try_from(len).unwrap()).unwrap()
    }

    pub(crate) fn heap_bytes(&self, at: usize, len: usize) -> NonNull<[u8]> {
        part_of(self.heap_start, at, len)
    }

    /// The granules that bytes of the heap touch.
    pub(crate) fn touched(&self, at: usize, len: usize) -> std::ops::Range<usize> {
        let granule = usize::try_from(self.model.granule).unwrap();
        ARENA + at / granule..ARENA + (at + len).div_ceil(granule)
    }

    /// The driver writes into the heap.
    pub(crate) fn driver_writes(&mut self, at: usize, bytes: &[u8]) {
        self.machine.guest_write(self.heap_range(at, bytes.len()).base(), bytes);
        self.model.heap[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// Fills all private memory that nothing lives in with the secret again.
    pub(crate) fn rearm(&mut self) {
        let granule = usize::try_from(self.model.granule).unwrap();
        let copies: Vec<u8> = self.secret.iter().copied().cycle().take(granule).collect();
        for number in self.heap() {
            let at = (number - ARENA) * granule;
            let used = self.maps.iter().any(|map| map.at < at + granule && at < map.at + map.len);
            let private = self.model.granules[number].0 == coco_dma::ledger::GranuleState::Private;
            if private && !used {
                self.driver_writes(at, &copies);
            }
        }
        // Pages of the arena that nobody has, and regions of closed pools.
        for number in self.arena_granules() {
            let range = self.part(number..number + 1);
            if self.arena.is_free(range) {
                self.machine.guest_write(range.base(), &copies);
            }
        }
        for pool in self.model.pools.iter().filter(|pool| !pool.open) {
            for number in pool.granules.clone() {
                if self.model.granules[number].0 == coco_dma::ledger::GranuleState::Private {
                    let range = self.part(number..number + 1);
                    self.machine.guest_write(range.base(), &copies);
                }
            }
        }
    }
}
