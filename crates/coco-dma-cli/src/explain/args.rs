//! The arguments of `explain`.

use std::path::PathBuf;

use clap::ArgAction;
use clap::Args;
use coco_dma::regime::PlatformName;

use super::pools;
use super::pools::NamedPool;
use super::words;
use crate::number;

/// The options of `explain` that a case file says all by itself.
const BESIDE_A_CASE: [&str; 34] = [
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
    "pages",
    "revoked",
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
    /// The longest segment that the device takes, in bytes [default: none]
    #[arg(long, value_name = "SIZE", value_parser = number::size)]
    pub(crate) segment: Option<u64>,
    /// Low address bits that a bounce has to keep, as 0xfff [default: 0]
    #[arg(long, value_name = "MASK", value_parser = words::align_mask)]
    pub(crate) min_align_mask: Option<coco_dma::addr::AlignMask>,
    /// The cache line, for devices that do not see the caches [default: 64]
    #[arg(long, value_name = "SIZE", value_parser = words::cache_line)]
    pub(crate) cache_line: Option<coco_dma::addr::CacheLine>,
    /// Where the buffer lies in memory; not for memory that is unlocated
    #[arg(long, value_name = "ADDR", value_parser = number::size)]
    pub(crate) phys: Option<u64>,
    /// How long it is
    #[arg(long, value_name = "N", value_parser = number::size)]
    pub(crate) size: Option<u64>,
    /// Its state: private, shared, untracked or mixed, on sme encrypted or plain; mmio for a
    /// device's registers, peer for another device's memory; unaccepted, quarantined or converting;
    /// unlocated if it is in no single run of memory [default: private, on sme encrypted]
    #[arg(long, value_name = "STATE", value_parser = words::memory)]
    pub(crate) memory: Option<words::MemoryWord>,
    /// An attribute, as cc-shared, mmio, require-coherent (repeatable)
    #[arg(long = "attr", value_name = "NAME", value_parser = words::attribute)]
    pub(crate) attrs: Vec<coco_dma::attrs::Attrs>,
    /// Which way the bytes go: to, from or both [default: both]
    #[arg(long, value_name = "WAY", value_parser = words::direction)]
    pub(crate) direction: Option<coco_dma::state::Direction>,
    /// A pool of the device, as guest-shared@0x90000000+64MiB. Before the label, each with a colon:
    /// machine, if it is everybody's; restricted, if the device has no other memory; coherent, if it
    /// is the reservoir of coherent memory; reserve, if it is kept for atomic context; streaming, if
    /// it is for maps alone (repeatable) [default: none]
    #[arg(long = "pool", value_name = "POOL", value_parser = pools::pool)]
    pub(crate) pools: Vec<NamedPool>,
    /// Bounce every map of this device
    #[arg(long, action = ArgAction::SetTrue)]
    pub(crate) force_bounce: bool,
    /// A PCI device that the machine's owner does not trust
    #[arg(long, action = ArgAction::SetTrue)]
    pub(crate) external_facing: bool,
    /// none, passthrough or translated [default: none, on sme passthrough]
    #[arg(long, value_name = "KIND", value_parser = words::iommu)]
    pub(crate) iommu: Option<coco_dma::state::Attachment>,
    /// The smallest page of the IOMMU's domain, with --iommu translated [default: 4KiB]
    #[arg(long, value_name = "SIZE", value_parser = words::power_of_two)]
    pub(crate) iommu_page: Option<u64>,
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
    /// The alignment of what is allocated, or of a map's place in a pool [default: 4KiB; 1]
    #[arg(long, value_name = "SIZE", value_parser = number::size)]
    pub(crate) align: Option<u64>,
    /// Whether there is a source of pages for allocations: yes or no [default: yes]
    #[arg(long, value_name = "ANSWER", value_parser = words::yes_no)]
    pub(crate) pages: Option<bool>,
    /// With unmap and sync: the device was revoked meanwhile
    #[arg(long, action = ArgAction::SetTrue)]
    pub(crate) revoked: bool,
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
