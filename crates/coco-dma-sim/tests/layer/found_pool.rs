//! Pools that went wrong once: opened twice, taken for what they were not yet, given back dirty.

use std::ptr::NonNull;
use std::sync::Mutex;
use std::sync::mpsc;
use std::thread;

use coco_dma::Dma;
use coco_dma::attrs::Attrs;
use coco_dma::device::Endpoint;
use coco_dma::ledger::Ledger;
use coco_dma::plan::Limits;
use coco_dma::pool::Pool;
use coco_dma::regime::PlatformName;
use coco_dma::state::Context;
use coco_dma::state::Direction;
use coco_dma::state::PoolLabel;
use coco_dma::state::Trust;
use coco_dma_sim::SimDevice;

use crate::support::Arena;
use crate::support::BASE;
use crate::support::GRANULE;
use crate::support::GUESTS;
use crate::support::Hooked;
use crate::support::SIZE;
use crate::support::adopt;
use crate::support::alloc;
use crate::support::bytes_at;
use crate::support::convertible;
use crate::support::finish;
use crate::support::free;
use crate::support::machine;
use crate::support::map;
use crate::support::metadata;
use crate::support::metadata_words;
use crate::support::revoke;
use crate::support::run;
use crate::support::share;
use crate::support::vouch;
use crate::support::words;

/// The top of RAM: pools lie there.
fn top(granules: u64) -> coco_dma::addr::PhysRange {
    run(BASE + SIZE - granules * GRANULE, granules * GRANULE)
}

#[test]
fn memory_of_a_closed_pool_is_its_owners_and_private() {
    for platform in GUESTS {
        for restricted in [false, true] {
            let machine = machine(platform);
            let storage = metadata_words(GRANULE);
            let metadata = metadata(GRANULE, &storage);
            let came = words(1 << 8);
            let mine = machine.take(2 * GRANULE).unwrap();
            let later = words(1 << 8);
            let pool = convertible(PoolLabel::GuestShared, mine, &later);
            let pool = if restricted { pool.restricted() } else { pool };
            let machine_pools = [adopt(&machine, PoolLabel::GuestShared, top(2), &came)];
            let dma =
                Dma::new(&machine, &machine_pools).with_ledger(Ledger::new(&metadata).unwrap());
            let own = [&pool];
            let device = dma.bind(Endpoint::new("nic").pools(&own), Limits::NONE).unwrap();
            let buffer = bytes_at(&machine, mine.slice(0, 64).unwrap());
            if let Ok(mapping) = map(&device, buffer, Direction::ToDevice, Attrs::NONE) {
                assert!(mapping.is_bounced(), "{platform}: an address of private memory");
                finish(&device, mapping, 0);
            }
            dma.grow(&pool).unwrap();
            assert_eq!(machine.violations(), []);
        }
    }
}

#[test]
fn a_private_pool_opens_over_private_memory_only() {
    let machine = machine(PlatformName::Tdx);
    let storage = metadata_words(GRANULE);
    let metadata = metadata(GRANULE, &storage);
    let dma = Dma::new(&machine, &[]).with_ledger(Ledger::new(&metadata).unwrap());
    let mine = machine.take(2 * GRANULE).unwrap();
    share(&dma, mine).unwrap();
    let storage = words(1 << 8);
    let pool = convertible(PoolLabel::GuestPrivate, mine, &storage);
    assert!(dma.grow(&pool).is_err());
    assert_eq!(machine.violations(), [], "the ledger knew");
    assert!(!pool.is_open());
}

