//! How the CPU sees coherent memory of a device that does not see the caches.
// UNSAFETY: freeing says that the device has stopped.
#![expect(unsafe_code)]

use coco_dma::Dma;
use coco_dma::attrs::Attrs;
use coco_dma::coherent::AllocError;
use coco_dma::coherent::RawCoherent;
use coco_dma::convert::ShrinkFailed;
use coco_dma::device::Device;
use coco_dma::device::Endpoint;
use coco_dma::iommu::Domain;
use coco_dma::iommu::IovaWindow;
use coco_dma::ledger::Ledger;
use coco_dma::plan::AllocKind;
use coco_dma::plan::Limits;
use coco_dma::pool::Pool;
use coco_dma::reason::Refuse;
use coco_dma::regime::PlatformName;
use coco_dma::state::CacheMode;
use coco_dma::state::Context;
use coco_dma::state::PoolLabel;
use coco_dma::state::State;
use coco_dma_sim::Call;
use coco_dma_sim::Faulty;
use coco_dma_sim::Machine;
use coco_dma_sim::SimIommu;
use coco_dma_sim::Traced;

use crate::support::Arena;
use crate::support::GRANULE;
use crate::support::alloc;
use crate::support::convertible;
use crate::support::free;
use crate::support::machine;
use crate::support::metadata;
use crate::support::metadata_words;
use crate::support::revoke;
use crate::support::words;

type Layered = Traced<Faulty<Machine>>;

fn ring(device: &Device<'_, Layered>, kind: AllocKind) -> Result<RawCoherent, AllocError> {
    device.alloc_as(4096, kind, Context::Atomic, Attrs::NONE)
}

/// The memory types of the views that began since the last time.
fn views(traced: &Layered) -> Vec<CacheMode> {
    let view = |call| match call {
        Call::View { cache, .. } => Some(cache),
        _ => None,
    };
    traced.take_calls().into_iter().filter_map(view).collect()
}

