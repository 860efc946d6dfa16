//! The reservoir: coherent memory out of regions that were shared once, in bulk.

use std::sync::Mutex;

use coco_dma::Dma;
use coco_dma::addr::PhysRange;
use coco_dma::device::Endpoint;
use coco_dma::ledger::Initial;
use coco_dma::ledger::Ledger;
use coco_dma::ledger::Tracked;
use coco_dma::observe::Event;
use coco_dma::observe::Observer;
use coco_dma::plan::LARGE_PAGE;
use coco_dma::plan::Limits;
use coco_dma::pool::Pool;
use coco_dma::reason::Refuse;
use coco_dma::regime::PlatformName;
use coco_dma::state::Context;
use coco_dma::state::PoolLabel;
use coco_dma::state::PoolUse;
use coco_dma::state::State;
use coco_dma::state::Visibility;
use coco_dma_sim::Faulty;
use coco_dma_sim::Machine;
use coco_dma_sim::Refusal;

use crate::support::Arena;
use crate::support::BASE;
use crate::support::GRANULE;
use crate::support::GUESTS;
use crate::support::alloc;
use crate::support::convertible;
use crate::support::free;
use crate::support::machine;
use crate::support::metadata;
use crate::support::metadata_words;
use crate::support::ring;
use crate::support::run;
use crate::support::vouch;
use crate::support::words;

/// Every run that was converted.
#[derive(Default)]
struct Converted(Mutex<Vec<PhysRange>>);

impl Observer for Converted {
    fn event(&self, event: &Event<'_>) {
        if let Event::Converted { run, .. } = event {
            self.0.lock().unwrap().push(*run);
        }
    }
}

fn reservoir<'m>(run: PhysRange, words: &'m [coco_dma::Word]) -> Pool<'m> {
    convertible(PoolLabel::GuestShared, run, words).only_for(PoolUse::Coherent)
}

#[test]
fn small_allocations_convert_whole_regions_and_break_up_no_large_page() {
    for platform in GUESTS {
        let size = 4 * LARGE_PAGE;
        let machine = Machine::builder(platform).ram(BASE, size).build().unwrap();
        let storage = words(Tracked::words(size, GRANULE));
        let ranges = [Tracked::new(run(BASE, size), GRANULE, Initial::Private, &storage).unwrap()];
        let arena = Arena::new(&machine, LARGE_PAGE);
        let regions = [machine.take(LARGE_PAGE).unwrap(), machine.take(LARGE_PAGE).unwrap()];
        let storages = regions.map(|_| words(Pool::words(LARGE_PAGE)));
        let pools = [reservoir(regions[0], &storages[0]), reservoir(regions[1], &storages[1])];
        let converted = Converted::default();
        let dma = Dma::new(&machine, &pools)
            .with_ledger(Ledger::new(&ranges).unwrap())
            .with_observer(&converted)
            .with_pages(&arena);
        let device = dma.bind(Endpoint::new("nic"), Limits::NONE).unwrap();
        let page = 4096;
        // One region and a page more: two conversions, and none for the 513 allocations.
        let memories: Vec<_> =
            (0..513).map(|_| alloc(&device, page, Context::Blocking).unwrap()).collect();
        assert_eq!(machine.counts().shares, 2, "{platform}");
        assert_eq!(*converted.0.lock().unwrap(), regions, "{platform}");
        assert_eq!((arena.taken(), pools[1].used()), (0, 2), "{platform}");
        memories.into_iter().for_each(|memory| free(&device, memory));
        assert_eq!(machine.counts().reclaims, 0, "{platform}: freeing converts nothing");
        // What is a large page by itself leaves the reservoir to the others.
        let large = alloc(&device, 2 << 20, Context::Blocking).unwrap();
        assert_eq!((arena.taken(), pools[0].used()), (512, 0), "{platform}");
        free(&device, large);
        // Idle, it is given back by whole regions.
        assert_eq!(dma.trim(), Ok(2 * LARGE_PAGE));
        assert!(converted.0.lock().unwrap().iter().all(|run| run.is_aligned(LARGE_PAGE)));
        assert_eq!((machine.shared(), machine.violations()), (vec![], vec![]), "{platform}");
    }
}