#[test]
fn a_pool_gives_its_region_back_zeroed_whatever_its_label() {
    for label in [PoolLabel::GuestPrivate, PoolLabel::GuestShared] {
        let machine = machine(PlatformName::Cca);
        let storage = metadata_words(GRANULE);
        let metadata = metadata(GRANULE, &storage);
        let dma = Dma::new(&machine, &[]).with_ledger(Ledger::new(&metadata).unwrap());
        let mine = machine.take(2 * GRANULE).unwrap();
        let storage = words(1 << 8);
        let pool = convertible(label, mine, &storage);
        dma.grow(&pool).unwrap();
        let own = [&pool];
        let endpoint = Endpoint::new("nic").pools(&own).force_bounce();
        let endpoint = match label {
            PoolLabel::GuestPrivate => endpoint.accepted(vouch()),
            _ => endpoint,
        };
        let device = dma.bind(endpoint, Limits::NONE).unwrap();
        let buffer = machine.alloc(3000).unwrap();
        buffer.write(&[7; 3000]);
        let mapping = map(&device, buffer.bytes(), Direction::ToDevice, Attrs::NONE).unwrap();
        finish(&device, mapping, 0);
        dma.shrink(&pool).unwrap();
        let mut left = vec![1; usize::try_from(mine.len()).unwrap()];
        machine.guest_read(mine.base(), &mut left);
        assert!(left.iter().all(|byte| *byte == 0), "{label}");
        assert_eq!((machine.violations(), machine.open_views()), (vec![], 0));
    }
}

#[test]
fn of_two_that_grow_a_pool_at_once_one_does_and_nobodys_slots_are_wiped() {
    let machine = machine(PlatformName::Tdx);
    let (reached, arrived) = mpsc::sync_channel(0);
    let (go, wait) = mpsc::sync_channel(0);
    // Holds up the first view until the test lets it go.
    let hold = Mutex::new(Some((reached, wait)));
    let at_view = move || {
        let held = hold.lock().unwrap().take();
        if let Some((reached, go)) = held {
            let _: () = reached.send(()).unwrap();
            let _: () = go.recv().unwrap();
        }
    };
    let gate = Hooked { inner: machine.clone(), at_view: Box::new(at_view) };
    let storage = metadata_words(GRANULE);
    let metadata = metadata(GRANULE, &storage);
    let dma = Dma::new(&gate, &[]).with_ledger(Ledger::new(&metadata).unwrap());
    let mine = machine.take(2 * GRANULE).unwrap();
    let storage = words(1 << 8);
    let pool = convertible(PoolLabel::GuestPrivate, mine, &storage);
    let own = [&pool];
    let endpoint = Endpoint::new("gpu").pools(&own).accepted(vouch()).force_bounce();
    let device = dma.bind(endpoint, Limits::NONE).unwrap();
    let gpu = SimDevice::new(&machine, "gpu", Trust::Accepted);
    let buffer = machine.alloc(64).unwrap();
    buffer.write(&[7; 64]);
    thread::scope(|scope| {
        let slow = scope.spawn(|| dma.grow(&pool).is_ok());
        arrived.recv().unwrap();
        let quick = dma.grow(&pool).is_ok();
        let early = map(&device, buffer.bytes(), Direction::ToDevice, Attrs::NONE);
        go.send(()).unwrap();
        assert!(slow.join().unwrap() ^ quick);
        let mapping = early.unwrap_or_else(|_| {
            map(&device, buffer.bytes(), Direction::ToDevice, Attrs::NONE).unwrap()
        });
        assert_eq!(gpu.fetch(mapping.addr().raw(), 64), Ok(vec![7; 64]));
        finish(&device, mapping, 0);
    });
    dma.shrink(&pool).unwrap();
    assert_eq!((machine.violations(), machine.open_views()), (vec![], 0));
}

#[test]
fn memory_allocated_from_a_pool_outlives_a_revocation() {
    let machine = machine(PlatformName::Snp);
    let storage = words(1 << 8);
    let pools = [adopt(&machine, PoolLabel::GuestShared, top(4), &storage)];
    let dma = Dma::new(&machine, &pools);
    let dead = dma.bind(Endpoint::new("dead"), Limits::NONE).unwrap();
    let next = dma.bind(Endpoint::new("next"), Limits::NONE).unwrap();
    let mut ring = dead.alloc(4096, Context::Blocking).unwrap().expose();
    let buffer = machine.alloc(64).unwrap();
    let mapping = map(&dead, buffer.bytes(), Direction::Both, Attrs::NONE).unwrap();
    assert_eq!(revoke(&dead), 1, "the map's slot");
    // The driver has not heard of it yet, and is safe code.
    let other = alloc(&next, 4096, Context::Blocking).unwrap();
    assert_ne!(other.addr(), ring.addr(), "two own one ring");
    ring.bytes().write(0, &[7; 4096]).unwrap();
    free(&next, other);
    finish(&dead, mapping, 0);
    assert_eq!(pools[0].used(), 2);
    assert_eq!(dead.holds(), 2);
    ring.free(Context::Blocking).unwrap();
    assert_eq!((pools[0].used(), dead.holds()), (0, 0));
}

