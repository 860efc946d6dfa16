//! A machine with everything that a layer can have, and the model of it.

use std::ptr::NonNull;
use std::sync::Mutex;

use coco_dma::Dma;
use coco_dma::addr::PhysRange;
use coco_dma::coherent::RawCoherent;
use coco_dma::device::CountersNow;
use coco_dma::device::Device;
use coco_dma::device::Endpoint;
use coco_dma::ledger::Initial;
use coco_dma::ledger::Ledger;
use coco_dma::ledger::Tracked;
use coco_dma::observe::Event;
use coco_dma::observe::Observer;
use coco_dma::plan::Limits;
use coco_dma::platform::Platform;
use coco_dma::pool::Pool;
use coco_dma::regime::Parameters;
use coco_dma::regime::PlatformName;
use coco_dma::state::Direction;
use coco_dma::state::PoolLabel;
use coco_dma::state::PoolUse;
use coco_dma::state::Trust;
use coco_dma::state::Visibility;
use coco_dma::stream::RawMapping;
use coco_dma_sim::Faulty;
use coco_dma_sim::Machine;
use coco_dma_sim::SimDevice;
use coco_dma_sim::marker;

use super::model::DeviceModel;
use super::model::Model;
use super::model::PoolModel;
use super::model::SLOT;
use crate::support::Arena;
use crate::support::BASE;
use crate::support::adopt;
use crate::support::bytes_at;
use crate::support::convertible;
use crate::support::part_of;
use crate::support::run;
use crate::support::vouch;
use crate::support::words;

/// Granules of the arena, of the heap behind it, and in all.
const ARENA: usize = 12;
const HEAP: usize = 16;
const GRANULES: usize = 48;
/// Granules that may be in quarantine.
pub(crate) const LOST: u64 = 20;

/// Label, granules, use, and whether the layer converts it: the pools, in the order in which the
/// devices have them. The last one is the restricted device's own.
const POOLS: [(PoolLabel, usize, PoolUse, bool); 6] = [
    (PoolLabel::GuestShared, 4, PoolUse::All, false),
    (PoolLabel::GuestPrivate, 2, PoolUse::All, false),
    (PoolLabel::GuestShared, 3, PoolUse::All, true),
    (PoolLabel::GuestShared, 2, PoolUse::Reserve, true),
    (PoolLabel::GuestPrivate, 3, PoolUse::All, true),
    (PoolLabel::GuestShared, 2, PoolUse::All, false),
];
const OWN: usize = 5;

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
    heap_start: NonNull<[u8]>,
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

