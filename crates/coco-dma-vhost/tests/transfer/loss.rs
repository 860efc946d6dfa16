//! Devices that are lost on the way.

use std::time::{Duration, Instant};

use coco_dma::regime::PlatformName;
use coco_dma_vhost::copy::{CopyError, CopyJob, CopyReport, Progress, copy};
use coco_dma_vhost::device::{DeviceError, DeviceProcess, Keeper, Kind};
use coco_dma_vhost::machine::Layer;
use rustix::process::{Pid, Signal};

use crate::bench::{Images, POOL, SOON, job, on, run};
use crate::tests::copies;

pub(crate) fn signal(process: &DeviceProcess, signal: Signal) {
    let pid = Pid::from_raw(process.pid().try_into().unwrap()).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}

/// Kills a process that may be no more.
pub(crate) fn kill(pid: u32) {
    let pid = Pid::from_raw(pid.try_into().unwrap()).unwrap();
    let _ = rustix::process::kill_process(pid, Signal::KILL);
}

pub(crate) fn kill_children() {
    children().into_iter().for_each(kill);
}

/// The device processes of this program.
fn children() -> Vec<u32> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    let lists = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    lists
        .flat_map(|list| {
            list.split_whitespace().map(|pid| pid.parse().unwrap()).collect::<Vec<_>>()
        })
        .collect()
}

/// Copies, with a signal to the present device each time that one of `parts` tenths is written.
fn copy_with_signals(
    layer: &Layer<'_>,
    keeper: &mut Keeper<'_>,
    job: &CopyJob,
    parts: &[u64],
    sent: Signal,
) -> CopyReport {
    let (mut parts, mut last) = (parts.to_vec(), 0);
    let report = copy(layer, keeper, job, &mut |Progress { written, bytes }| {
        assert!(written > last, "progress goes on where it was");
        last = written;
        if parts.first().is_some_and(|part| written * 10 >= bytes * part) {
            parts.remove(0);
            for pid in children() {
                let pid = Pid::from_raw(pid.try_into().unwrap()).unwrap();
                rustix::process::kill_process(pid, sent).unwrap();
            }
        }
    });
    assert_eq!((last, parts), (job.bytes, vec![]));
    report.unwrap()
}

fn is_whole(layer: &Layer<'_>, images: &Images, report: &CopyReport) {
    assert!(images.output() == images.bytes, "the output is another");
    assert_eq!(report.input.maps.live() + report.output.maps.live(), 0);
    assert_eq!(report.input.adaptor, Default::default());
    assert_eq!(report.output.adaptor, Default::default());
    assert_eq!(report.refused(), 0);
    assert_eq!(report.slots_used, 12, "a lost device holds no slot");
    assert_eq!(layer.pool().used(), 0);
    assert!(!report.device_mappings.is_empty());
    drop(layer.machine().arena().take(layer.machine().arena().len()).unwrap());
}

pub(crate) fn a_killed_device_is_replaced(kind: Kind) {
    on(PlatformName::Snp, POOL, |layer| {
        // Again and again; and after the last write: while flushing, or with nothing left to do.
        for parts in [&[0, 3, 7][..], &[0], &[10]] {
            let images = Images::new(8 << 20);
            let launch = images.launch(kind);
            let mut keeper = Keeper::new(&launch);
            let job = job(8 << 20, 16);
            let report = copy_with_signals(layer, &mut keeper, &job, parts, Signal::KILL);
            is_whole(layer, &images, &report);
            assert_eq!(keeper.restarts() as usize, parts.len());
            if *parts == [10] {
                // Everything once, but for the flush.
                assert_eq!(report.requests, 2 * 128 + 2);
            }
        }
        // Before anything.
        let images = Images::new(1 << 20);
        let launch = images.launch(kind);
        let mut keeper = Keeper::new(&launch);
        signal(keeper.process().unwrap(), Signal::KILL);
        let report = run(layer, &mut keeper, &job(1 << 20, 16)).unwrap();
        is_whole(layer, &images, &report);
        assert_eq!(keeper.restarts(), 1);
        // And the next one works.
        copies(kind, layer, 1 << 20, 16);
    });
}

pub(crate) fn a_stopped_device_is_replaced(kind: Kind) {
    on(PlatformName::Snp, POOL, |layer| {
        let images = Images::new(8 << 20);
        let launch = images.launch(kind);
        let mut keeper = Keeper::new(&launch);
        let mut job = job(8 << 20, 16);
        job.patience = Duration::from_secs(3);
        let begun = Instant::now();
        let report = copy_with_signals(layer, &mut keeper, &job, &[3], Signal::STOP);
        assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
        is_whole(layer, &images, &report);
        assert_eq!(keeper.restarts(), 1);
        // Before anything: it has 10 seconds to answer a connection.
        let images = Images::new(1 << 20);
        let launch = images.launch(kind);
        let mut keeper = Keeper::new(&launch);
        signal(keeper.process().unwrap(), Signal::STOP);
        let begun = Instant::now();
        let report = run(layer, &mut keeper, &job_of(1 << 20)).unwrap();
        assert!(begun.elapsed() < Duration::from_secs(12) + SOON, "{:?}", begun.elapsed());
        is_whole(layer, &images, &report);
    });
}

fn job_of(bytes: usize) -> CopyJob {
    job(bytes, 16)
}

/// Stopped when its first queue is set up, as far as that can be met: nobody can ask it to let go
/// of the queue's memory, and only its death frees it.
pub(crate) fn a_device_that_stops_while_it_connects(kind: Kind) {
    on(PlatformName::Snp, POOL, |layer| {
        let images = Images::new(1 << 20);
        let launch = images.launch(kind);
        let mut keeper = Keeper::new(&launch);
        let pid = keeper.process().unwrap().pid();
        let mut job = job_of(1 << 20);
        job.patience = Duration::from_secs(3);
        let report = std::thread::scope(|scope| {
            scope.spawn(|| {
                while layer.pool().used() == 0 {
                    std::hint::spin_loop();
                }
                let pid = Pid::from_raw(pid.try_into().unwrap()).unwrap();
                rustix::process::kill_process(pid, Signal::STOP).unwrap();
            });
            run(layer, &mut keeper, &job).unwrap()
        });
        is_whole(layer, &images, &report);
        assert_eq!(keeper.restarts(), 1);
    });
}

pub(crate) fn a_device_that_always_dies_ends_it_soon(kind: Kind) {
    on(PlatformName::Snp, POOL, |layer| {
        let images = Images::new(8 << 20);
        let launch = images.launch(kind);
        let mut keeper = Keeper::new(&launch);
        let over = std::sync::atomic::AtomicBool::new(false);
        let begun = Instant::now();
        let error = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(std::sync::atomic::Ordering::Relaxed) {
                    kill_children();
                    std::thread::yield_now();
                }
            });
            let error = run(layer, &mut keeper, &job(8 << 20, 16)).unwrap_err();
            over.store(true, std::sync::atomic::Ordering::Relaxed);
            error
        });
        assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
        let fruitless =
            matches!(error, CopyError::Device(DeviceError::Fruitless { starts: 3, .. }));
        assert!(fruitless, "{error}");
        assert!(error.to_string().contains("killed by signal 9"), "{error}");
        assert_eq!(children(), Vec::<u32>::new());
        assert_eq!(layer.pool().used(), 0);
        copies(kind, layer, 1 << 20, 16);
    });
}
