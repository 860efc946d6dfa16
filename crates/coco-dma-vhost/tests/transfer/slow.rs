//! Disks that are slow, or fail once: in the words of qemu-storage-daemon.

use std::time::{Duration, Instant};

use coco_dma::regime::PlatformName;
use coco_dma_vhost::device::{Backing, DeviceProcess, Export, Keeper, Kind};
use coco_dma_vhost::disk::{Request, Status, Submitted};

use crate::bench::{Images, POOL, job, launch, next, on, run, submit, with_disk};

fn blockdev(args: &[&str], node: &str) -> Export {
    let args = args.iter().map(|arg| (*arg).to_owned()).collect();
    Export { backing: Backing::Blockdev { args, node: node.to_owned() }, writable: true }
}

pub(crate) fn a_slow_disk_and_a_small_pool_push_back(kind: Kind) {
    // Room for the queues and three requests.
    let pool = (12 + 3 * 34) * 2048;
    on(PlatformName::Snp, pool, |layer| {
        let images = Images::new(2 << 20);
        let file = format!("driver=file,node-name=f,filename={}", images.path("in").display());
        let slow = blockdev(
            &[
                "--object",
                "throttle-group,id=tg,x-iops-total=100",
                "--blockdev",
                &file,
                "--blockdev",
                "driver=throttle,node-name=t,throttle-group=tg,file=f",
            ],
            "t",
        );
        let launch = launch(kind, vec![slow, images.export("out")]);
        let mut keeper = Keeper::new(&launch);
        let begun = Instant::now();
        let report = run(layer, &mut keeper, &job(2 << 20, 16)).unwrap();
        // 32 reads, 100 a second.
        assert!(begun.elapsed() > Duration::from_millis(150), "not slow: {:?}", begun.elapsed());
        assert!(images.output() == images.bytes);
        assert!(report.waits_for_room > 0);
        assert_eq!(report.input.adaptor.failed_shares + report.output.adaptor.failed_shares, 0);
        assert_eq!((report.refused(), keeper.restarts()), (0, 0));
        assert!(layer.pool().high_water() > 12 + 2 * 34);
        keeper.stop().unwrap();
        // The layer says that it is full before anything is submitted, and has room again when
        // the disk has done something.
        let process = DeviceProcess::start(&launch).unwrap();
        with_disk(layer, &process, 0, |mut disk, adaptor| {
            while matches!(submit(layer, &mut disk, 65536), Submitted::Taken) {}
            assert_eq!(disk.in_flight(), 3);
            assert_eq!(next(&mut disk).status, Status::Ok);
            assert!(matches!(submit(layer, &mut disk, 65536), Submitted::Taken));
            assert_eq!(adaptor.counters().failed_shares, 0);
        });
        assert_eq!(layer.pool().used(), 0);
    });
}

pub(crate) fn a_failed_read_frees_its_slots(kind: Kind) {
    on(PlatformName::Tdx, POOL, |layer| {
        let null = "driver=null-co,node-name=n,size=1048576,read-zeroes=on";
        let once = r#"{"driver":"blkdebug","node-name":"b","image":"n","inject-error":[{"event":"none","iotype":"read","errno":5,"once":true}]}"#;
        let broken = blockdev(&["--blockdev", null, "--blockdev", once], "b");
        let process = DeviceProcess::start(&launch(kind, vec![broken])).unwrap();
        with_disk(layer, &process, 0, |mut disk, adaptor| {
            let queue = layer.pool().used();
            let mut buffer = layer.machine().arena().take(65536).unwrap();
            buffer.bytes_mut().fill(0xAA);
            for status in [Status::IoError, Status::Ok] {
                let taken = disk.submit(Request::read(0, buffer, 65536)).unwrap();
                assert!(matches!(taken, Submitted::Taken));
                assert_eq!(layer.pool().used(), queue + 34);
                let done = next(&mut disk);
                assert_eq!(done.status, status);
                assert_eq!(layer.pool().used(), queue);
                buffer = done.request.data.unwrap().private().unwrap();
            }
            assert!(buffer.bytes().iter().all(|byte| *byte == 0));
            assert_eq!(adaptor.device().counters().live(), 0);
        });
    });
}
