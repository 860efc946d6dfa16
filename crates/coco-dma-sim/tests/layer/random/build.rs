//! A machine with everything that a layer can have, put together.

use coco_dma::Dma;
use coco_dma::addr::PhysRange;
use coco_dma::device::CountersNow;
use coco_dma::device::Endpoint;
use coco_dma::ledger::Initial;
use coco_dma::ledger::Ledger;
use coco_dma::ledger::Tracked;
use coco_dma::plan::Limits;
use coco_dma::platform::Platform;
use coco_dma::pool::Cache;
use coco_dma::pool::Pool;
use coco_dma::regime::Parameters;
use coco_dma::regime::PlatformName;
use coco_dma::state::PoolLabel;
use coco_dma::state::PoolUse;
use coco_dma::state::Trust;
use coco_dma::state::Visibility;
use coco_dma_sim::Faulty;
use coco_dma_sim::Machine;
use coco_dma_sim::SimDevice;
use coco_dma_sim::marker;

use super::model::DeviceModel;
use super::model::Model;
use super::model::PoolModel;
use super::model::SLOT;
use super::paths::Path;
use super::world::Log;
use super::world::Met;
use super::world::Truth;
use super::world::World;
use crate::support::Arena;
use crate::support::BASE;
use crate::support::adopt;
use crate::support::bytes_at;
use crate::support::convertible;
use crate::support::run;
use crate::support::vouch;
use crate::support::words;

/// Granules of the arena, of the heap behind it, and in all.
pub(super) const ARENA: usize = 12;
pub(super) const HEAP: usize = 16;
pub(super) const GRANULES: usize = 48;
/// The last of them, which are another device's memory: in no book.
pub(super) const PEERS: usize = 2;
/// Granules in the books.
const TRACKED: usize = GRANULES - PEERS;
/// Granules that may be in quarantine.
pub(crate) const LOST: u64 = 20;

/// Label, granules, use, whether the layer converts it, and the node: the pools, in the order in
/// which the devices have them. The last one is the restricted device's own.
const POOLS: [(PoolLabel, usize, PoolUse, bool, Option<u16>); 6] = [
    (PoolLabel::GuestShared, 4, PoolUse::All, false, Some(0)),
    (PoolLabel::GuestPrivate, 2, PoolUse::All, false, Some(0)),
    (PoolLabel::GuestShared, 3, PoolUse::All, true, Some(1)),
    (PoolLabel::GuestShared, 2, PoolUse::Reserve, true, None),
    (PoolLabel::GuestPrivate, 3, PoolUse::All, true, Some(1)),
    (PoolLabel::GuestShared, 2, PoolUse::All, false, Some(0)),
];
const OWN: usize = 5;

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
    let (peers, by_peers) = ([part(TRACKED, PEERS)], part(TRACKED - 1, PEERS + 1));
    machine.take_at(by_peers).unwrap();

    // The pool that is one device's own is the last, and nobody converts it.
    let own_at = ARENA + HEAP + POOLS[..OWN].iter().map(|(_, count, ..)| count).sum::<usize>();
    let own_part = part(own_at, POOLS[OWN].1);
    let behind = own_at + POOLS[OWN].1;
    let (below, above) = (part(0, own_at), part(behind, TRACKED - behind));
    let words_of = |run: PhysRange| words(Tracked::words(run.len(), granule));
    let metadata_words = [words_of(below), words_of(above)];
    let own = |run, words| Tracked::new(run, granule, Initial::Private, words).unwrap();
    let metadata = [
        own(below, &metadata_words[0]),
        Tracked::foreign(own_part, Visibility::Shared),
        own(above, &metadata_words[1]),
    ];
    let ledger = Ledger::new(&metadata).unwrap();
    let (mut storages, mut first, mut models) = (Vec::new(), ARENA + HEAP, Vec::new());
    for (label, count, purpose, converts, node) in POOLS {
        let range = part(first, count);
        storages.push((range, words(Pool::words(range.len()))));
        if label == PoolLabel::GuestShared && !converts && range != own_part {
            ledger.declare(range, Visibility::Shared).unwrap();
        }
        models.push(PoolModel {
            label,
            granules: first..first + count,
            purpose,
            node,
            adopted: !converts,
            open: !converts,
            slots: vec![0; usize::try_from(range.len()).unwrap() / SLOT],
        });
        first += count;
    }
    let caches: Vec<[Cache; 1]> = POOLS.iter().map(|_| [Cache::new()]).collect();
    let pools: Vec<Pool<'_>> = POOLS
        .iter()
        .zip(storages.iter().zip(&caches))
        .map(|((label, _, purpose, converts, node), ((range, storage), caches))| {
            let pool = if *converts {
                machine.take_at(*range).unwrap();
                convertible(*label, *range, storage)
            } else {
                adopt(&machine, *label, *range, storage)
            };
            let pool = pool.only_for(*purpose).with_caches_however_small(caches);
            match node {
                Some(node) => pool.on_node(*node),
                None => pool,
            }
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
        .with_peers(&peers)
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
        by_peers: bytes_at(&machine, by_peers),
        nics: device_models.iter().map(nic).collect(),
        maps: Vec::new(),
        memories: Vec::new(),
        model: Model::new(granule, TRACKED, heap, models, device_models),
        log: &log,
        secret,
        wild: truth == Truth::Wild,
        honest: truth == Truth::Honest,
        now: String::new(),
        path: Path::Cache,
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
        coherent: true,
        node: None,
        restricted: None,
        quota: Some(6),
        charged: 0,
        stopped: None,
        counters: CountersNow::default(),
    };
    let mut models = vec![
        plain.clone(),
        DeviceModel { restricted: Some(OWN), quota: None, ..plain.clone() },
        DeviceModel { forced: true, quota: None, node: Some(1), ..plain.clone() },
        DeviceModel { coherent: false, quota: None, node: Some(0), ..plain.clone() },
    ];
    if accepted_too {
        let accepted = DeviceModel { accepted: true, ..plain };
        models.push(DeviceModel { coherent: false, ..accepted.clone() });
        models.push(DeviceModel { forced: true, quota: None, node: Some(1), ..accepted });
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
    if !model.coherent {
        endpoint = endpoint.not_coherent();
    }
    if let Some(node) = model.node {
        endpoint = endpoint.on_node(node);
    }
    if model.restricted.is_some() {
        endpoint = endpoint.pools(own);
    }
    match model.quota {
        Some(quota) => endpoint.quota(quota),
        None => endpoint,
    }
}
