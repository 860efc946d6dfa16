//! The words of `explain`'s options, each to its type.

use coco_dma::addr::AlignMask;
use coco_dma::addr::Boundary;
use coco_dma::addr::BusRange;
use coco_dma::addr::CacheLine;
use coco_dma::addr::PhysAddr;
use coco_dma::addr::PhysRange;
use coco_dma::attrs::Attrs;
use coco_dma::plan::AllocKind;
use coco_dma::regime::PlatformName;
use coco_dma::state::Attachment;
use coco_dma::state::Context;
use coco_dma::state::Direction;
use coco_dma::state::Trust;

use crate::number::number;
use crate::number::size;
use crate::words::lookup;

/// What `--memory` takes; which of them exist depends on the platform.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MemoryWord {
    Private,
    Shared,
    Untracked,
    Mixed,
    Mmio,
    Peer,
    Encrypted,
    Plain,
    Ordinary,
    Unaccepted,
    Quarantined,
    Converting,
    Unlocated,
}

/// The words of `--memory`.
pub(crate) const MEMORY: [(&str, MemoryWord); 13] = [
    ("private", MemoryWord::Private),
    ("shared", MemoryWord::Shared),
    ("untracked", MemoryWord::Untracked),
    ("mixed", MemoryWord::Mixed),
    ("mmio", MemoryWord::Mmio),
    ("peer", MemoryWord::Peer),
    ("encrypted", MemoryWord::Encrypted),
    ("plain", MemoryWord::Plain),
    ("ordinary", MemoryWord::Ordinary),
    ("unaccepted", MemoryWord::Unaccepted),
    ("quarantined", MemoryWord::Quarantined),
    ("converting", MemoryWord::Converting),
    ("unlocated", MemoryWord::Unlocated),
];

/// What is explained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Map,
    Unmap,
    Sync,
    Alloc,
    Free,
    Mmap,
    Attach,
}

/// The words of `--operation`.
pub(crate) const OPERATIONS: [(&str, Operation); 7] = [
    ("map", Operation::Map),
    ("unmap", Operation::Unmap),
    ("sync", Operation::Sync),
    ("alloc", Operation::Alloc),
    ("free", Operation::Free),
    ("mmap", Operation::Mmap),
    ("attach", Operation::Attach),
];

/// The words of `--kind`.
pub(crate) const KINDS: [(&str, AllocKind); 3] = [
    ("coherent", AllocKind::Coherent),
    ("pages", AllocKind::Pages),
    ("non-contiguous", AllocKind::NonContiguous),
];

pub(crate) fn platform(text: &str) -> Result<PlatformName, String> {
    lookup("platform", text, &PlatformName::ALL.map(|platform| (platform.name(), platform)))
}

pub(crate) fn trust(text: &str) -> Result<Trust, String> {
    let words = [("untrusted", Trust::Untrusted), ("accepted", Trust::Accepted)];
    lookup("trust", text, &words)
}

pub(crate) fn memory(text: &str) -> Result<MemoryWord, String> {
    lookup("state of memory", text, &MEMORY)
}

pub(crate) fn attribute(text: &str) -> Result<Attrs, String> {
    lookup("attribute", text, Attrs::NAMED)
}

pub(crate) fn direction(text: &str) -> Result<Direction, String> {
    let words =
        [("to", Direction::ToDevice), ("from", Direction::FromDevice), ("both", Direction::Both)];
    lookup("direction", text, &words)
}

pub(crate) fn iommu(text: &str) -> Result<Attachment, String> {
    let words = [
        ("none", Attachment::None),
        ("passthrough", Attachment::Passthrough),
        ("translated", Attachment::Translated),
    ];
    lookup("IOMMU", text, &words)
}

pub(crate) fn yes_no(text: &str) -> Result<bool, String> {
    lookup("answer", text, &[("yes", true), ("no", false)])
}

pub(crate) fn context(text: &str) -> Result<Context, String> {
    lookup("context", text, &[("blocking", Context::Blocking), ("atomic", Context::Atomic)])
}

pub(crate) fn operation(text: &str) -> Result<Operation, String> {
    lookup("operation", text, &OPERATIONS)
}

pub(crate) fn mask(text: &str) -> Result<u32, String> {
    match u32::try_from(number(text)?) {
        Ok(bits @ 1..=64) => Ok(bits),
        _ => Err(format!("a mask has 1 to 64 bits, not {text}")),
    }
}

pub(crate) fn boundary(text: &str) -> Result<Boundary, String> {
    Boundary::new(size(text)?)
        .ok_or_else(|| format!("a boundary is a power of two, which '{text}' is not"))
}

pub(crate) fn power_of_two(text: &str) -> Result<u64, String> {
    let value = size(text)?;
    if value.is_power_of_two() { Ok(value) } else { Err(format!("'{text}' is no power of two")) }
}

pub(crate) fn cache_line(text: &str) -> Result<CacheLine, String> {
    CacheLine::new(size(text)?)
        .ok_or_else(|| format!("a cache line is a power of two, which '{text}' is not"))
}

pub(crate) fn align_mask(text: &str) -> Result<AlignMask, String> {
    AlignMask::new(number(text)?)
        .ok_or_else(|| format!("a min-align mask is ones from bit 0 up, as 0xfff, not '{text}'"))
}

pub(crate) fn bus_range(text: &str) -> Result<BusRange, String> {
    let parts: Vec<&str> = text.split(':').collect();
    let [cpu, bus, len] = parts.as_slice() else {
        return Err(format!("a bus range is CPU:BUS:SIZE, which '{text}' is not"));
    };
    let range = PhysRange::new(PhysAddr::new(size(cpu)?), size(len)?);
    range
        .and_then(|range| BusRange::new(range, size(bus).ok()?))
        .ok_or_else(|| format!("the bus range '{text}' is empty, malformed or wraps"))
}

pub(crate) fn kind(text: &str) -> Result<AllocKind, String> {
    lookup("kind of allocation", text, &KINDS)
}

pub(crate) fn node_number(text: &str) -> Result<u16, String> {
    u16::try_from(number(text)?).map_err(|_| format!("a node is a number below 65536, not {text}"))
}
