//! `coco-dma run`: the main job. A whole image goes through the layer, from one disk of a real
//! device process to another; then the device is attacked.

mod bench;
mod bench_report;
mod image;
mod report;

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use coco_dma::regime::Parameters;
use coco_dma::regime::Regime;
use coco_dma_vhost::attack;
use coco_dma_vhost::attack::Attack;
use coco_dma_vhost::attack::Target;
use coco_dma_vhost::copy;
use coco_dma_vhost::copy::CopyJob;
use coco_dma_vhost::copy::CopyReport;
use coco_dma_vhost::copy::DEFAULT_REQUEST;
use coco_dma_vhost::copy::PATIENCE;
use coco_dma_vhost::copy::Shape;
use coco_dma_vhost::copy::ShapeError;
use coco_dma_vhost::device::Backing;
use coco_dma_vhost::device::EMBEDDED_ARG;
use coco_dma_vhost::device::Export;
use coco_dma_vhost::device::Keeper;
use coco_dma_vhost::device::Kind;
use coco_dma_vhost::device::Launch;
use coco_dma_vhost::device::embedded;
use coco_dma_vhost::device::find_qemu_storage_daemon;
use coco_dma_vhost::machine::Layer;
use coco_dma_vhost::machine::MachineError;
use coco_dma_vhost::machine::Storage;
use coco_dma_vhost::machine::UserMachine;
use coco_dma_vhost::memory::PrivateArena;
use image::Image;
use image::Sum;
use indicatif::ProgressBar;
use indicatif::ProgressStyle;

use crate::args::RunArgs;
use crate::failure::Failure;
use crate::number::Count;
use crate::number::Size;
use crate::output;
use crate::trace::Trace;
use crate::words::lookup;

/// Which device to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DeviceChoice {
    Auto,
    QemuStorageDaemon,
    Embedded,
}

/// The exports of the device process, in this order.
const INPUT: usize = 0;
const OUTPUT: usize = 1;
const SCRATCH: usize = 2;

/// Bytes of the disk that is attacked: its contents may be lost.
const SCRATCH_LEN: u64 = 1 << 20;

pub(crate) fn device(text: &str) -> Result<DeviceChoice, String> {
    let words = [
        ("auto", DeviceChoice::Auto),
        ("qemu-storage-daemon", DeviceChoice::QemuStorageDaemon),
        ("embedded", DeviceChoice::Embedded),
    ];
    lookup("device", text, &words)
}

/// Serves as the embedded device, where that is what this process was started for.
pub(crate) fn embedded_device() -> Option<ExitCode> {
    let mut args = std::env::args_os().skip(1);
    (args.next()? == EMBEDDED_ARG).then(|| embedded::main(args))
}

/// Runs the command.
pub(crate) fn run(args: &RunArgs) -> Result<(), Failure> {
    if args.bench {
        return bench::bench(args);
    }
    let (shape, machine) = plan(args)?;
    let kind = choose(args.device)?;
    let image = match &args.image {
        Some(path) => Image::open(path)?,
        None => Image::make()?,
    };
    let output = image::output(args.output.as_deref(), &image)?;
    let scratch = image::scratch(SCRATCH_LEN)?;
    let handle = |file: &std::fs::File| image::share(file);

    let launch = Launch {
        kind,
        exports: vec![
            Export { backing: Backing::Opened(image.share()?), writable: false },
            Export { backing: Backing::Opened(handle(&output)?), writable: true },
            Export { backing: Backing::Opened(handle(&scratch)?), writable: true },
        ],
        embedded_program: None,
    };
    let storage = Storage::of(&machine);
    let metadata = storage.metadata(&machine).map_err(|error| failed(&error))?;
    let files = [&image.share()?, &output];
    let trace = args.trace.as_deref().map(|path| Trace::begin(path, &files)).transpose()?;
    let layer = Layer::new(&machine, &metadata);
    let layer = match &trace {
        Some(trace) => layer.observed(trace),
        None => layer,
    };
    let mut keeper = Keeper::new(&launch);

    // The image is hashed from the file itself while it is copied.
    let sum = Sum::begin(image.share()?, image.len);
    let copied = transfer(&layer, &mut keeper, &image, shape)?;
    let sha256_in = sum.end(PATIENCE)?;
    let target = Target { export: SCRATCH, backing: Some(&scratch) };
    let attacks = attack::attack(&layer, &mut keeper, &target).map_err(|error| failed(&error))?;
    let (separation, restarts) = (keeper.separation(), keeper.restarts());
    keeper.stop().map_err(|error| failed(&error))?;
    if let Some(trace) = &trace {
        trace.end()?;
    }
    let sha256_out = Sum::begin(output, image.len).end(PATIENCE)?;

    let sums = report::Sums { input: sha256_in, output: sha256_out };
    let device = report::Device { kind, separation, restarts };
    let report = report::Report::new(args, &device, &layer, shape, &copied, attacks, sums);
    if args.json {
        output::json(&report)?;
    } else {
        output::lines(&report.table())?;
    }
    report.verdict()
}