#[test]
fn what_was_freed_is_wiped_before_another_device_has_it() {
    let machine = machine(PlatformName::Snp);
    let storage = metadata_words(GRANULE);
    let metadata = metadata(GRANULE, &storage);
    let mine = machine.take(4 * GRANULE).unwrap();
    let pool_words = words(Pool::words(mine.len()));
    let pools = [reservoir(mine, &pool_words)];
    let dma = Dma::new(&machine, &pools).with_ledger(Ledger::new(&metadata).unwrap());
    let one = dma.bind(Endpoint::new("one"), Limits::NONE).unwrap();
    let other = dma.bind(Endpoint::new("other"), Limits::NONE).unwrap();
    let memory = alloc(&one, 4096, Context::Blocking).unwrap();
    let addr = memory.addr();
    assert_eq!(ring(&memory, b"a secret of one")[..8], *b"a secret");
    free(&one, memory);
    let memory = alloc(&other, 4096, Context::Atomic).unwrap();
    assert_eq!(memory.addr(), addr);
    let mut seen = [1; 4096];
    machine.host_read(mine.base(), &mut seen);
    assert_eq!(seen, [0; 4096]);
    // Whose it is, is recorded.
    assert_eq!((one.holds(), other.holds()), (0, 2));
    free(&other, memory);
    assert_eq!(dma.trim(), Ok(mine.len()));
    assert!(machine.all_in(mine, State::PRIVATE));
}

#[test]
fn atomic_context_is_served_and_never_grows_it() {
    let machine = machine(PlatformName::Tdx);
    let storage = metadata_words(GRANULE);
    let metadata = metadata(GRANULE, &storage);
    let arena = Arena::new(&machine, 4 * GRANULE);
    let runs = [machine.take(2 * GRANULE).unwrap(), machine.take(2 * GRANULE).unwrap()];
    let (first, second) = (words(1 << 8), words(1 << 8));
    let pools = [reservoir(runs[0], &first), reservoir(runs[1], &second)];
    let dma =
        Dma::new(&machine, &pools).with_ledger(Ledger::new(&metadata).unwrap()).with_pages(&arena);
    let device = dma.bind(Endpoint::new("nic"), Limits::NONE).unwrap();
    machine.atomic(|| {
        assert!(alloc(&device, 4096, Context::Atomic).is_err(), "nothing is shared yet");
        assert!(machine.shared().is_empty());
    });
    assert_eq!(dma.refill(), Ok(Some(runs[0])));
    let memories: Vec<_> = machine.atomic(|| {
        let memories = (0..3).filter_map(|_| alloc(&device, 4096, Context::Atomic).ok());
        memories.collect()
    });
    assert_eq!((memories.len(), machine.counts().shares), (2, 1));
    assert_eq!(dma.refill(), Ok(Some(runs[1])));
    assert_eq!(dma.refill(), Ok(None));
    let third = machine.atomic(|| alloc(&device, 4096, Context::Atomic)).unwrap();
    // A region that is used is kept.
    machine.atomic(|| memories.into_iter().for_each(|memory| free(&device, memory)));
    assert_eq!(dma.trim(), Ok(2 * GRANULE));
    assert_eq!(machine.shared(), [runs[1]]);
    free(&device, third);
    assert_eq!(dma.trim(), Ok(2 * GRANULE));
    assert_eq!(machine.violations(), []);
}

/// A region that the host did not give back was the first to be tried at each growth, and the only
/// one: growing had stopped for good.
#[test]
fn a_region_that_does_not_come_back_stops_no_other_from_growing() {
    for by_refill in [false, true] {
        let machine = machine(PlatformName::Tdx);
        let faulty = Faulty::new(machine.clone());
        let storage = metadata_words(GRANULE);
        let metadata = metadata(GRANULE, &storage);
        let runs = [machine.take(2 * GRANULE).unwrap(), machine.take(2 * GRANULE).unwrap()];
        let (first, second) = (words(1 << 8), words(1 << 8));
        let pools = [reservoir(runs[0], &first), reservoir(runs[1], &second)];
        let dma = Dma::new(&faulty, &pools).with_ledger(Ledger::new(&metadata).unwrap());
        let device = dma.bind(Endpoint::new("nic"), Limits::NONE).unwrap();
        dma.grow(&pools[0]).unwrap();
        faulty.refuse(Visibility::Private, Refusal::Unchanged);
        assert!(dma.trim().is_err(), "the host keeps it");
        faulty.heal();
        if by_refill {
            assert_eq!(dma.refill(), Ok(Some(runs[1])));
        }
        let memory = alloc(&device, 4096, Context::Blocking).unwrap();
        assert!(pools[1].is_open() && !pools[0].is_open());
        assert!(machine.all_in(runs[1], State::SHARED));
        free(&device, memory);
    }
}

