//! The tests that concern both kinds of device most.

use coco_dma::regime::PlatformName;
use coco_dma_vhost::copy::{CopyError, CopyJob, Shape};
use coco_dma_vhost::device::{Backing, DeviceProcess, Export, Keeper, Kind};
use coco_dma_vhost::disk::{DiskError, Op, Request, Status, Submitted};
use coco_dma_vhost::machine::Layer;

use crate::bench::{Images, POOL, job, launch, on, run, with_disk};
use crate::{attacks, hostile, loss, regions, slow, stale};

pub(crate) type Alone = (&'static str, fn());
pub(crate) type Test = (&'static str, fn(Kind));

pub(crate) const ALONE: &[Alone] = &[
    ("no_trick_of_a_device_gets_through", hostile::no_trick_gets_through),
    ("a_dead_or_deaf_device_refuses_nothing", attacks::a_dead_or_deaf_device_refuses_nothing),
    ("what_a_device_did_not_write_is_zero", stale::what_a_device_did_not_write_is_zero),
    ("a_console_shows_what_was_typed_and_zeroes", stale::a_console_shows_what_was_typed_and_zeroes),
];
pub(crate) const BOTH: &[Test] = &[
    ("copies_every_size", copies_every_size),
    ("copies_on_every_platform", copies_on_every_platform),
    ("a_pool_that_is_full_makes_it_wait", a_pool_that_is_full_makes_it_wait),
    ("a_killed_device_is_replaced", loss::a_killed_device_is_replaced),
    ("a_stopped_device_is_replaced", loss::a_stopped_device_is_replaced),
    ("a_device_that_stops_while_it_connects", loss::a_device_that_stops_while_it_connects),
    ("a_device_that_always_dies_ends_it_soon", loss::a_device_that_always_dies_ends_it_soon),
    ("an_attack_goes_on_after_a_loss", attacks::an_attack_goes_on_after_a_loss),
    ("a_disk_dropped_in_flight_gives_everything_back", dropped_in_flight),
    ("every_attack_is_refused", attacks::every_attack_is_refused),
    ("an_attack_needs_a_living_device", attacks::an_attack_needs_a_living_device),
    ("regions_come_and_go", regions::regions_come_and_go),
    ("a_region_in_use_is_not_reclaimed", regions::a_region_in_use_is_not_reclaimed),
    ("a_pool_in_use_does_not_shrink", regions::a_pool_in_use_does_not_shrink),
    ("a_new_device_is_given_what_is_shared", regions::a_new_device_is_given_what_is_shared),
    ("never_one_region_too_many", regions::never_one_region_too_many),
    ("what_does_not_suit_is_said", what_does_not_suit_is_said),
];
pub(crate) const QEMU: &[Test] = &[
    ("an_io_error_is_an_io_error", an_io_error_is_an_io_error),
    ("a_failed_read_frees_its_slots", slow::a_failed_read_frees_its_slots),
    ("a_slow_disk_and_a_small_pool_push_back", slow::a_slow_disk_and_a_small_pool_push_back),
];

pub(crate) const GUESTS: &[PlatformName] = &[
    PlatformName::Cca,
    PlatformName::Snp,
    PlatformName::Tdx,
    PlatformName::Pkvm,
    PlatformName::SnpVtom,
    PlatformName::Hyperv,
    PlatformName::Sev,
    PlatformName::S390,
    PlatformName::Pef,
];

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest;
    hex(&sha2::Sha256::digest(bytes))
}

pub(crate) fn copies(kind: Kind, layer: &Layer<'_>, len: usize, depth: usize) {
    let images = Images::new(len);
    let launch = images.launch(kind);
    let mut keeper = Keeper::new(&launch);
    let report = run(layer, &mut keeper, &job(len, depth)).unwrap();
    assert!(images.output() == images.bytes, "{len}: the output is another");
    assert_eq!(hex(&report.sha256), sha256(&images.bytes));
    let requests = 2 * len.div_ceil(65536) + 1;
    assert_eq!(report.requests, requests as u64);
    // Header, data and status; a flush has no data.
    assert_eq!(report.bounced(), 3 * requests - 1);
    assert_eq!((report.direct(), report.refused()), (0, 0));
    assert_eq!(report.input.maps.live() + report.output.maps.live(), 0);
    assert_eq!(report.input.adaptor, Default::default());
    assert_eq!(report.output.adaptor, Default::default());
    assert!(report.input.region_limit >= 8, "{report:?}");
    // Both connections have mapped the pool, and nothing else of ours is.
    assert!(!report.device_mappings.is_empty());
    for line in &report.device_mappings {
        assert!(line.contains("memfd:coco-dma-pool"), "{line}");
    }
    assert_eq!(report.slots_used, 12);
    assert_eq!(layer.pool().used(), 0);
    assert_eq!(keeper.restarts(), 0);
    assert!(keeper.process().unwrap().poll_exit().is_none());
    keeper.stop().unwrap();
}

fn copies_every_size(kind: Kind) {
    on(PlatformName::Tdx, POOL, |layer| {
        for len in [512, 65536, 65536 + 512, 3 * 65536 - 512, 9 << 20] {
            copies(kind, layer, len, 16);
        }
        // One at a time.
        copies(kind, layer, 5 * 65536 + 512, 1);
    });
}

fn copies_on_every_platform(kind: Kind) {
    for platform in GUESTS {
        on(*platform, POOL, |layer| copies(kind, layer, (1 << 20) + 512, 8));
    }
}

fn a_pool_that_is_full_makes_it_wait(kind: Kind) {
    // Room for the queues and two requests, and twenty of them wanted.
    let pool = (12 + 2 * 34) * 2048;
    on(PlatformName::Cca, pool, |layer| {
        let images = Images::new(4 << 20);
        let launch = images.launch(kind);
        let report = run(layer, &mut Keeper::new(&launch), &job(4 << 20, 20)).unwrap();
        assert!(images.output() == images.bytes);
        assert!(report.waits_for_room > 0);
        assert_eq!(report.input.adaptor.failed_shares + report.output.adaptor.failed_shares, 0);
        assert!(layer.pool().high_water() <= 80 && layer.pool().high_water() > 12 + 34);
    });
    // Not even one: an error, at once.
    on(PlatformName::Cca, (12 + 20) * 2048, |layer| {
        let images = Images::new(4 << 20);
        let launch = images.launch(kind);
        let error = run(layer, &mut Keeper::new(&launch), &job(4 << 20, 4)).unwrap_err();
        let too_large =
            matches!(error, CopyError::NoRoom { .. } | CopyError::Disk(DiskError::Refused { .. }));
        assert!(too_large, "{error}");
        assert_eq!(layer.pool().used(), 0);
    });
    // Not even the queues.
    on(PlatformName::Cca, 4 * 4096, |layer| {
        let images = Images::new(4 << 20);
        let launch = images.launch(kind);
        let error = run(layer, &mut Keeper::new(&launch), &job(4 << 20, 4)).unwrap_err();
        assert!(matches!(error, CopyError::Disk(DiskError::Queue { .. })), "{error}");
        assert_eq!(layer.pool().used(), 0);
    });
}

fn dropped_in_flight(kind: Kind) {
    on(PlatformName::Pkvm, POOL, |layer| {
        let images = Images::new(1 << 20);
        let launch = images.launch(kind);
        let process = DeviceProcess::start(&launch).unwrap();
        for _ in 0..5 {
            with_disk(layer, &process, 0, |mut disk, adaptor| {
                let arena = layer.machine().arena();
                for sector in 0..8 {
                    let buffer = arena.take(65536).unwrap();
                    let taken = disk.submit(Request::read(sector * 128, buffer, 65536)).unwrap();
                    assert!(matches!(taken, Submitted::Taken));
                }
                // The ninth has to wait, and comes back.
                let buffer = arena.take(512).unwrap();
                let taken = disk.submit(Request::read(0, buffer, 512)).unwrap();
                assert!(matches!(taken, Submitted::NoRoom(Request { len: 512, .. })));
                disk.kick();
                assert_eq!(disk.in_flight(), 8);
                drop(disk);
                assert_eq!(layer.pool().used(), 0);
                assert_eq!(adaptor.device().counters().live(), 0);
                assert!(!adaptor.device().is_alive(), "its device of the layer goes with it");
            });
        }
        drop(layer.machine().arena().take(layer.machine().arena().len()).unwrap());
        copies(kind, layer, 1 << 20, 16);
    });
}

fn what_does_not_suit_is_said(kind: Kind) {
    on(PlatformName::Tdx, POOL, |layer| {
        let images = Images::new(1 << 20);
        let launch = images.launch(kind);
        let keeper = &mut Keeper::new(&launch);
        let job = job(1 << 20, 4);
        for bytes in [0, 100, 513] {
            let error = run(layer, keeper, &CopyJob { bytes, ..job }).unwrap_err();
            assert!(matches!(error, CopyError::Size(_)), "{error}");
        }
        let error = run(layer, keeper, &CopyJob { bytes: 512, ..job }).unwrap_err();
        assert!(matches!(error, CopyError::Capacity { disk: "input disk", .. }), "{error}");
        let error = run(layer, keeper, &CopyJob { input: 1, output: 0, ..job }).unwrap_err();
        assert!(matches!(error, CopyError::ReadOnly), "{error}");
        let error = run(layer, keeper, &CopyJob { output: 9, ..job }).unwrap_err();
        assert!(error.to_string().contains("no export 9"), "{error}");
        let shape = Shape { depth: 60, request: 1 << 20 };
        let error = run(layer, keeper, &CopyJob { shape, ..job }).unwrap_err();
        assert!(matches!(error, CopyError::Memory(_)), "{error}");
        assert_eq!((layer.pool().used(), keeper.restarts()), (0, 0));
        run(layer, keeper, &job).unwrap();
    });
}

fn an_io_error_is_an_io_error(kind: Kind) {
    on(PlatformName::Tdx, POOL, |layer| {
        let images = Images::new(1 << 20);
        let broken = |event| {
            let node = format!(
                r#"{{"driver":"blkdebug","node-name":"b","image":"n","inject-error":[{{"event":"none","iotype":"{event}","errno":5}}]}}"#
            );
            let null = "driver=null-co,node-name=n,size=1048576,read-zeroes=on".to_owned();
            let args = vec!["--blockdev".to_owned(), null, "--blockdev".to_owned(), node];
            Export { backing: Backing::Blockdev { args, node: "b".to_owned() }, writable: true }
        };
        for event in ["read", "write", "flush"] {
            let good = images.export(if event == "read" { "out" } else { "in" });
            let exports =
                if event == "read" { [broken(event), good] } else { [good, broken(event)] };
            let launch = launch(kind, exports.into());
            let mut keeper = Keeper::new(&launch);
            let error = run(layer, &mut keeper, &job(1 << 20, 4)).unwrap_err();
            assert_eq!(keeper.restarts(), 0, "{error}");
            let CopyError::Disk(DiskError::Io { op, status, .. }) = error else {
                panic!("{error}")
            };
            assert_eq!(status, Status::IoError);
            match op {
                Op::Read { .. } => assert_eq!(event, "read"),
                Op::Write { .. } => assert_eq!(event, "write"),
                Op::Flush => assert_eq!(event, "flush"),
                Op::Identify => panic!("nobody asks for that"),
            }
            assert_eq!(layer.pool().used(), 0);
        }
    });
}
