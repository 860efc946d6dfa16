//! Memory that is shared with a device and reclaimed from it while it works.
// UNSAFETY: regions are converted, and mapped where they lie.
#![expect(unsafe_code)]

use core::ptr::NonNull;
use core::slice;
use std::time::{Duration, Instant};

use coco_dma::addr::PhysRange;
use coco_dma::convert::{ConvertErrorKind, ShrinkFailed};
use coco_dma::device::Endpoint;
use coco_dma::ledger::Found;
use coco_dma::plan::Limits;
use coco_dma::platform::ConvertVerdict;
use coco_dma::platform::{ConvertError, Platform};
use coco_dma::state::{CacheMode, Context, State};
use coco_dma_vhost::device::{DeviceProcess, Keeper, Kind};
use coco_dma_vhost::disk::{Status, Submitted};
use coco_dma_vhost::front::Front;
use coco_dma_vhost::machine::Layer;
use coco_dma_vhost::memory::{POOL_NAME, REGION_NAME};
use coco_dma_virtio::{Adaptor, Record};
use rustix::process::Signal;
use virtio_drivers::queue::VirtQueue;
use virtio_drivers::transport::Transport;

use crate::bench::{
    Images, POOL, TestDisk, TestHal, job, mapped, next, on_regions, run, submit, with_disk,
};
use crate::loss::signal;

const SIZE: usize = 65536;
/// A pool with room for a queue and the frames of a few requests, and nothing else.
const SMALL: usize = 16 * 2048;

/// Reads `len` bytes of the disk and compares them.
fn reads<'a>(layer: &Layer<'a>, disk: &mut TestDisk<'a, '_>, images: &Images, len: usize) {
    assert!(matches!(submit(layer, disk, len), Submitted::Taken));
    let done = next(disk);
    assert_eq!(done.status, Status::Ok);
    assert!(
        done.request.data.unwrap().private().unwrap().bytes()
            == &images.bytes[3 * 512..3 * 512 + len]
    );
}

fn share(layer: &Layer<'_>, region: PhysRange) {
    // SAFETY: the region is the test's: no pool has it, and nothing points into it.
    unsafe { layer.dma().share(region) }.unwrap();
}

pub(crate) fn regions_come_and_go(kind: Kind) {
    on_regions(SMALL, (6, SIZE), &[2, 3], |layer| {
        let images = Images::new(1 << 20);
        let process = DeviceProcess::start(&images.launch(kind)).unwrap();
        let [small, large] = layer.growth() else { panic!() };
        with_disk(layer, &process, 0, |mut disk, _| {
            let disk = &mut disk;
            let maps = || (mapped(&process, POOL_NAME), mapped(&process, REGION_NAME));
            assert_eq!(maps(), (1, 0));
            assert!(matches!(submit(layer, disk, 100 << 10), Submitted::NoRoom(_)));
            layer.dma().grow(small).unwrap();
            assert_eq!(maps(), (1, 2));
            // Across the border of two regions.
            reads(layer, disk, &images, 100 << 10);
            assert!(matches!(submit(layer, disk, 150 << 10), Submitted::NoRoom(_)));
            layer.dma().grow(large).unwrap();
            assert_eq!(maps(), (1, 5));
            reads(layer, disk, &images, 150 << 10);
            // One by one, and in another order.
            share(layer, layer.machine().region(5).unwrap());
            assert_eq!(maps(), (1, 6));
            layer.dma().shrink(small).unwrap();
            assert_eq!(maps(), (1, 4));
            reads(layer, disk, &images, 150 << 10);
            layer.dma().shrink(large).unwrap();
            assert_eq!(maps(), (1, 1));
            assert!(matches!(submit(layer, disk, 100 << 10), Submitted::NoRoom(_)));
            // What was there all the time goes on working.
            reads(layer, disk, &images, 4096);
            for _ in 0..50 {
                layer.dma().grow(small).unwrap();
                reads(layer, disk, &images, 100 << 10);
                layer.dma().shrink(small).unwrap();
            }
            // SAFETY: as in `share`.
            unsafe { layer.dma().reclaim(layer.machine().region(5).unwrap()) }.unwrap();
            assert_eq!(maps(), (1, 0));
        });
        assert!(process.poll_exit().is_none());
        assert_eq!((layer.pool().used(), layer.dma().ledger().quarantined()), (0, 0));
    });
}

