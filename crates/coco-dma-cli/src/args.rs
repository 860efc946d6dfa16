//! The arguments of every command.

use std::path::PathBuf;

use clap::Args;
use clap::Parser;
use clap::Subcommand;
use coco_dma::regime::PlatformName;

use crate::explain::ExplainArgs;
use crate::number;
use crate::words;

/// The commands by name.
pub(crate) const COMMANDS: [&str; 5] = ["run", "explain", "platforms", "check", "bench"];

/// DMA mapping for confidential guests: run it on a real device, explain a decision.
#[derive(Debug, Parser)]
#[command(name = "coco-dma", version, after_help = "Example:\n  coco-dma run --platform cca")]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Copy a disk image through a real virtio-blk device in another process that is given
    /// nothing but the shared pool, then attack from that device and see it refused
    Run(RunArgs),
    /// Say what one mapping comes to, with every step and its reason
    Explain(Box<ExplainArgs>),
    /// List the platforms: address forms, conversion, failures
    Platforms(PlatformsArgs),
    /// Run case files: what should happen, on simulated machines, and whether it does
    Check(CheckArgs),
    /// Measure maps beside the memcpy floor and beside a reference slot allocator
    Bench(BenchArgs),
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    coco-dma bench --quick\n  \
    coco-dma bench --size 64,4KiB --depth 1,32 --json\n  \
    coco-dma bench --svg bench.svg")]
pub(crate) struct BenchArgs {
    /// The regimes that matter most, in under a minute
    #[arg(long)]
    pub(crate) quick: bool,
    /// Only with so many threads: 1 or 2 (repeatable, or a list with commas)
    #[arg(long, value_name = "N", value_delimiter = ',', value_parser = crate::bench::threads)]
    pub(crate) threads: Vec<usize>,
    /// Only mappings of this size (repeatable, or a list with commas)
    #[arg(long, value_name = "SIZE", value_delimiter = ',', value_parser = crate::bench::size)]
    pub(crate) size: Vec<usize>,
    /// Only with so many mappings at once (repeatable, or a list with commas)
    #[arg(long, value_name = "N", value_delimiter = ',', value_parser = crate::bench::depth)]
    pub(crate) depth: Vec<usize>,
    /// Only in pools so full, in percent (repeatable, or a list with commas)
    #[arg(
        long,
        value_name = "PERCENT",
        value_delimiter = ',',
        value_parser = crate::bench::occupancy
    )]
    pub(crate) occupancy: Vec<usize>,
    /// Windows of each implementation at each point
    #[arg(long, value_name = "N", value_parser = crate::bench::windows, hide = true)]
    pub(crate) windows: Option<usize>,
    /// Length of a window in microseconds
    #[arg(
        long,
        value_name = "MICROS",
        default_value = "400",
        value_parser = crate::bench::window,
        hide = true
    )]
    pub(crate) window: u64,
    /// Draw a plot into this file
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,
    /// Print one JSON document
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    coco-dma check\n  \
    coco-dma check cases/map --filter tdx --json\n  \
    coco-dma check --path slow\n  \
    coco-dma check --filter tdx --trace trace.txt\n  \
    coco-dma check --compare linux-7.3")]
pub(crate) struct CheckArgs {
    /// Case files, and folders of them (default: the folder cases/ of the repository; the cases
    /// that are built in, where there is none)
    #[arg(value_name = "PATH")]
    pub(crate) paths: Vec<PathBuf>,
    /// Only cases whose name holds this text, or whose reference id it is
    #[arg(long, value_name = "TEXT")]
    pub(crate) filter: Option<String>,
    /// Cases at a time [default: as many as there are processors]
    #[arg(long, value_name = "N", value_parser = number::small)]
    pub(crate) jobs: Option<u32>,
    /// The ways through the layer that maps take: fast (the fast-path table, with slots that the CPU
    /// keeps), bitmap (the same with slots of the bitmap), slow (without the table: every map is
    /// planned), handle (by a handle that has the CPU's slots for itself), or all of them, which
    /// have to come to the same
    #[arg(
        long,
        value_name = "PATH",
        default_value = "all",
        value_parser = crate::check::path
    )]
    pub(crate) path: crate::check::Ways,
    /// Say for each case what another system does where it differs: linux-7.3
    #[arg(long, value_name = "SYSTEM", value_parser = crate::check::system)]
    pub(crate) compare: Option<crate::check::System>,
    /// Write what Linux's trace points of the `dma` and `swiotlb` systems would say into this file,
    /// as tracefs prints them
    #[arg(long, value_name = "FILE")]
    pub(crate) trace: Option<PathBuf>,
    /// Believe nothing that the layer says of itself: judge by what devices, host and drivers saw
    /// and what memory really is
    #[arg(long)]
    pub(crate) seen: bool,
    /// Print one JSON document
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    coco-dma run\n  \
    coco-dma run --image disk.img --output copy.img --platform snp --device embedded --json\n  \
    coco-dma run --trace trace.txt\n  \
    coco-dma run --bench --device qemu-storage-daemon")]
pub(crate) struct RunArgs {
    /// The disk image to read (default: one of 64 MiB is made)
    #[arg(long, value_name = "FILE")]
    pub(crate) image: Option<PathBuf>,
    /// Where to write what came through (default: a temporary file)
    #[arg(long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// The device: auto, qemu-storage-daemon or embedded
    #[arg(long, value_name = "DEVICE", default_value = "auto", value_parser = crate::run::device)]
    pub(crate) device: crate::run::DeviceChoice,
    /// The platform of the guest: sev, snp, snp-vtom, tdx, cca, pkvm, hyperv, s390 or pef
    #[arg(long, value_name = "P", default_value = "tdx", value_parser = words::platform)]
    pub(crate) platform: PlatformName,
    /// Size of the shared pool
    #[arg(long, value_name = "SIZE", default_value = "64MiB", value_parser = number::size)]
    pub(crate) pool_size: u64,
    /// Requests in flight at most; lowered to what the pool holds
    #[arg(long, value_name = "N", default_value = "32", value_parser = number::small)]
    pub(crate) queue_depth: u32,
    /// Write what Linux's trace points of the `dma` and `swiotlb` systems would say into this file,
    /// as tracefs prints them
    #[arg(long, value_name = "FILE", conflicts_with = "bench")]
    pub(crate) trace: Option<PathBuf>,
    /// Measure instead what a bounce costs from end to end: requests of 4 KiB and 128 KiB, 1 and 32
    /// in flight, to a device that stores nothing, bounced against direct (about 10 s)
    #[arg(long, conflicts_with_all = ["image", "output", "queue_depth"])]
    pub(crate) bench: bool,
    /// With --bench: fewer and shorter windows (about 1 s), for a rough look
    #[arg(long, requires = "bench")]
    pub(crate) quick: bool,
    /// Print one JSON document
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
#[command(after_help = "Example:\n  coco-dma platforms --json")]
pub(crate) struct PlatformsArgs {
    /// Print one JSON document
    #[arg(long)]
    pub(crate) json: bool,
}
