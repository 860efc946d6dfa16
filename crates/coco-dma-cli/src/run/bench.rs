//! `coco-dma run --bench`: what a bounce costs from end to end, on a device that stores nothing.

use std::io::IsTerminal;
use std::time::Duration;

use coco_dma_vhost::copy::PATIENCE;
use coco_dma_vhost::cost;
use coco_dma_vhost::cost::CostJob;
use coco_dma_vhost::device::Backing;
use coco_dma_vhost::device::Export;
use coco_dma_vhost::device::Keeper;
use coco_dma_vhost::device::Launch;
use coco_dma_vhost::machine::Layer;
use coco_dma_vhost::machine::Storage;
use indicatif::ProgressBar;
use indicatif::ProgressStyle;

use super::bench_report::Report;
use super::{choose, failed, guest, machine, report, usage};
use crate::args::RunArgs;
use crate::failure::Failure;
use crate::number::Size;
use crate::output;

/// Bytes of the disk, none of which is stored anywhere.
const DISK: u64 = 64 << 20;

/// Windows of each way at each of the 8 points, and how long each is: with its warm-up of a quarter
/// of that and with the last requests coming back, 10 s in all, or 1 s.
const WHOLE: (usize, Duration) = (25, Duration::from_millis(20));
const QUICK: (usize, Duration) = (7, Duration::from_millis(5));

pub(super) fn bench(args: &RunArgs) -> Result<(), Failure> {
    let regime = guest(args)?;
    if args.pool_size < cost::POOL {
        return Err(usage(format!(
            "--pool-size: a pool of {} is too small for 32 requests of 128 KiB; --bench needs {}",
            Size(args.pool_size),
            Size(cost::POOL.next_multiple_of(4096))
        )));
    }
    let machine = machine(args, regime, cost::ARENA)?;
    let machine = machine.with_regions(1, cost::REGION).map_err(|error| failed(&error))?;
    let kind = choose(args.device)?;
    let export = Export { backing: Backing::Null { size: DISK }, writable: true };
    let launch = Launch { kind, exports: vec![export], embedded_program: None };
    let storage = Storage::of(&machine);
    let metadata = storage.metadata(&machine).map_err(|error| failed(&error))?;
    let layer = Layer::new(&machine, &metadata);
    let mut keeper = Keeper::new(&launch);

    let (windows, window) = if args.quick { QUICK } else { WHOLE };
    let job = CostJob { export: 0, windows, window, patience: PATIENCE };
    let bar = if std::io::stderr().is_terminal() {
        let style = ProgressStyle::with_template("{bar:40} {eta} left");
        ProgressBar::new(100).with_style(style.unwrap_or(ProgressStyle::default_bar()))
    } else {
        ProgressBar::hidden()
    };
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "from 0 to 100 percent"
    )]
    let mut progress = |done: f64| bar.set_position((done * 100.0) as u64);
    let measured = cost::measure(&layer, &mut keeper, &job, &mut progress);
    bar.finish_and_clear();
    let measured = measured.map_err(|error| failed(&error))?;
    let (separation, restarts) = (keeper.separation(), keeper.restarts());
    keeper.stop().map_err(|error| failed(&error))?;

    let device = report::Device { kind, separation, restarts };
    let report = Report::new(args, &device, &layer, &job, measured);
    if args.json { output::json(&report) } else { output::lines(&report.table()) }
}
