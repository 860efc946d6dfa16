//! Building the machine of a case, and doing its steps on it.
// UNSAFETY: pools are adopted, and simulated devices are vouched for.
#![expect(unsafe_code)]

use coco_dma::addr::{AddressLimit, BusRanges, PhysRange};
use coco_dma::device::{Attested, Endpoint};
use coco_dma::iommu::{Domain, IovaWindow};
use coco_dma::ledger::Ledger;
use coco_dma::pool::{Cache, Pool};
use coco_dma::state::{CacheMode, PoolOrigin, State, Trust};
use coco_dma::{Dma, Word};
use coco_dma_sim::{Faulty, Machine, NoMemory, SimIommu, Traced};

use super::convert;
use super::events::Events;
use super::memory::{Buffer, Pages, pointer};
use super::setup::{parts, set_up};
use super::stream::entries_of;
use super::world::{Ground, Platform, World};
use super::{Failed, Heed, Path, Trail, Witness};
use crate::case::{Case, DeviceSpec, MemoryState, PoolSpec, whole};
use crate::read::Place;

/// Runs of scattered allocations in one case.
const ROOM: usize = 4096;

fn failed(place: &Place, expected: &str, got: impl ToString) -> Failed {
    let (witness, expected) = (Witness::Layer, expected.to_owned());
    Failed { witness, place: place.clone(), expected, got: got.to_string() }
}

/// Builds the machine for a path and does every step; `trail` has what they came to.
pub(super) fn execute(
    case: &Case,
    heed: Heed,
    path: Path,
    trail: &mut Trail,
) -> Result<(), Failed> {
    let spec = &case.machine;
    let mut builder = Machine::builder(spec.platform).numbers(spec.numbers).seed(spec.seed);
    // What a device does not see makes a difference for that device alone.
    if case.devices.iter().any(|device| !device.coherent) {
        builder = builder.caches();
    }
    for ram in &spec.ram {
        builder = builder.ram(ram.base().raw(), ram.len());
    }
    let machine = builder.build().map_err(|error| failed(&spec.place, "a machine", error))?;
    let comes = spec.regime.states().first().copied().unwrap_or(State::Ordinary);
    let buffers = buffers(case, &machine, comes)?;
    for run in &spec.late {
        // Coherent memory is not taken from what is not there. Granules of memories are taken.
        let granules = (0..run.len() / spec.regime.granule())
            .filter_map(|index| run.slice(index * spec.regime.granule(), spec.regime.granule()));
        for part in granules {
            let _ = machine.take_at(part);
        }
    }

    let pools: &[PoolSpec] = if spec.plan_only { &[] } else { &case.pools };
    let slots: Vec<Vec<Word>> =
        pools.iter().map(|pool| words(Pool::words(pool.range.len()))).collect();
    let cpus = case.steps.iter().map(|step| step.cpu + 1).max().unwrap_or(1);
    let kept = if path.keeps() { cpus } else { 0 };
    let caches: Vec<Vec<Cache>> =
        pools.iter().map(|_| (0..kept).map(|_| Cache::new()).collect()).collect();
    let (mut own, mut shared) = (Vec::new(), Vec::new());
    for ((pool, words), caches) in pools.iter().zip(&slots).zip(&caches) {
        let made = make_pool(&machine, pool, words, comes);
        let made = made.map_err(|got| failed(&pool.place, "a pool", got))?;
        let made = made.with_caches_however_small(caches);
        if pool.of_devices { own.push(made) } else { shared.push(made) }
    }
    let (mut own_next, mut shared_next) = (own.iter(), shared.iter());
    let next = |pool: &PoolSpec| {
        if pool.of_devices { own_next.next() } else { shared_next.next() }
    };
    let all: Vec<&Pool<'_>> = pools.iter().filter_map(next).collect();
    let own_of = |device: &DeviceSpec| -> Vec<&Pool<'_>> {
        device.pools.iter().filter_map(|pool| all.get(*pool).copied()).collect()
    };
    let own_of: Vec<Vec<&Pool<'_>>> = case.devices.iter().map(own_of).collect();

    let parts = parts(case);
    let metadata: Vec<Vec<Word>> = parts.iter().map(|part| words(part.words(case))).collect();
    let mut tracked = Vec::new();
    for (part, words) in parts.iter().zip(&metadata) {
        let made = part.tracked(case, words);
        tracked.push(made.map_err(|error| failed(&spec.place, "a ledger", error))?);
    }
    let ledger = Ledger::new(&tracked).map_err(|error| failed(&spec.place, "a ledger", error))?;
    let buffers = set_up(case, &machine, &ledger, buffers);

    let platform: Platform = Traced::new(Faulty::new(machine.clone()));
    let (events, pages) = (
        Events::tracing(trail.lines.clone()),
        Pages::new(&machine, spec.regime.granule(), spec.longest_run),
    );
    let placed = case.memories.iter().zip(&case.layout.memories);
    let peers: Vec<PhysRange> = placed
        .filter(|(memory, _)| memory.state == MemoryState::Peer)
        .filter_map(|(_, range)| *range)
        .collect();
    let mut dma =
        Dma::new(&platform, &shared).with_ledger(ledger).with_peers(&peers).with_observer(&events);
    if spec.pages {
        dma = dma.with_pages(&pages);
    }
    if let Some(limit) = spec.quarantine_limit {
        dma = dma.with_quarantine_limit(limit);
    }
    for (pool, made) in pools.iter().zip(&all) {
        if pool.origin == PoolOrigin::ConvertedAtAttach && pool.open {
            let grown = dma.grow(made).map_err(|error| convert::grow(&error).describe());
            grown.map_err(|got| failed(&pool.place, "a pool that grows", got))?;
        }
    }
    // Where a device is behind an IOMMU, a domain of its own.
    // Where nothing is built any domain will do.
    let plain = IovaWindow::new(0x10_0000, 0x10_0000).filter(|_| spec.plan_only);
    let (window, page) = match plain {
        Some(window) => (window, 4096),
        None => (spec.iommu.window, spec.iommu.page),
    };
    let iommu = if spec.iommu.query { SimIommu::new(page) } else { SimIommu::without_query(page) };
    let addresses = words(Domain::words(window.len(), page));
    let domain = Domain::new(&iommu, window, &addresses)
        .map_err(|error| failed(&spec.place, "a domain", error))?;
    let mut room: Vec<_> = (0..ROOM).map(|_| None).collect();
    let entries = case.steps.iter().map(|step| entries_of(case, &step.op)).sum();
    let mut entries: Vec<_> = std::iter::repeat_with(|| None).take(entries).collect();
    let ground = Ground {
        domain: &domain,
        iommu: &iommu,
        machine: &machine,
        dma: &dma,
        events: &events,
        pages: &pages,
        pools: all.clone(),
        own: &own_of,
    };
    let mut world = World::new(case, ground, buffers, (&mut room, &mut entries), heed, path);
    let bound = case.devices.iter().enumerate().filter(|(_, d)| d.bound && !spec.plan_only);
    for (index, device) in bound {
        let bound = world.bind(index);
        bound.map_err(|error| failed(&device.place, "a device that is bound", error))?;
    }
    world.begin();
    for step in &case.steps {
        let done = world.step(step);
        trail.taken = world.taken;
        let (told, came) = done?;
        trail.story.extend(told);
        trail.came.extend(came);
    }
    world.end()
}

