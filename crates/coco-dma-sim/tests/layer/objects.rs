//! Objects out of pools for descriptors: zero when they are taken, apart, and never the host's to
//! lead astray.

use std::collections::BTreeSet;
use std::sync::OnceLock;
use std::thread;

use coco_dma::Dma;
use coco_dma::Word;
use coco_dma::addr::Boundary;
use coco_dma::coherent::ObjectLayout;
use coco_dma::coherent::ObjectPage;
use coco_dma::coherent::ObjectPool;
use coco_dma::coherent::PagesInUse;
use coco_dma::device::Device;
use coco_dma::device::Endpoint;
use coco_dma::ledger::Ledger;
use coco_dma::plan::Limits;
use coco_dma::pool::Pool;
use coco_dma::reason::Refuse;
use coco_dma::regime::PlatformName;
use coco_dma::state::Context;
use coco_dma::state::PoolLabel;
use coco_dma::state::PoolUse;
use coco_dma::state::Trust;
use coco_dma_sim::Machine;
use coco_dma_sim::SimDevice;

use crate::support::Arena;
use crate::support::BASE;
use crate::support::GRANULE;
use crate::support::convertible;
use crate::support::machine;
use crate::support::metadata;
use crate::support::metadata_words;
use crate::support::revoke;
use crate::support::words;

const SIZE: usize = 48;

fn metadata_of(pages: usize) -> Vec<ObjectPage> {
    (0..pages).map(|_| ObjectPage::new()).collect()
}

fn layout() -> ObjectLayout {
    ObjectLayout::new(SIZE, 16).unwrap()
}

/// A machine with a reservoir of eight pages, converted by hand or at need.
fn with_device(platform: PlatformName, work: impl FnOnce(&Machine, &Dma<'_, Machine>, &Pool<'_>)) {
    let machine = machine(platform);
    let storage = metadata_words(GRANULE);
    let metadata = metadata(GRANULE, &storage);
    let mine = machine.take(8 * GRANULE).unwrap();
    let pool_words = words(Pool::words(mine.len()));
    let pool = convertible(PoolLabel::GuestShared, mine, &pool_words);
    let pools = [pool.only_for(PoolUse::Coherent)];
    let dma = Dma::new(&machine, &pools).with_ledger(Ledger::new(&metadata).unwrap());
    work(&machine, &dma, &pools[0]);
    assert_eq!(machine.violations(), []);
}

#[test]
fn an_object_is_zero_whatever_was_in_it() {
    with_device(PlatformName::Tdx, |machine, dma, _| {
        let device = dma.bind(Endpoint::new("nic"), Limits::NONE).unwrap();
        let pages = metadata_of(1);
        let pool = ObjectPool::new(&device, layout(), &pages).unwrap();
        let host = SimDevice::new(machine, "nic", Trust::Untrusted);
        let mut first = pool.alloc(Context::Blocking).unwrap();
        let addr = first.addr().raw();
        first.bytes().write(0, &[7; SIZE]).unwrap();
        host.write(addr + 20, &[9; 4]);
        assert_eq!(first.bytes().read_array::<1>(21), Ok([9]));
        // Its neighbour is another's, and stays as it is.
        let mut second = pool.alloc(Context::Atomic).unwrap();
        second.bytes().write(0, &[5; SIZE]).unwrap();
        first.free();
        let mut again = pool.alloc(Context::Atomic).unwrap();
        assert_eq!(again.addr().raw(), addr);
        let mut seen = [1; SIZE];
        host.read(addr, &mut seen);
        assert_eq!(seen, [0; SIZE], "the host sees nothing of the last owner");
        assert_eq!(again.bytes().read_array(0), Ok([0; SIZE]));
        assert_eq!(second.bytes().read_array(0), Ok([5; SIZE]));
        again.free();
        second.free();
        assert!(pool.close(Context::Atomic).is_ok(), "the reservoir converts nothing");
        assert_eq!(device.holds(), 0);
    });
}

#[test]
fn objects_are_apart_aligned_and_within_their_boundary() {
    with_device(PlatformName::Snp, |machine, dma, reservoir| {
        let device = dma.bind(Endpoint::new("nic"), Limits::NONE).unwrap();
        let (size, wall) = (96, Boundary::new(256).unwrap());
        let layout = ObjectLayout::new(size, 32).unwrap().within(wall).unwrap();
        let pages = metadata_of(3);
        let pool = ObjectPool::new(&device, layout, &pages).unwrap();
        let objects: Vec<_> =
            (0..pool.capacity()).map(|_| pool.alloc(Context::Blocking).unwrap()).collect();
        assert_eq!((objects.len(), pool.used(), pool.pages()), (3 * 4096 / 256 * 2, 96, 3));
        let refused = pool.alloc(Context::Blocking).map(|_| ()).unwrap_err();
        assert_eq!(refused.reason, Refuse::PoolFull);
        let places: BTreeSet<u64> = objects.iter().map(|object| object.addr().raw()).collect();
        for (place, next) in places.iter().zip(places.iter().skip(1)) {
            assert!(next - place >= 96);
        }
        for place in &places {
            assert!(place.is_multiple_of(32) && !wall.crossed_by(*place, 96));
            assert!(device.dma().pools()[0].range().base().raw() <= *place);
        }
        assert_eq!(places.len(), objects.len());
        assert_eq!((machine.counts().shares, reservoir.used()), (1, 6), "one conversion in all");
        objects.into_iter().for_each(|object| object.free());
        assert_eq!((pool.trim(Context::Atomic), pool.pages(), reservoir.used()), (3, 0, 0));
    });
}

