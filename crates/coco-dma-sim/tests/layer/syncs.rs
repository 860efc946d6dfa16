//! Cache work: on allocations that the driver syncs, and never on registers.

use coco_dma::Dma;
use coco_dma::attrs::Attrs;
use coco_dma::device::Endpoint;
use coco_dma::plan::AllocKind;
use coco_dma::plan::Limits;
use coco_dma::platform::Platform;
use coco_dma::regime::PlatformName;
use coco_dma::state::Context;
use coco_dma::state::Direction;
use coco_dma_sim::Call;
use coco_dma_sim::Machine;
use coco_dma_sim::Traced;

use crate::support::Arena;
use crate::support::GRANULE;
use crate::support::finish;
use crate::support::free;
use crate::support::machine;
use crate::support::map;

/// The cache work since the last time: whether towards the device, and whether it is due.
fn works(traced: &Traced<Machine>) -> Vec<(bool, bool)> {
    let work = |call| match call {
        Call::HandOver { cache_work, .. } => Some((true, cache_work)),
        Call::TakeBack { cache_work, .. } => Some((false, cache_work)),
        _ => None,
    };
    traced.take_calls().into_iter().filter_map(work).collect()
}

#[test]
fn what_is_not_coherent_is_synced_both_ways_by_its_own_device_alone() {
    let machine = machine(PlatformName::Open);
    let arena = Arena::new(&machine, 8 * GRANULE);
    let traced = Traced::new(machine.clone());
    let dma = Dma::new(&traced, &[]).with_pages(&arena);
    let blind = dma.bind(Endpoint::new("blind").not_coherent(), Limits::NONE).unwrap();
    let other = dma.bind(Endpoint::new("other").not_coherent(), Limits::NONE).unwrap();
    let sees = dma.bind(Endpoint::new("sees"), Limits::NONE).unwrap();
    for (device, kind, due) in [
        (&blind, AllocKind::Pages, true),
        (&blind, AllocKind::NonContiguous, true),
        (&blind, AllocKind::Coherent, false),
        (&sees, AllocKind::Pages, false),
    ] {
        let wanted = |towards| if due { vec![(towards, true)] } else { vec![] };
        works(&traced);
        let memory = device.alloc_as(4096, kind, Context::Blocking, Attrs::NONE).unwrap();
        assert_eq!(works(&traced), wanted(true), "zeroes leave the caches: {kind:?}");
        device.sync_alloc_for_device(&memory, Direction::ToDevice);
        assert_eq!(works(&traced), wanted(true), "{kind:?}");
        device.sync_alloc_for_cpu(&memory, Direction::FromDevice);
        assert_eq!(works(&traced), wanted(false), "{kind:?}");
        other.sync_alloc_for_device(&memory, Direction::Both);
        other.sync_alloc_for_cpu(&memory, Direction::Both);
        assert_eq!(works(&traced), [], "another device's record");
        free(device, memory);
    }
    assert_eq!(arena.taken(), 0);
}

#[test]
fn no_cache_has_lines_of_a_peers_registers() {
    let machine = machine(PlatformName::Open);
    let traced = Traced::new(machine.clone());
    let bar = machine.alloc(4096).unwrap();
    let peers = [machine.locate(bar.bytes()).unwrap()];
    let dma = Dma::new(&traced, &[]).with_peers(&peers);
    let blind = dma.bind(Endpoint::new("blind").not_coherent(), Limits::NONE).unwrap();
    for attrs in [Attrs::NONE, Attrs::MMIO] {
        works(&traced);
        let mapping = map(&blind, bar.bytes(), Direction::Both, attrs).unwrap();
        assert_eq!(mapping.addr().raw(), peers[0].base().raw());
        finish(&blind, mapping, 4096);
        assert!(works(&traced).iter().all(|(_, due)| !due), "{attrs}");
    }
}