/// Reads straight into a region, with the device stopped meanwhile.
pub(crate) fn a_region_in_use_is_not_reclaimed(kind: Kind) {
    on_regions(POOL, (2, SIZE), &[], |layer| {
        let images = Images::new(1 << 20);
        let process = DeviceProcess::start(&images.launch(kind)).unwrap();
        let machine = layer.machine();
        let region = machine.region(1).unwrap();
        share(layer, region);
        // SAFETY: the region is shared, and the view is not used after it is reclaimed.
        let view = unsafe {
            machine.map_cpu(region, State::SHARED, CacheMode::WriteBack, Context::Blocking)
        }
        .unwrap()
        .start;
        let stream = process.connect(0).unwrap();

        let records: Vec<Record> = (0..16).map(|_| Record::new()).collect();
        let device = layer.dma().bind(Endpoint::new("test disk"), Limits::NONE).unwrap();
        let adaptor = &Adaptor::new(device, &records);
        // SAFETY: the queue is declared after the guard, and the guard after the adaptor.
        let _bound = unsafe { TestHal::bind(&adaptor) }.unwrap();
        let mut front = Front::connect(stream, machine).unwrap();
        front.write_driver_features(1 << 32);
        let mut queue = VirtQueue::<TestHal, 16>::new(&mut front, 0, false, false).unwrap();
        front.check().unwrap();
        assert_eq!(mapped(&process, REGION_NAME), 1);

        signal(&process, Signal::STOP);
        let (mut header, mut status) = ([0; 16], [0xFF]);
        header[8] = 3;
        // SAFETY: shared memory that nobody but the device touches; the slice is only named.
        let data = unsafe { slice::from_raw_parts_mut(view.as_ptr(), SIZE) };
        // SAFETY: the buffers stay as they are until they are popped.
        let token = unsafe { queue.add(&[&header], &mut [data, &mut status]) }.unwrap();
        front.notify(0);
        assert_eq!(adaptor.device().counters().direct, 1);
        // SAFETY: this is what the ledger is for.
        let refused = unsafe { layer.dma().reclaim(region) }.unwrap_err();
        let ConvertErrorKind::Ledger(conflict) = refused.why else { panic!("{refused}") };
        assert_eq!(conflict.found, Found::Pinned);
        assert_eq!(mapped(&process, REGION_NAME), 1);
        signal(&process, Signal::CONT);

        let begun = Instant::now();
        while !queue.can_pop() {
            assert!(begun.elapsed() < Duration::from_secs(60), "the request was lost");
            std::thread::sleep(Duration::from_millis(1));
        }
        // SAFETY: as above.
        let data = unsafe { slice::from_raw_parts_mut(view.as_ptr(), SIZE) };
        // SAFETY: the same buffers.
        let written = unsafe { queue.pop_used(token, &[&header], &mut [data, &mut status]) };
        assert_eq!((written, status), (Ok(65537), [0]));
        assert!(bytes(view) == images.bytes[3 * 512..3 * 512 + SIZE]);
        // SAFETY: the device is done with it.
        unsafe { layer.dma().reclaim(region) }.unwrap();
        assert_eq!(mapped(&process, REGION_NAME), 0);
        assert!(bytes(view).iter().all(|byte| *byte == 0), "wiped before anybody uses it again");
    });
}

fn bytes(view: NonNull<u8>) -> Vec<u8> {
    let mut bytes = vec![0; SIZE];
    // SAFETY: a region of the machine, whose memory is always there, and no device is at it.
    unsafe { view.copy_to_nonoverlapping(NonNull::from(bytes.as_mut_slice()).cast(), SIZE) };
    bytes
}

pub(crate) fn a_pool_in_use_does_not_shrink(kind: Kind) {
    on_regions(SMALL, (2, SIZE), &[2], |layer| {
        let images = Images::new(1 << 20);
        let process = DeviceProcess::start(&images.launch(kind)).unwrap();
        let [pool] = layer.growth() else { panic!() };
        layer.dma().grow(pool).unwrap();
        with_disk(layer, &process, 0, |mut disk, _| {
            signal(&process, Signal::STOP);
            assert!(matches!(submit(layer, &mut disk, SIZE), Submitted::Taken));
            disk.kick();
            let refused = layer.dma().shrink(pool).unwrap_err();
            assert_eq!(refused, ShrinkFailed::InUse { slots: 32 });
            assert!(pool.is_open());
            signal(&process, Signal::CONT);
            assert_eq!(next(&mut disk).status, Status::Ok);
            layer.dma().shrink(pool).unwrap();
            assert_eq!(mapped(&process, REGION_NAME), 0);
        });
    });
}

