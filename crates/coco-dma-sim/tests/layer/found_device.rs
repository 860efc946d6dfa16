//! Devices that went wrong once: gone and still served, rebound over their own memory, syncs that
//! did too much or too little.

use coco_dma::Dma;
use coco_dma::attrs::Attrs;
use coco_dma::device::BindError;
use coco_dma::device::Endpoint;
use coco_dma::ledger::Ledger;
use coco_dma::plan::Limits;
use coco_dma::regime::PlatformName;
use coco_dma::state::Attachment;
use coco_dma::state::Context;
use coco_dma::state::Direction;
use coco_dma::state::PoolLabel;
use coco_dma::state::Trust;
use coco_dma_sim::Call;
use coco_dma_sim::SimDevice;
use coco_dma_sim::Traced;

use crate::support::Arena;
use crate::support::BASE;
use crate::support::GRANULE;
use crate::support::SIZE;
use crate::support::adopt;
use crate::support::alloc;
use crate::support::finish;
use crate::support::free;
use crate::support::machine;
use crate::support::map;
use crate::support::metadata;
use crate::support::metadata_words;
use crate::support::revoke;
use crate::support::run;
use crate::support::sync_cpu;
use crate::support::sync_device;
use crate::support::vouch;
use crate::support::words;

#[test]
fn no_sync_brings_anything_to_or_from_a_device_that_is_trusted_no_longer() {
    let machine = machine(PlatformName::Tdx);
    let storage = words(1 << 8);
    let top = run(BASE + SIZE - 4 * GRANULE, 4 * GRANULE);
    let pools = [adopt(&machine, PoolLabel::GuestPrivate, top, &storage)];
    let dma = Dma::new(&machine, &pools);
    let endpoint = Endpoint::new("gpu").accepted(vouch()).force_bounce();
    let device = dma.bind(endpoint, Limits::NONE).unwrap();
    let gpu = SimDevice::new(&machine, "gpu", Trust::Accepted);
    let buffer = machine.alloc(64).unwrap();
    buffer.write(&[1; 64]);
    let mapping = map(&device, buffer.bytes(), Direction::Both, Attrs::NONE).unwrap();
    let addr = mapping.addr().raw();
    gpu.write(addr, &[2; 64]);
    device.lose_trust().unwrap();
    sync_cpu(&device, &mapping, 64);
    assert_eq!(buffer.read(), [1; 64], "nobody vouches for what it wrote");
    buffer.write(&[3; 64]);
    sync_device(&device, &mapping, 64);
    assert_eq!(gpu.fetch(addr, 64), Ok(vec![2; 64]), "and it is given nothing new");
    finish(&device, mapping, 64);
    assert_eq!(buffer.read(), [3; 64]);
    assert_eq!((pools[0].used(), device.counters().live()), (0, 0));
}

#[test]
fn a_mapping_that_was_revoked_touches_nobodys_slots() {
    let machine = machine(PlatformName::Tdx);
    let storage = words(1 << 8);
    let top = run(BASE + SIZE - 4 * GRANULE, 4 * GRANULE);
    let pools = [adopt(&machine, PoolLabel::GuestShared, top, &storage)];
    let traced = Traced::new(machine.clone());
    let dma = Dma::new(&traced, &pools);
    let dead = dma.bind(Endpoint::new("dead").not_coherent(), Limits::NONE).unwrap();
    let next = dma.bind(Endpoint::new("next").not_coherent(), Limits::NONE).unwrap();
    let buffer = machine.alloc(64).unwrap();
    let mapping = map(&dead, buffer.bytes(), Direction::Both, Attrs::NONE).unwrap();
    revoke(&dead);
    let theirs = machine.alloc(64).unwrap();
    let other = map(&next, theirs.bytes(), Direction::Both, Attrs::NONE).unwrap();
    assert_eq!(other.addr(), mapping.addr());
    traced.take_calls();
    sync_cpu(&dead, &mapping, 64);
    sync_device(&dead, &mapping, 64);
    finish(&dead, mapping, 64);
    let at = |call: &Call| matches!(call, Call::HandOver { .. } | Call::TakeBack { .. });
    let work: Vec<_> = traced.take_calls().into_iter().filter(at).collect();
    assert_eq!(work, [], "cache work on the slots of another device");
    finish(&next, other, 64);
}

#[test]
fn who_syncs_by_hand_gets_the_cache_work_that_the_map_left_out() {
    let machine = machine(PlatformName::Open);
    let traced = Traced::new(machine.clone());
    let dma = Dma::new(&traced, &[]);
    let device = dma.bind(Endpoint::new("nic").not_coherent(), Limits::NONE).unwrap();
    let buffer = machine.alloc(4096).unwrap();
    let works = || -> Vec<bool> {
        let work = |call| match call {
            Call::HandOver { cache_work, .. } | Call::TakeBack { cache_work, .. } => {
                Some(cache_work)
            }
            _ => None,
        };
        traced.take_calls().into_iter().filter_map(work).collect()
    };
    works();
    let attrs = Attrs::SKIP_CPU_SYNC;
    let mapping = map(&device, buffer.bytes(), Direction::Both, attrs).unwrap();
    assert!(!works().contains(&true), "the map leaves it out");
    sync_device(&device, &mapping, 4096);
    assert_eq!(works(), [true]);
    sync_cpu(&device, &mapping, 4096);
    assert_eq!(works(), [true]);
    finish(&device, mapping, 4096);
    assert!(!works().contains(&true), "and so does the end");
    let mapping = map(&device, buffer.bytes(), Direction::Both, Attrs::NONE).unwrap();
    assert_eq!(works(), [true]);
    finish(&device, mapping, 4096);
    assert_eq!(works(), [true]);
}