/// A guest with a pool that is open, and a device that does not see the caches.
fn with_pool(work: impl FnOnce(&Dma<'_, Layered>, &Pool<'_>, Device<'_, Layered>)) {
    let machine = machine(PlatformName::Tdx);
    let run = machine.take(4 * GRANULE).unwrap();
    let (storage, slots) = (metadata_words(GRANULE), words(Pool::words(run.len())));
    let parts = metadata(GRANULE, &storage);
    let pools = [convertible(PoolLabel::GuestShared, run, &slots)];
    let traced = Traced::new(Faulty::new(machine.clone()));
    let dma = Dma::new(&traced, &pools).with_ledger(Ledger::new(&parts).unwrap());
    dma.grow(&pools[0]).unwrap();
    let device = dma.bind(Endpoint::new("blind").not_coherent(), Limits::NONE).unwrap();
    assert_eq!(views(&traced).last(), Some(&CacheMode::WriteBack), "the pool's own");
    work(&dma, &pools[0], device);
    assert_eq!(machine.violations(), []);
}

#[test]
fn slots_have_a_view_of_their_own_for_as_long_as_they_are_coherent_memory() {
    with_pool(|dma, pool, device| {
        let (traced, machine) = (dma.platform(), dma.platform().inner().inner());
        let memory = ring(&device, AllocKind::Coherent).unwrap();
        assert_eq!(
            (views(traced), memory.cache()),
            (vec![CacheMode::Uncached], CacheMode::Uncached)
        );
        assert_eq!(machine.open_views(), 2);
        free(&device, memory);
        let memory = ring(&device, AllocKind::Pages).unwrap();
        assert_eq!((views(traced), memory.cache()), (vec![], CacheMode::WriteBack));
        free(&device, memory);
        assert_eq!((machine.open_views(), pool.used()), (1, 0));
        dma.shrink(pool).unwrap();
    });
}

#[test]
fn without_a_view_nothing_is_held() {
    with_pool(|dma, pool, device| {
        dma.platform().inner().fail_view(0);
        let refused = ring(&device, AllocKind::Coherent).map_err(|error| error.reason);
        assert_eq!(refused.map(|_| ()), Err(Refuse::NoView));
        assert_eq!(pool.used(), 0);
        dma.shrink(pool).unwrap();
        assert!(dma.platform().inner().inner().all_in(pool.range(), State::PRIVATE));
    });
}

/// Revoking a device gives back what it mapped, not what its driver allocated and may be looking at.
#[test]
fn a_pool_keeps_its_state_while_a_revoked_device_has_coherent_memory_in_it() {
    with_pool(|dma, pool, device| {
        let machine = dma.platform().inner().inner();
        let memory = ring(&device, AllocKind::Coherent).unwrap();
        revoke(&device);
        assert_eq!(dma.shrink(pool), Err(ShrinkFailed::InUse { slots: 2 }));
        assert!(machine.all_in(pool.range(), State::SHARED));
        free(&device, memory);
        assert_eq!((machine.open_views(), pool.used()), (1, 0));
        dma.shrink(pool).unwrap();
    });
}

/// Pages of our own that the CPU cannot see as it must are not missing, and were converted well.
#[test]
fn pages_without_a_view_are_refused_for_that_and_go_back() {
    for (platform, skip) in [(PlatformName::Open, 0), (PlatformName::Tdx, 2)] {
        let machine = machine(platform);
        let arena = Arena::new(&machine, 4 * GRANULE);
        let storage = metadata_words(GRANULE);
        let parts = metadata(GRANULE, &storage);
        let traced = Traced::new(Faulty::new(machine.clone()));
        let dma = Dma::new(&traced, &[]).with_pages(&arena);
        let guest = dma.regime().is_guest();
        let dma = if guest { dma.with_ledger(Ledger::new(&parts).unwrap()) } else { dma };
        let device = dma.bind(Endpoint::new("blind").not_coherent(), Limits::NONE).unwrap();
        // In a guest the pages are wiped before they are shared and afterwards, by views too.
        dma.platform().inner().fail_view(skip);
        let refused = alloc(&device, 4096, Context::Blocking).map_err(|error| error.reason);
        assert_eq!(refused.map(|_| ()), Err(Refuse::NoView), "{platform}");
        assert_eq!((arena.taken(), dma.ledger().quarantined()), (0, 0), "{platform}");
        assert_eq!((machine.open_views(), machine.violations()), (0, vec![]), "{platform}");
    }
}

/// Behind an IOMMU the view is there before the entry, and ends after it.
#[test]
fn slots_that_are_not_mapped_have_no_view_and_those_that_are_keep_it() {
    let machine = machine(PlatformName::Tdx);
    let run = machine.take(4 * GRANULE).unwrap();
    let (storage, slots) = (metadata_words(GRANULE), words(Pool::words(run.len())));
    let parts = metadata(GRANULE, &storage);
    let pools = [convertible(PoolLabel::GuestShared, run, &slots)];
    let traced = Traced::new(Faulty::new(machine.clone()));
    let dma = Dma::new(&traced, &pools).with_ledger(Ledger::new(&parts).unwrap());
    dma.grow(&pools[0]).unwrap();
    let iommu = SimIommu::new(4096);
    let addresses = words(Domain::words(1 << 20, 4096));
    let domain = Domain::new(&iommu, IovaWindow::new(1 << 20, 1 << 20).unwrap(), &addresses);
    let domain = domain.unwrap();
    let endpoint = Endpoint::new("blind").not_coherent().translated(&domain).quota(2);
    let device = dma.bind(endpoint, Limits::NONE).unwrap();
    iommu.fail_map(0);
    let refused = ring(&device, AllocKind::Coherent).map(|_| ());
    assert_eq!(refused.map_err(|error| error.reason), Err(Refuse::IommuFailed));
    assert_eq!((machine.open_views(), pools[0].used(), device.charged()), (1, 0, 0));
    let memory = ring(&device, AllocKind::Coherent).unwrap();
    iommu.fail_unmap(0);
    // SAFETY: there is no device.
    let failed = unsafe { device.free_raw(memory) }.unwrap_err();
    assert_eq!((machine.open_views(), pools[0].used(), device.charged()), (2, 2, 2));
    free(&device, failed.memory);
    assert_eq!((machine.open_views(), pools[0].used(), device.charged()), (1, 0, 0));
    assert_eq!((machine.violations(), iommu.mistakes(), domain.mapped()), (vec![], vec![], 0));
}