#[test]
fn what_is_still_in_use_is_kept_and_counted() {
    with_device(PlatformName::Cca, |_, dma, reservoir| {
        let device = dma.bind(Endpoint::new("nic"), Limits::NONE).unwrap();
        let pages = metadata_of(2);
        let pool = ObjectPool::new(&device, layout(), &pages).unwrap();
        assert_eq!(ObjectPool::new(&device, layout(), &pages).err(), Some(PagesInUse));
        let lost = pool.alloc(Context::Blocking).unwrap();
        drop(lost);
        assert_eq!((pool.lost(), pool.used(), pool.trim(Context::Blocking)), (1, 1, 0));
        let pool = pool.close(Context::Blocking).unwrap_err();
        drop(pool);
        assert_eq!((device.counters().lost, reservoir.used()), (1, 2));
        // Its books tell of memory that a device may still be at: they are no other pool's.
        assert_eq!(ObjectPool::new(&device, layout(), &pages).err(), Some(PagesInUse));
        let rest = &pages[1..];
        assert!(ObjectPool::new(&device, layout(), rest).is_ok());
        assert!(ObjectPool::new(&device, layout(), rest).is_ok(), "dropped, it gave them up");
    });
}

#[test]
fn a_page_that_was_converted_goes_back_where_it_may() {
    let machine = machine(PlatformName::Tdx);
    let arena = Arena::new(&machine, 8 * GRANULE);
    let storage = metadata_words(GRANULE);
    let metadata = metadata(GRANULE, &storage);
    let ledger = Ledger::new(&metadata).unwrap();
    let dma = Dma::new(&machine, &[]).with_ledger(ledger).with_pages(&arena);
    let device = dma.bind(Endpoint::new("nic"), Limits::NONE).unwrap();
    let pages = metadata_of(2);
    let pool = ObjectPool::new(&device, layout(), &pages).unwrap();
    let refused = machine.atomic(|| pool.alloc(Context::Atomic).map(|_| ()).unwrap_err());
    assert_eq!(refused.reason, Refuse::AtomicNeedsConversion);
    pool.alloc(Context::Blocking).unwrap().free();
    // Now a page is there.
    machine.atomic(|| pool.alloc(Context::Atomic).unwrap().free());
    assert_eq!(machine.atomic(|| pool.trim(Context::Atomic)), 0);
    assert_eq!((arena.taken(), machine.counts().shares), (1, 1));
    assert!(pool.close(Context::Blocking).is_ok());
    assert_eq!((arena.taken(), arena.faults()), (0, vec![]));
    assert_eq!(machine.violations(), []);
}

#[test]
fn a_revoked_device_is_given_no_objects() {
    with_device(PlatformName::Pkvm, |_, dma, reservoir| {
        let device = dma.bind(Endpoint::new("nic"), Limits::NONE).unwrap();
        let pages = metadata_of(1);
        let pool = ObjectPool::new(&device, layout(), &pages).unwrap();
        let object = pool.alloc(Context::Blocking).unwrap();
        revoke(&device);
        let refused = pool.alloc(Context::Atomic).map(|_| ()).unwrap_err();
        assert_eq!(refused.reason, Refuse::Revoked);
        // What the driver has stays its own until it gives it back.
        assert_eq!((pool.used(), reservoir.used()), (1, 2));
        object.free();
        drop(pool);
        assert_eq!(reservoir.used(), 0);
    });
}

#[test]
fn a_pool_in_a_static_serves_every_thread() {
    static PAGES: [ObjectPage; 2] = [const { ObjectPage::new() }; 2];
    static WORDS: [Word; 256] = [const { Word::new() }; 256];
    static POOLS: OnceLock<[Pool<'static>; 1]> = OnceLock::new();
    static MACHINE: OnceLock<Machine> = OnceLock::new();
    static DMA: OnceLock<Dma<'static, Machine>> = OnceLock::new();
    static DEVICE: OnceLock<Device<'static, Machine>> = OnceLock::new();
    static POOL: OnceLock<ObjectPool<'static, Machine>> = OnceLock::new();

    let machine = MACHINE.get_or_init(|| machine(PlatformName::Tdx));
    let run = crate::support::run(BASE, 8 * GRANULE);
    let adopted = crate::support::adopt(machine, PoolLabel::GuestShared, run, &WORDS);
    let pools = POOLS.get_or_init(|| [adopted.only_for(PoolUse::Coherent)]);
    let dma = DMA.get_or_init(|| Dma::new(machine, pools));
    let device = DEVICE.get_or_init(|| dma.bind(Endpoint::new("nic"), Limits::NONE).unwrap());
    let pool = POOL.get_or_init(|| ObjectPool::new(device, layout(), &PAGES).unwrap());
    thread::scope(|scope| {
        for mine in 1..5 {
            scope.spawn(move || {
                for _ in 0..200 {
                    let take = || loop {
                        // Both pages may be on their way, in other threads.
                        match pool.alloc(Context::Atomic) {
                            Ok(object) => break object,
                            Err(error) => assert_eq!(error.reason, Refuse::PoolFull),
                        }
                        thread::yield_now();
                    };
                    let mut objects: Vec<_> = (0..10).map(|_| take()).collect();
                    for object in &mut objects {
                        assert_eq!(object.bytes().read_array(0), Ok([0; SIZE]));
                        object.bytes().write(0, &[mine; SIZE]).unwrap();
                    }
                    for mut object in objects {
                        assert_eq!(object.bytes().read_array(0), Ok([mine; SIZE]));
                        object.free();
                    }
                    pool.trim(Context::Atomic);
                }
            });
        }
    });
    pool.trim(Context::Atomic);
    assert_eq!((pool.used(), pool.pages(), pools[0].used()), (0, 0, 0));
}