#[test]
fn the_reserve_says_that_it_runs_low_however_small_it_is() {
    use coco_dma::observe::Event;
    use coco_dma::observe::Observer;
    use coco_dma::state::PoolUse;
    struct Low(Mutex<Vec<(usize, usize)>>);
    impl Observer for Low {
        fn event(&self, event: &Event<'_>) {
            if let Event::LowWater { free, capacity } = event {
                self.0.lock().unwrap().push((*free, *capacity));
            }
        }
    }
    let machine = machine(PlatformName::Tdx);
    let storage = words(1 << 8);
    let pool = adopt(&machine, PoolLabel::GuestShared, top(1), &storage);
    let pools = [pool.only_for(PoolUse::Reserve)];
    let low = Low(Mutex::default());
    let dma = Dma::new(&machine, &pools).with_observer(&low);
    let device = dma.bind(Endpoint::new("nic"), Limits::NONE).unwrap();
    let memory = alloc(&device, 4096, Context::Atomic).unwrap();
    assert_eq!(*low.0.lock().unwrap(), [(0, 2)], "nothing is left");
    free(&device, memory);
}

#[test]
fn an_accepted_device_is_given_no_shared_slot_on_any_way() {
    use coco_dma::platform::Platform;
    use coco_dma::state::PoolUse;
    for platform in GUESTS {
        let machine = machine(platform);
        if !machine.regime().has_accepted_devices() {
            continue;
        }
        let arena = Arena::new(&machine, 4 * GRANULE);
        let storage = metadata_words(GRANULE);
        let metadata = metadata(GRANULE, &storage);
        let uses = [PoolUse::All, PoolUse::Streaming, PoolUse::Reserve];
        let storages = [words(1 << 8), words(1 << 8), words(1 << 8)];
        let mut place = BASE + SIZE;
        let pools: Vec<Pool<'_>> = storages
            .iter()
            .zip(uses)
            .map(|(storage, purpose)| {
                place -= 2 * GRANULE;
                let range = run(place, 2 * GRANULE);
                adopt(&machine, PoolLabel::GuestShared, range, storage).only_for(purpose)
            })
            .collect();
        let ledger = Ledger::new(&metadata).unwrap();
        let dma = Dma::new(&machine, &pools).with_ledger(ledger).with_pages(&arena);
        let shared = machine.take(GRANULE).unwrap();
        share(&dma, shared).unwrap();
        let endpoint = || Endpoint::new("gpu").accepted(vouch());
        for endpoint in [endpoint(), endpoint().force_bounce()] {
            let device = dma.bind(endpoint, Limits::NONE).unwrap();
            let private = machine.alloc(64).unwrap();
            let buffers: [NonNull<[u8]>; 2] =
                [private.bytes(), bytes_at(&machine, shared.slice(0, 64).unwrap())];
            for buffer in buffers {
                for attrs in [Attrs::NONE, Attrs::CC_SHARED] {
                    if let Ok(mapping) = map(&device, buffer, Direction::Both, attrs) {
                        assert!(!mapping.is_bounced(), "{platform}");
                        finish(&device, mapping, 0);
                    }
                }
            }
            for context in [Context::Atomic, Context::Blocking] {
                // Once the pages are gone there is nothing left.
                let memories: Vec<_> =
                    (0..6).filter_map(|_| alloc(&device, 4096, context).ok()).collect();
                assert_eq!(memories.len(), 4, "{platform}: the pages of the arena");
                memories.into_iter().for_each(|memory| free(&device, memory));
            }
        }
        assert!(pools.iter().all(|pool| pool.high_water() == 0), "{platform}");
        assert_eq!(machine.violations(), []);
        assert!(machine.all_in(arena.run(), coco_dma::state::State::PRIVATE));
    }
}
