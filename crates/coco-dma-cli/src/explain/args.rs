//! The arguments of `explain`.

use std::path::PathBuf;

use clap::ArgAction;
use clap::Args;

use super::matrix;
use super::matrix::Form;
use crate::words::lookup;

/// The options of `explain` that a case file says all by itself.
const BESIDE_A_CASE: [&str; 35] = [
    "platform",
    "trust",
    "mask",
    "bus_limit",
    "bus_range",
    "boundary",
    "segment",
    "min_align_mask",
    "cache_line",
    "phys",
    "size",
    "memory",
    "attrs",
    "direction",
    "pools",
    "force_bounce",
    "external_facing",
    "iommu",
    "iommu_page",
    "c_bit",
    "ipa_bits",
    "gpaw",
    "vtom",
    "granule",
    "coherent",
    "context",
    "operation",
    "kind",
    "align",
    "len_align",
    "pages",
    "revoked",
    "node",
    "offset",
    "length",
];

#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    coco-dma explain --platform cca --ipa-bits 40 --mask 64 --phys 0x80000000 --size 4096 \\\n    \
    --memory private --pool guest-shared@0x90000000\n  \
    coco-dma explain --matrix --operation mmap --size 4096\n  \
    coco-dma explain --emit-case --platform snp --trust accepted --phys 0x80000000 --size 4096 > my.toml\n  \
    coco-dma explain --case my.toml")]