fn words(count: usize) -> Vec<Word> {
    (0..count).map(|_| Word::new()).collect()
}

fn buffers(case: &Case, machine: &Machine, comes: State) -> Result<Vec<Buffer>, Failed> {
    let mut buffers = Vec::new();
    if case.machine.plan_only {
        return Ok(buffers);
    }
    for (memory, range) in case.memories.iter().zip(&case.layout.memories) {
        let buffer = match range {
            Some(range) => Buffer::at(machine, *range, comes, memory.state.cache()),
            None => usize::try_from(memory.size).ok().and_then(Buffer::unlocated),
        };
        buffers.push(buffer.ok_or_else(|| failed(&memory.place, "memory", "none"))?);
        if let Some(whole) = range.and_then(|range| whole(range, case.machine.regime.granule())) {
            // Memories may share a granule: the second finds it taken.
            let _ = machine.take_at(whole);
        }
    }
    Ok(buffers)
}

fn make_pool<'m>(
    machine: &Machine,
    pool: &PoolSpec,
    words: &'m [Word],
    comes: State,
) -> Result<Pool<'m>, String> {
    let take = |run: PhysRange| machine.take_at(run).map_err(|error| error.to_string());
    let made = if pool.origin == PoolOrigin::ConvertedAtAttach {
        take(pool.range)?;
        // SAFETY: the machine gave the memory to this pool alone.
        unsafe { Pool::convertible(pool.label, pool.range, words) }
    } else {
        let view = match machine.adopt_pool_at(pool.label, pool.range) {
            Ok(memory) => memory.view,
            // A label that this machine does not have: the memory is as it comes.
            Err(NoMemory::NoSuchLabel(_)) => {
                take(pool.range)?;
                pointer(machine, pool.range, comes, CacheMode::WriteBack)
                    .ok_or("no view of the pool")?
            }
            Err(error) => return Err(error.to_string()),
        };
        // SAFETY: the machine gave the memory to this pool alone, and outlives it.
        unsafe { Pool::adopt(pool.label, pool.range, view, words) }
    };
    let mut made = made.map_err(|error| error.to_string())?.only_for(pool.purpose);
    if let Some(node) = pool.node {
        made = made.on_node(node);
    }
    Ok(if pool.restricted { made.restricted() } else { made })
}

/// A device as the bus says it.
pub(super) fn endpoint<'d>(
    spec: &'d DeviceSpec,
    pools: &'d [&'d Pool<'d>],
    domain: Option<&'d Domain<'d>>,
    path: Path,
) -> Endpoint<'d> {
    let mut endpoint = Endpoint::new(&spec.name).bus(BusRanges::new(&spec.bus)).pools(pools);
    endpoint = match domain {
        Some(domain) if spec.attachment.is_translated() => endpoint.translated(domain),
        _ => endpoint.attachment(spec.attachment),
    };
    if spec.trust == Trust::Accepted {
        // SAFETY: a simulated device is whatever the case says.
        endpoint = endpoint.accepted(unsafe { Attested::vouch() });
    }
    if let Some(last) = spec.bus_limit {
        endpoint = endpoint.bus_limit(AddressLimit::last(last));
    }
    if !spec.coherent {
        endpoint = endpoint.not_coherent();
    }
    if spec.external_facing {
        endpoint = endpoint.external_facing();
    }
    if spec.force_bounce {
        endpoint = endpoint.force_bounce();
    }
    if let Some(node) = spec.node {
        endpoint = endpoint.on_node(node);
    }
    if path == Path::Slow {
        endpoint = endpoint.without_fast_path();
    }
    if let Some(slots) = spec.quota {
        endpoint = endpoint.quota(slots);
    }
    match spec.quota_bytes {
        Some(bytes) => endpoint.quota_bytes(bytes),
        None => endpoint,
    }
}