#[test]
fn a_host_that_refuses_costs_a_region_and_nothing_untold() {
    for refusal in [Refusal::Unchanged, Refusal::InDoubt] {
        let machine = machine(PlatformName::Tdx);
        let faulty = Faulty::new(machine.clone());
        let storage = metadata_words(GRANULE);
        let metadata = metadata(GRANULE, &storage);
        let ledger = Ledger::new(&metadata).unwrap();
        let mine = machine.take(4 * GRANULE).unwrap();
        let pool_words = words(Pool::words(mine.len()));
        let pools = [reservoir(mine, &pool_words)];
        let dma = Dma::new(&faulty, &pools).with_ledger(ledger);
        let device = dma.bind(Endpoint::new("nic"), Limits::NONE).unwrap();
        faulty.refuse(Visibility::Shared, refusal);
        faulty.refuse(Visibility::Private, refusal);
        assert!(alloc(&device, 4096, Context::Blocking).is_err());
        let lost = if refusal == Refusal::InDoubt { mine.len() } else { 0 };
        assert_eq!((ledger.quarantined(), pools[0].is_open()), (lost, false), "{refusal:?}");
        faulty.heal();
        dma.retry_quarantine(4, |_| {});
        let memory = alloc(&device, 4096, Context::Blocking).unwrap();
        assert_eq!((ledger.quarantined(), pools[0].used()), (0, 2));
        free(&device, memory);
    }
}

/// What a device has of the reservoir and what it has as pages is one account.
#[test]
fn a_device_past_its_quota_gets_neither_slots_nor_pages() {
    let machine = machine(PlatformName::Cca);
    let storage = metadata_words(GRANULE);
    let metadata = metadata(GRANULE, &storage);
    let arena = Arena::new(&machine, 4 * GRANULE);
    let mine = machine.take(2 * GRANULE).unwrap();
    let pool_words = words(Pool::words(mine.len()));
    let pools = [reservoir(mine, &pool_words)];
    let dma =
        Dma::new(&machine, &pools).with_ledger(Ledger::new(&metadata).unwrap()).with_pages(&arena);
    let greedy = dma.bind(Endpoint::new("greedy").quota(2), Limits::NONE).unwrap();
    let memory = alloc(&greedy, 4096, Context::Blocking).unwrap();
    let refused = alloc(&greedy, 4096, Context::Blocking).map(|_| ()).unwrap_err();
    assert_eq!(refused.reason, Refuse::Quota);
    assert_eq!((pools[0].used(), arena.taken(), greedy.charged()), (2, 0, 2));
    // An accepted device reaches private memory alone: it is given none of it.
    let gpu = dma.bind(Endpoint::new("gpu").accepted(vouch()), Limits::NONE).unwrap();
    let private = alloc(&gpu, 4096, Context::Blocking).unwrap();
    assert_eq!((pools[0].used(), arena.taken()), (2, 1));
    free(&gpu, private);
    free(&greedy, memory);
    assert_eq!(greedy.charged(), 0);
    assert_eq!((arena.taken(), arena.faults()), (0, vec![]));
}

/// More slots are no help to a device that wants for something else: nothing is converted for it.
#[test]
fn what_is_refused_for_another_reason_than_room_grows_nothing() {
    let machine = machine(PlatformName::Tdx);
    let storage = metadata_words(GRANULE);
    let metadata = metadata(GRANULE, &storage);
    let runs = [machine.take(4 * GRANULE).unwrap(), machine.take(4 * GRANULE).unwrap()];
    let (first, second) = (words(1 << 8), words(1 << 8));
    let pools = [reservoir(runs[0], &first), reservoir(runs[1], &second)];
    let host = Faulty::new(machine.clone());
    let dma = Dma::new(&host, &pools).with_ledger(Ledger::new(&metadata).unwrap());
    dma.grow(&pools[0]).unwrap();
    let device = dma.bind(Endpoint::new("blind").not_coherent(), Limits::NONE).unwrap();
    host.fail_view(0);
    let refused = alloc(&device, 4096, Context::Blocking).map(|_| ());
    assert_eq!(refused.map_err(|error| error.reason), Err(Refuse::NoView));
    assert_eq!((machine.shared(), pools[0].used()), (vec![runs[0]], 0));
}

/// Who waits has to know for what.
#[test]
fn a_device_at_its_quota_is_told_so_by_the_reservoir_too() {
    let machine = machine(PlatformName::Tdx);
    let storage = metadata_words(GRANULE);
    let metadata = metadata(GRANULE, &storage);
    let run = machine.take(4 * GRANULE).unwrap();
    let slots = words(1 << 8);
    let pools = [reservoir(run, &slots)];
    let dma = Dma::new(&machine, &pools).with_ledger(Ledger::new(&metadata).unwrap());
    let device = dma.bind(Endpoint::new("nic").quota(2), Limits::NONE).unwrap();
    let memory = alloc(&device, 4096, Context::Blocking).unwrap();
    let refused = alloc(&device, 4096, Context::Blocking).map(|_| ());
    assert_eq!(refused.map_err(|error| error.reason), Err(Refuse::Quota));
    free(&device, memory);
}