/// Builds a world and lets `play` have it.
pub(crate) fn with_world(
    platform: PlatformName,
    granule: u64,
    truth: Truth,
    play: impl FnOnce(&mut World<'_>),
) {
    let total = u64::try_from(GRANULES).unwrap() * granule;
    let numbers = Parameters { granule: Some(granule), ..Parameters::default() };
    let machine = Machine::builder(platform).numbers(numbers).ram(BASE, total).build().unwrap();
    let host = Faulty::new(machine.clone());
    let part = |first: usize, count: usize| {
        let (first, count) = (u64::try_from(first).unwrap(), u64::try_from(count).unwrap());
        run(BASE + first * granule, count * granule)
    };
    let arena = Arena::new(&machine, u64::try_from(ARENA).unwrap() * granule);
    machine.take_at(part(ARENA, HEAP)).unwrap();

    // The pool that is one device's own is the last, and nobody converts it.
    let own_at = ARENA + HEAP + POOLS[..OWN].iter().map(|(_, count, ..)| count).sum::<usize>();
    let own_part = part(own_at, POOLS[OWN].1);
    let behind = own_at + POOLS[OWN].1;
    let (below, above) = (part(0, own_at), part(behind, GRANULES - behind));
    let words_of = |run: PhysRange| words(Tracked::words(run.len(), granule));
    let book_words = [words_of(below), words_of(above)];
    let own = |run, words| Tracked::new(run, granule, Initial::Private, words).unwrap();
    let books = [
        own(below, &book_words[0]),
        Tracked::foreign(own_part, Visibility::Shared),
        own(above, &book_words[1]),
    ];
    let ledger = Ledger::new(&books).unwrap();
    let (mut storages, mut first, mut models) = (Vec::new(), ARENA + HEAP, Vec::new());
    for (label, count, purpose, converts) in POOLS {
        let range = part(first, count);
        storages.push((range, words(Pool::words(range.len()))));
        if label == PoolLabel::GuestShared && !converts && range != own_part {
            ledger.declare(range, Visibility::Shared).unwrap();
        }
        models.push(PoolModel {
            label,
            granules: first..first + count,
            purpose,
            adopted: !converts,
            open: !converts,
            slots: vec![0; usize::try_from(range.len()).unwrap() / SLOT],
        });
        first += count;
    }
    let pools: Vec<Pool<'_>> = POOLS
        .iter()
        .zip(&storages)
        .map(|((label, _, purpose, converts), (range, storage))| {
            let pool = if *converts {
                machine.take_at(*range).unwrap();
                convertible(*label, *range, storage)
            } else {
                adopt(&machine, *label, *range, storage)
            };
            pool.only_for(*purpose)
        })
        .collect();
    let mut pools = pools.into_iter();
    let machine_pools: Vec<Pool<'_>> = pools.by_ref().take(OWN).collect();
    let own_pool = pools.next().unwrap().restricted();
    let own = [&own_pool];
    let log = Log::default();
    let dma = Dma::new(&host, &machine_pools)
        .with_ledger(ledger)
        .with_pages(&arena)
        .with_observer(&log)
        .with_quarantine_limit(LOST * granule);

    let device_models = device_models(machine.regime().has_accepted_devices());
    let bind = |model: &DeviceModel| dma.bind(endpoint(model, &own), Limits::NONE).unwrap();
    let nic = |model: &DeviceModel| {
        let trust = if model.accepted { Trust::Accepted } else { Trust::Untrusted };
        SimDevice::new(&machine, "nic", trust)
    };
    let secret = marker(7);
    machine.fill_private(&secret);
    machine.watch_for(&secret);
    let heap = HEAP * usize::try_from(granule).unwrap();
    let mut world = World {
        machine: &machine,
        host: &host,
        arena: &arena,
        dma: &dma,
        pools: machine_pools.iter().chain([&own_pool]).collect(),
        devices: device_models.iter().map(bind).collect(),
        own: &own,
        heap_start: bytes_at(&machine, part(ARENA, HEAP)),
        nics: device_models.iter().map(nic).collect(),
        maps: Vec::new(),
        memories: Vec::new(),
        model: Model::new(granule, GRANULES, heap, models, device_models),
        log: &log,
        secret,
        wild: truth == Truth::Wild,
        honest: truth == Truth::Honest,
        now: String::new(),
        met: Met::new(),
    };
    world.rearm();
    world.check();
    play(&mut world);
}

fn device_models(accepted_too: bool) -> Vec<DeviceModel> {
    let plain = DeviceModel {
        accepted: false,
        forced: false,
        restricted: None,
        quota: Some(6),
        charged: 0,
        stopped: None,
        counters: CountersNow::default(),
    };
    let mut models = vec![
        plain.clone(),
        DeviceModel { restricted: Some(OWN), quota: None, ..plain.clone() },
        DeviceModel { forced: true, quota: None, ..plain.clone() },
    ];
    if accepted_too {
        let accepted = DeviceModel { accepted: true, ..plain };
        models.push(accepted.clone());
        models.push(DeviceModel { forced: true, quota: None, ..accepted });
    }
    models
}

pub(crate) fn endpoint<'w>(model: &DeviceModel, own: &'w [&'w Pool<'w>]) -> Endpoint<'w> {
    let mut endpoint = Endpoint::new("nic");
    if model.accepted {
        endpoint = endpoint.accepted(vouch());
    }
    if model.forced {
        endpoint = endpoint.force_bounce();
    }
    if model.restricted.is_some() {
        endpoint = endpoint.pools(own);
    }
    match model.quota {
        Some(quota) => endpoint.quota(quota),
        None => endpoint,
    }
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