pub(crate) fn a_new_device_is_given_what_is_shared(kind: Kind) {
    on_regions(SMALL, (8, SIZE), &[4, 2], |layer| {
        let images = Images::new(4 << 20);
        let launch = images.launch(kind);
        let mut keeper = Keeper::new(&launch);
        layer.dma().grow(&layer.growth()[0]).unwrap();
        share(layer, layer.machine().region(7).unwrap());
        let process = keeper.process().unwrap();
        with_disk(layer, process, 0, |mut disk, adaptor| {
            assert_eq!(mapped(process, REGION_NAME), 5);
            assert!(matches!(submit(layer, &mut disk, SIZE), Submitted::Taken));
            disk.kick();
            process.kill().unwrap();
            // Told of nobody's death, the machine converts all the same: the dead one is no
            // reason to fail for ever.
            let grown = layer.dma().grow(&layer.growth()[1]);
            if grown.is_err() {
                layer.dma().grow(&layer.growth()[1]).unwrap();
            }
            let undone = disk.lose().unwrap();
            assert!(undone.len() <= 1);
            assert_eq!(adaptor.device().counters().live(), 0);
            assert!(!adaptor.device().is_alive());
        });
        assert!(layer.growth().iter().all(|pool| pool.used() == 0));
        keeper.replace(&"the test").unwrap();
        let process = keeper.process().unwrap();
        with_disk(layer, process, 0, |mut disk, _| {
            assert_eq!(mapped(process, REGION_NAME), 7);
            reads(layer, &mut disk, &images, SIZE);
            layer.dma().shrink(&layer.growth()[1]).unwrap();
            assert_eq!(mapped(process, REGION_NAME), 5);
        });
        // And a whole copy through regions, whose device is killed on the way.
        let mut killed = false;
        let report = coco_dma_vhost::copy::copy(layer, &mut keeper, &job(4 << 20, 3), &mut |at| {
            if !killed && at.written * 2 > at.bytes {
                killed = true;
                crate::loss::kill_children();
            }
        });
        let report = report.unwrap();
        assert!(images.output() == images.bytes);
        let regions = report.device_mappings.iter().filter(|line| line.contains(REGION_NAME));
        assert_eq!(regions.count(), 2 * 5, "two connections: {:?}", report.device_mappings);
        assert_eq!(keeper.restarts(), 2);
        run(layer, &mut keeper, &job(4 << 20, 3)).unwrap();
    });
}

pub(crate) fn never_one_region_too_many(kind: Kind) {
    const REGIONS: usize = 600;
    on_regions(POOL, (REGIONS, 4096), &[], |layer| {
        let images = Images::new(1 << 20);
        let process = DeviceProcess::start(&images.launch(kind)).unwrap();
        let region = |number| layer.machine().region(number).unwrap();
        with_disk(layer, &process, 0, |mut disk, _| {
            let limit = usize::try_from(disk.front().region_limit()).unwrap();
            assert!((8..REGIONS).contains(&limit), "{limit}");
            // The pool is one of them.
            (0..limit - 1).for_each(|number| share(layer, region(number)));
            assert_eq!(mapped(&process, REGION_NAME), limit - 1);
            // SAFETY: as in `share`.
            let refused = unsafe { layer.dma().share(region(limit - 1)) }.unwrap_err();
            let full = u64::from(libc::ENOSPC.unsigned_abs());
            assert_eq!(
                refused.why,
                ConvertErrorKind::Platform(ConvertError {
                    done: 0,
                    doubt: 0,
                    code: full,
                    verdict: ConvertVerdict::Retry
                })
            );
            assert_eq!((refused.quarantined, refused.converted), (0, 0));
            // The device was never asked: it still works, and is not one connection short.
            reads(layer, &mut disk, &images, SIZE);
            assert_eq!(mapped(&process, REGION_NAME), limit - 1);
            // Whoever connects now is given all of them.
            drop(disk);
        });
        let limit = with_disk(layer, &process, 1, |disk, _| {
            let limit = usize::try_from(disk.front().region_limit()).unwrap();
            assert_eq!(mapped(&process, REGION_NAME), limit - 1);
            limit
        });
        // With room for one it goes on.
        // SAFETY: as in `share`.
        unsafe { layer.dma().reclaim(region(0)) }.unwrap();
        share(layer, region(limit - 1));
        with_disk(layer, &process, 0, |mut disk, _| reads(layer, &mut disk, &images, SIZE));
        // More than a device takes can be shared while none is connected: none can connect then.
        share(layer, region(0));
        let front = Front::connect(process.connect(0).unwrap(), layer.machine());
        let mut front = front.unwrap();
        front.write_driver_features(1 << 32);
        let error = front.check().unwrap_err();
        assert!(error.to_string().contains("use fewer"), "{error}");
    });
}