#[test]
fn a_device_with_pages_of_its_own_is_not_bound_anew() {
    let machine = machine(PlatformName::Tdx);
    let arena = Arena::new(&machine, 4 * GRANULE);
    let storage = metadata_words(GRANULE);
    let metadata = metadata(GRANULE, &storage);
    let dma =
        Dma::new(&machine, &[]).with_ledger(Ledger::new(&metadata).unwrap()).with_pages(&arena);
    let device = dma.bind(Endpoint::new("nic"), Limits::NONE).unwrap();
    let memory = alloc(&device, 4096, Context::Blocking).unwrap();
    let (device, _) =
        device.rebind(Endpoint::new("nic").accepted(vouch()), Limits::NONE).unwrap_err();
    free(&device, memory);
    let device = device.rebind(Endpoint::new("nic").accepted(vouch()), Limits::NONE).unwrap();
    let memory = alloc(&device, 4096, Context::Blocking).unwrap();
    free(&device, memory);
    assert_eq!((arena.taken(), arena.faults()), (0, vec![]));
}

#[test]
fn nothing_blocks_in_atomic_context_and_at_the_end_of_what_was_not_converted() {
    for (platform, accepted) in [(PlatformName::Open, false), (PlatformName::Tdx, true)] {
        let machine = machine(platform);
        let traced = Traced::new(machine.clone());
        let arena = Arena::new(&machine, 4 * GRANULE);
        let storage = metadata_words(GRANULE);
        let metadata = metadata(GRANULE, &storage);
        let ledger = if accepted { Ledger::new(&metadata).unwrap() } else { Ledger::EMPTY };
        let dma = Dma::new(&traced, &[]).with_ledger(ledger).with_pages(&arena);
        let endpoint = Endpoint::new("nic");
        let endpoint = if accepted { endpoint.accepted(vouch()) } else { endpoint };
        let device = dma.bind(endpoint, Limits::NONE).unwrap();
        let memory = machine.atomic(|| alloc(&device, 5000, Context::Atomic)).unwrap();
        assert!(!memory.converts_on_free());
        assert_eq!(memory.bytes().len(), 8192);
        free(&device, memory);
        let blocking = |call: &Call| matches!(call, Call::View { context: Context::Blocking, .. });
        let calls: Vec<_> = traced.take_calls().into_iter().filter(blocking).collect();
        assert_eq!(calls, [], "{platform}");
        assert_eq!(arena.contexts(), [Context::Atomic]);
        assert_eq!((arena.taken(), arena.faults(), machine.open_views()), (0, vec![], 0));
    }
}

#[test]
fn what_was_in_pages_is_wiped_before_they_go_back() {
    for (platform, accepted) in
        [(PlatformName::Open, false), (PlatformName::Tdx, true), (PlatformName::Pkvm, false)]
    {
        let machine = machine(platform);
        let arena = Arena::new(&machine, 4 * GRANULE);
        let storage = metadata_words(GRANULE);
        let metadata = metadata(GRANULE, &storage);
        let ledger = if platform == PlatformName::Open {
            Ledger::EMPTY
        } else {
            Ledger::new(&metadata).unwrap()
        };
        let dma = Dma::new(&machine, &[]).with_ledger(ledger).with_pages(&arena);
        let endpoint = Endpoint::new("nic");
        let endpoint = if accepted { endpoint.accepted(vouch()) } else { endpoint };
        let device = dma.bind(endpoint, Limits::NONE).unwrap();
        let mut memory = device.alloc(4096, Context::Blocking).unwrap();
        memory.bytes().write(0, &[7; 4096]).unwrap();
        assert!(memory.expose().free(Context::Blocking).is_ok());
        let mut left = vec![0; usize::try_from(arena.run().len()).unwrap()];
        machine.guest_read(arena.run().base(), &mut left);
        assert!(!left.contains(&7), "{platform}");
    }
}

/// What it says of addresses of a domain: `tests/sim/iommu/places.rs`.
#[test]
fn a_device_in_no_domain_is_not_bound_so_that_no_map_trips_over_it() {
    let machine = machine(PlatformName::Open);
    let dma = Dma::new(&machine, &[]);
    let endpoint = Endpoint::new("nic").attachment(Attachment::Translated);
    assert_eq!(dma.bind(endpoint, Limits::NONE).err(), Some(BindError::NoDomain));
}