/// What can be checked before anything is started: the machine, and how much is on its way at
/// once.
fn plan(args: &RunArgs) -> Result<(Shape, UserMachine), Failure> {
    let regime = guest(args)?;
    let depth = usize::try_from(args.queue_depth).unwrap_or(usize::MAX);
    if depth == 0 {
        return Err(usage("--queue-depth: at least one request has to be in flight".to_owned()));
    }
    let shape =
        Shape::fit(args.pool_size, depth, DEFAULT_REQUEST).map_err(|error| match error {
            ShapeError::PoolTooSmall { needed, .. } => usage(format!(
                "--pool-size: a pool of {} is too small for one request; it needs {}",
                Size(args.pool_size),
                Size(needed.next_multiple_of(4096))
            )),
            other => usage(other.to_string()),
        })?;
    if shape.depth < depth {
        let held = Count(shape.depth as u64, "request");
        output::note(&format!("{held} in flight, which is what the pool holds"));
    }
    Ok((shape, machine(args, regime, shape.arena())?))
}

/// The rules of the platform that is asked for, and whether the pool is whole pages.
fn guest(args: &RunArgs) -> Result<Regime, Failure> {
    let regime =
        args.platform.regime(&Parameters::default()).map_err(|wrong| usage(wrong.to_string()))?;
    if !regime.is_guest() {
        return Err(usage(format!(
            "--platform: nothing is private on '{}'; run needs a guest, as tdx or cca",
            args.platform
        )));
    }
    if !args.pool_size.is_multiple_of(4096) {
        return Err(usage(format!(
            "--pool-size: {} bytes are no whole pages of 4096",
            args.pool_size
        )));
    }
    Ok(regime)
}

/// The machine, with so many bytes of private memory.
fn machine(args: &RunArgs, regime: Regime, arena: usize) -> Result<UserMachine, Failure> {
    let arena = PrivateArena::new(arena).map_err(|error| failed(&error))?;
    let pool_size = usize::try_from(args.pool_size)
        .map_err(|_| usage("--pool-size: more than this machine can address".to_owned()))?;
    UserMachine::new(regime, arena, pool_size).map_err(|error| match error {
        MachineError::TooLarge { .. } => usage(format!("--pool-size: {error}")),
        MachineError::Memory(why) => usage(format!("--pool-size: {why}")),
        other => failed(&other),
    })
}

fn usage(text: String) -> Failure {
    Failure::Usage(format!("{text}; see --help"))
}

/// The device to use.
fn choose(choice: DeviceChoice) -> Result<Kind, Failure> {
    let found = find_qemu_storage_daemon().is_some();
    match choice {
        DeviceChoice::Embedded => Ok(Kind::Embedded),
        DeviceChoice::Auto if !found => {
            output::note("qemu-storage-daemon is not in PATH; the embedded device serves");
            Ok(Kind::Embedded)
        }
        DeviceChoice::QemuStorageDaemon if !found => Err(Failure::Missing(
            "qemu-storage-daemon is not in PATH; on Debian install qemu-utils and \
             qemu-system-common, or use --device embedded"
                .to_owned(),
        )),
        DeviceChoice::Auto | DeviceChoice::QemuStorageDaemon => Ok(Kind::QemuStorageDaemon),
    }
}

/// Copies the image, with a bar for people.
fn transfer(
    layer: &Layer<'_>,
    keeper: &mut Keeper<'_>,
    image: &Image,
    shape: Shape,
) -> Result<CopyReport, Failure> {
    let bar = if std::io::stderr().is_terminal() {
        let style = ProgressStyle::with_template(
            "{bar:40} {binary_bytes} of {binary_total_bytes}, {binary_bytes_per_sec}, {eta} left",
        );
        ProgressBar::new(image.len).with_style(style.unwrap_or(ProgressStyle::default_bar()))
    } else {
        ProgressBar::hidden()
    };
    bar.enable_steady_tick(Duration::from_millis(200));
    let job = CopyJob { input: INPUT, output: OUTPUT, bytes: image.len, shape, patience: PATIENCE };
    let copied =
        copy::copy(layer, keeper, &job, &mut |progress| bar.set_position(progress.written));
    bar.finish_and_clear();
    copied.map_err(|error| failed(&error))
}

/// What went wrong on the way, as one sentence.
fn failed(error: &dyn core::error::Error) -> Failure {
    Failure::NotHeld(error.to_string().lines().collect::<Vec<_>>().join(" "))
}

/// An attack that the device did not withstand.
fn is_breach(attack: &Attack) -> bool {
    !attack.refused || !attack.intact
}
