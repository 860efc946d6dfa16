//! The arguments of every command.

use std::path::PathBuf;

use clap::ArgAction;
use clap::Args;
use clap::Parser;
use clap::Subcommand;
use coco_dma::regime::PlatformName;

use crate::explain::words;
use crate::number;

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
    /// Say for each case what another system does where it differs: linux-7.3
    #[arg(long, value_name = "SYSTEM", value_parser = crate::check::system)]
    pub(crate) compare: Option<crate::check::System>,
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

/// The options of `explain` that a case file says all by itself.
const BESIDE_A_CASE: [&str; 28] = [
    "platform",
    "trust",
    "mask",
    "bus_limit",
    "bus_range",
    "boundary",
    "min_align_mask",
    "phys",
    "size",
    "memory",
    "attrs",
    "direction",
    "pools",
    "force_bounce",
    "external_facing",
    "iommu",
    "c_bit",
    "ipa_bits",
    "gpaw",
    "vtom",
    "granule",
    "coherent",
    "context",
    "operation",
    "kind",
    "node",
    "offset",
    "length",
];

#[derive(Args, Debug)]
#[command(after_help = "Example:\n  \
    coco-dma explain --platform cca --ipa-bits 40 --mask 64 --phys 0x80000000 --size 4096 \\\n    \
    --memory private --pool guest-shared@0x90000000")]
pub(crate) struct ExplainArgs {
    /// The platform: open, sme, sev, snp, snp-vtom, tdx, cca, pkvm, hyperv, s390 or pef
    /// [default: tdx]
    #[arg(long, value_name = "P", value_parser = words::platform)]
    pub(crate) platform: Option<PlatformName>,
    /// untrusted (T=0) or accepted (T=1) [default: untrusted]
    #[arg(long, value_name = "TRUST", value_parser = words::trust)]
    pub(crate) trust: Option<coco_dma::state::Trust>,
    /// Bits of the device's DMA mask, 1 to 64 [default: 64]
    #[arg(long, value_name = "BITS", value_parser = words::mask)]
    pub(crate) mask: Option<u32>,
    /// The last address that the bus reaches [default: none]
    #[arg(long, value_name = "ADDR", value_parser = number::size)]
    pub(crate) bus_limit: Option<u64>,
    /// A window of the bus: memory at CPU shows at BUS (repeatable) [default: identity]
    #[arg(long, value_name = "CPU:BUS:SIZE", value_parser = words::bus_range)]
    pub(crate) bus_range: Vec<coco_dma::addr::BusRange>,
    /// A power of two that no segment may cross [default: none]
    #[arg(long, value_name = "SIZE", value_parser = words::boundary)]
    pub(crate) boundary: Option<coco_dma::addr::Boundary>,
    /// Low address bits that a bounce has to keep, as 0xfff [default: 0]
    #[arg(long, value_name = "MASK", value_parser = words::align_mask)]
    pub(crate) min_align_mask: Option<coco_dma::addr::AlignMask>,
    /// Where the buffer lies in memory
    #[arg(long, value_name = "ADDR", value_parser = number::size, required_unless_present = "case")]
    pub(crate) phys: Option<u64>,
    /// How long it is
    #[arg(long, value_name = "N", value_parser = number::size, required_unless_present = "case")]
    pub(crate) size: Option<u64>,
    /// Its state: private, shared, untracked, mixed or mmio; on sme encrypted, plain or mmio;
    /// peer for another device's memory [default: private, on sme encrypted]
    #[arg(long, value_name = "STATE", value_parser = words::memory)]
    pub(crate) memory: Option<words::MemoryWord>,
    /// An attribute, as cc-shared, mmio, require-coherent (repeatable)
    #[arg(long = "attr", value_name = "NAME", value_parser = words::attribute)]
    pub(crate) attrs: Vec<coco_dma::attrs::Attrs>,
    /// Which way the bytes go: to, from or both [default: both]
    #[arg(long, value_name = "WAY", value_parser = words::direction)]
    pub(crate) direction: Option<coco_dma::state::Direction>,
    /// A pool, as guest-shared@0x90000000+64MiB; restricted:guest-shared@0x90000000 is the only
    /// memory of the device, coherent:guest-shared@0x90000000 the reservoir of coherent memory, reserve: what is
    /// kept for atomic context, streaming: for maps (repeatable) [default: none]
    #[arg(long = "pool", value_name = "POOL", value_parser = words::pool)]
    pub(crate) pools: Vec<words::NamedPool>,
    /// Bounce every map of this device
    #[arg(long, action = ArgAction::SetTrue)]
    pub(crate) force_bounce: bool,
    /// A PCI device that the machine's owner does not trust
    #[arg(long, action = ArgAction::SetTrue)]
    pub(crate) external_facing: bool,
    /// none, passthrough or translated [default: none, on sme passthrough]
    #[arg(long, value_name = "KIND", value_parser = words::iommu)]
    pub(crate) iommu: Option<coco_dma::state::Attachment>,
    /// The C-bit's number (sme, sev, snp) [default: 51, on sme 47]
    #[arg(long, value_name = "N", value_parser = number::small)]
    pub(crate) c_bit: Option<u32>,
    /// Bits of the IPA space (cca) [default: 48]
    #[arg(long, value_name = "N", value_parser = number::small)]
    pub(crate) ipa_bits: Option<u32>,
    /// Guest physical address width (tdx), 48 or 52 [default: 52]
    #[arg(long, value_name = "N", value_parser = number::small)]
    pub(crate) gpaw: Option<u32>,
    /// The virtual top of memory (snp-vtom, hyperv) [default: 1 << 40]
    #[arg(long, value_name = "ADDR", value_parser = number::size)]
    pub(crate) vtom: Option<u64>,
    /// The conversion granule [default: 4KiB]
    #[arg(long, value_name = "SIZE", value_parser = number::size)]
    pub(crate) granule: Option<u64>,
    /// Whether the device sees the CPU's caches: yes or no [default: yes]
    #[arg(long, value_name = "ANSWER", value_parser = words::yes_no)]
    pub(crate) coherent: Option<bool>,
    /// blocking or atomic [default: blocking]
    #[arg(long, value_name = "CONTEXT", value_parser = words::context)]
    pub(crate) context: Option<coco_dma::state::Context>,
    /// The operation: map, unmap, sync, alloc, free, mmap or attach [default: map]
    #[arg(long, value_name = "OP", value_parser = words::operation)]
    pub(crate) operation: Option<words::Operation>,
    /// What is allocated: coherent, pages or non-contiguous [default: coherent]
    #[arg(long, value_name = "KIND", value_parser = words::kind)]
    pub(crate) kind: Option<coco_dma::plan::AllocKind>,
    /// The NUMA node of the device; of a pool: LABEL@ADDR,node=N [default: unknown]
    #[arg(long, value_name = "N", value_parser = words::node_number)]
    pub(crate) node: Option<u16>,
    /// With mmap: where in the allocation the mapping begins [default: 0]
    #[arg(long, value_name = "SIZE", value_parser = number::size)]
    pub(crate) offset: Option<u64>,
    /// With mmap: how long the mapping is [default: the rest]
    #[arg(long, value_name = "SIZE", value_parser = number::size)]
    pub(crate) length: Option<u64>,
    /// Tell the story of a case file instead: each step, with every rule that it applied
    #[arg(long, value_name = "FILE", conflicts_with_all = BESIDE_A_CASE)]
    pub(crate) case: Option<PathBuf>,
    /// Print one JSON document
    #[arg(long)]
    pub(crate) json: bool,
}