pub(crate) struct ExplainArgs {
    /// The platform: open, sme, sev, snp, snp-vtom, tdx, cca, pkvm, hyperv, s390 or pef
    /// [default: tdx]
    #[arg(long, value_name = "P")]
    pub(crate) platform: Option<String>,
    /// untrusted (T=0) or accepted (T=1) [default: untrusted]
    #[arg(long, value_name = "TRUST")]
    pub(crate) trust: Option<String>,
    /// Bits of the device's DMA mask, 1 to 64 [default: 64]
    #[arg(long, value_name = "BITS")]
    pub(crate) mask: Option<String>,
    /// The last address that the bus reaches [default: none]
    #[arg(long, value_name = "ADDR")]
    pub(crate) bus_limit: Option<String>,
    /// A window of the bus: memory at CPU shows at BUS (repeatable) [default: identity]
    #[arg(long, value_name = "CPU:BUS:SIZE")]
    pub(crate) bus_range: Vec<String>,
    /// A power of two that no segment may cross [default: none]
    #[arg(long, value_name = "SIZE")]
    pub(crate) boundary: Option<String>,
    /// The longest segment that the device takes, in bytes [default: none]
    #[arg(long, value_name = "SIZE")]
    pub(crate) segment: Option<String>,
    /// Low address bits that a bounce has to keep, as 0xfff [default: 0]
    #[arg(long, value_name = "MASK")]
    pub(crate) min_align_mask: Option<String>,
    /// The cache line, for devices that do not see the caches [default: 64]
    #[arg(long, value_name = "SIZE")]
    pub(crate) cache_line: Option<String>,
    /// Where the memory lies. Not needed for memory that is unlocated, nor for allocations: there
    /// it is where pages are given, and without it the address is known of pools alone
    #[arg(long, value_name = "ADDR")]
    pub(crate) phys: Option<String>,
    /// How long it is, in bytes
    #[arg(long, value_name = "N")]
    pub(crate) size: Option<String>,
    /// Its state: private, shared, untracked or mixed, on sme encrypted or plain; mmio for a
    /// device's registers, peer for another device's memory; unaccepted, quarantined or converting;
    /// unlocated if it is in no single run of memory. With mmap: memory that is no allocation
    /// [default: private, on sme encrypted; with mmap an allocation, in the state that it has]
    #[arg(long, value_name = "STATE")]
    pub(crate) memory: Option<String>,
    /// An attribute, as cc-shared, mmio, require-coherent (repeatable)
    #[arg(long = "attr", value_name = "NAME")]
    pub(crate) attrs: Vec<String>,
    /// Which way the bytes go: to, from or both [default: both]
    #[arg(long, value_name = "WAY")]
    pub(crate) direction: Option<String>,
    /// A pool of the device, as guest-shared@0x90000000+64MiB. Before the label, each with a colon:
    /// machine, if it is everybody's; restricted, if the device has no other memory; coherent, if it
    /// is the reservoir of coherent memory; reserve, if it is kept for atomic context; streaming, if
    /// it is for maps alone (repeatable) [default: none]
    #[arg(long = "pool", value_name = "POOL")]
    pub(crate) pools: Vec<String>,
    /// Bounce every map of this device
    #[arg(long, action = ArgAction::SetTrue)]
    pub(crate) force_bounce: bool,
    /// A PCI device that the machine's owner does not trust
    #[arg(long, action = ArgAction::SetTrue)]
    pub(crate) external_facing: bool,
    /// none, passthrough or translated [default: none, on sme passthrough]
    #[arg(long, value_name = "KIND")]
    pub(crate) iommu: Option<String>,
    /// The smallest page of the IOMMU's domain, with --iommu translated [default: 4KiB]
    #[arg(long, value_name = "SIZE")]
    pub(crate) iommu_page: Option<String>,
    /// The C-bit's number (sme, sev, snp) [default: 51, on sme 47]
    #[arg(long, value_name = "N")]
    pub(crate) c_bit: Option<String>,
    /// Bits of the IPA space (cca) [default: 48]
    #[arg(long, value_name = "N")]
    pub(crate) ipa_bits: Option<String>,
    /// Guest physical address width (tdx), 48 or 52 [default: 52]
    #[arg(long, value_name = "N")]
    pub(crate) gpaw: Option<String>,
    /// The virtual top of memory (snp-vtom, hyperv) [default: 1 << 40]
    #[arg(long, value_name = "ADDR")]
    pub(crate) vtom: Option<String>,
    /// The conversion granule [default: 4KiB]
    #[arg(long, value_name = "SIZE")]
    pub(crate) granule: Option<String>,
    /// Whether the device sees the CPU's caches: yes or no [default: yes]
    #[arg(long, value_name = "ANSWER", value_parser = yes_no)]
    pub(crate) coherent: Option<bool>,
    /// blocking or atomic [default: blocking]
    #[arg(long, value_name = "CONTEXT")]
    pub(crate) context: Option<String>,
    /// The operation: map, unmap, sync, alloc, free, mmap (what the CPU maps; memory that cannot be
    /// mapped is refused) or attach (in place or not at all: the refusal says what is out of reach, or
    /// 'alignment') [default: map]
    #[arg(long, value_name = "OP")]
    pub(crate) operation: Option<String>,
    /// What is allocated: coherent, pages or non-contiguous [default: coherent]
    #[arg(long, value_name = "KIND")]
    pub(crate) kind: Option<String>,
    /// The alignment of what is allocated, beside its own; with a map, of the addresses that the device
    /// takes: a buffer that begins elsewhere bounces (alignment) [default: 1]
    #[arg(long, value_name = "SIZE")]
    pub(crate) align: Option<String>,
    /// What the lengths of its mappings are multiples of [default: 1]
    #[arg(long, value_name = "SIZE")]
    pub(crate) len_align: Option<String>,
    /// Whether there is a source of pages for allocations: yes or no [default: yes]
    #[arg(long, value_name = "ANSWER", value_parser = yes_no)]
    pub(crate) pages: Option<bool>,
    /// With unmap and sync: the device was revoked meanwhile
    #[arg(long, action = ArgAction::SetTrue)]
    pub(crate) revoked: bool,
    /// The NUMA node of the device; of a pool: LABEL@ADDR,node=N [default: unknown]
    #[arg(long, value_name = "N")]
    pub(crate) node: Option<String>,
    /// With mmap: where in the allocation the mapping begins [default: 0]
    #[arg(long, value_name = "SIZE")]
    pub(crate) offset: Option<String>,
    /// With mmap: how long the mapping is [default: the rest]
    #[arg(long, value_name = "SIZE")]
    pub(crate) length: Option<String>,
    /// Tell the story of a case file instead: each step, with every rule that it applied
    #[arg(long, value_name = "FILE", conflicts_with_all = BESIDE_A_CASE)]
    pub(crate) case: Option<PathBuf>,
    /// Ask on all platforms, for untrusted and accepted devices: a table of 80 columns, as text or
    /// markdown; '-' where the question does not exist
    #[arg(
        long,
        value_name = "FORM",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "text",
        value_parser = matrix::form,
        conflicts_with_all = ["platform", "trust", "case"]
    )]
    pub(crate) matrix: Option<Form>,
    /// Print the question as a case file that holds, for 'coco-dma check'
    #[arg(long, conflicts_with_all = ["case", "matrix", "json"])]
    pub(crate) emit_case: bool,
    /// Print one JSON document
    #[arg(long)]
    pub(crate) json: bool,
}

fn yes_no(text: &str) -> Result<bool, String> {
    lookup("answer", text, &[("yes", true), ("no", false)])
}
