//! What `plan` is asked: small values and borrowed tables, nothing that can change under it.

use crate::addr::AddressLimit;
use crate::addr::AlignMask;
use crate::addr::Alignment;
use crate::addr::Boundary;
use crate::addr::BusRanges;
use crate::addr::CacheLine;
use crate::addr::PhysAddr;
use crate::addr::PhysRange;
use crate::attrs::Attrs;
use crate::regime::Regime;
use crate::state::Attachment;
use crate::state::Context;
use crate::state::Direction;
use crate::state::Memory;
use crate::state::PoolLabel;
use crate::state::PoolUse;
use crate::state::Trust;

/// The smallest page of the IOMMUs that Linux drives (VT-d, AMD-Vi, SMMU), in bytes: what an
/// entry exposes at least.
pub(super) const IOMMU_PAGE: u64 = 4096;

/// What a driver says of its device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The DMA mask, as the last address it reaches (default: 64 bits).
    pub mask: AddressLimit,
    /// The longest segment in bytes (default: none).
    pub segment: Option<u64>,
    /// The boundary that no segment may cross (default: none).
    pub boundary: Option<Boundary>,
    /// The most segments that one list may have (default: any number).
    pub max_segments: Option<usize>,
    /// What the address of a mapping has to be a multiple of: a buffer that begins elsewhere
    /// bounces (default: any byte). Bits that a bounce has to keep are no help to it, so that a
    /// device with both is refused when it is made.
    pub align: Alignment,
    /// What the length of a mapping has to be a multiple of: no pool makes it one, so that another
    /// length is refused as invalid (default: any number).
    pub len_align: Alignment,
    /// The low bits that a bounce has to keep (default: none).
    pub min_align: AlignMask,
    /// The cache line, for devices that are not coherent (default: 64 bytes).
    pub cache_line: CacheLine,
}

impl Limits {
    /// A device that reaches 64 bits and has no other limit.
    pub const NONE: Self = Self {
        mask: AddressLimit::NONE,
        segment: None,
        boundary: None,
        max_segments: None,
        align: Alignment::NONE,
        len_align: Alignment::NONE,
        min_align: AlignMask::NONE,
        cache_line: CacheLine::USUAL,
    };

    /// The limits of a device whose mask has `bits` bits.
    pub const fn mask_bits(bits: u32) -> Self {
        Self { mask: AddressLimit::bits(bits), ..Self::NONE }
    }

    /// Whether no device can have all of them: a bounce keeps the low bits under the min-align mask,
    /// so that it cannot clear those that the alignment wants clear; and what is cut at a segment or
    /// boundary that is shorter than an alignment has ends that break it.
    pub fn conflict(&self) -> bool {
        let coarse = self.align.max(self.len_align).bytes();
        if coarse == 1 {
            return false;
        }
        (!self.align.is_none() && self.min_align != AlignMask::NONE)
            || self.segment.is_some_and(|segment| segment < coarse)
            || self.boundary.is_some_and(|boundary| boundary.bytes() < coarse)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::NONE
    }
}

/// A device, as far as a decision depends on it.
#[derive(Clone, Copy, Debug)]
pub struct DeviceInfo<'a> {
    /// Whether it is part of what the guest trusts.
    pub trust: Trust,
    /// What the driver says.
    pub limits: Limits,
    /// The last address that the bus in front of it reaches.
    pub bus_limit: AddressLimit,
    /// The windows of that bus.
    pub bus: BusRanges<'a>,
    /// What stands between it and memory.
    pub attachment: Attachment,
    /// Whether its accesses see the CPU's caches.
    pub coherent: bool,
    /// A PCI device that the machine's owner does not trust: another thing than `trust`.
    pub external_facing: bool,
    /// Every map is to be bounced.
    pub force_bounce: bool,
    /// The NUMA node that it is attached to, where that is known.
    pub node: Option<u16>,
}

impl DeviceInfo<'_> {
    /// An untrusted coherent device without limits and IOMMU.
    pub const PLAIN: Self = Self {
        trust: Trust::Untrusted,
        limits: Limits::NONE,
        bus_limit: AddressLimit::NONE,
        bus: BusRanges::IDENTITY,
        attachment: Attachment::None,
        coherent: true,
        external_facing: false,
        force_bounce: false,
        node: None,
    };

    /// The last address the device reaches: the tighter of mask and bus limit.
    #[inline]
    pub fn limit(&self) -> AddressLimit {
        self.limits.mask.min(self.bus_limit) // sabotage: bus-limit
    }
}

/// A pool, as far as a decision depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolInfo {
    /// What its memory is.
    pub label: PoolLabel,
    /// Where its memory lies.
    pub range: PhysRange,
    /// Whether it is the only memory that the device may touch.
    pub restricted: bool,
    /// What it is for.
    pub purpose: PoolUse,
    /// Whether it is the device's own, and not the machine's.
    pub own: bool,
    /// The NUMA node of its memory, where that is known.
    pub node: Option<u16>,
}

impl PoolInfo {
    /// A pool of the machine for everything, on no known node.
    pub const fn new(label: PoolLabel, range: PhysRange) -> Self {
        Self { label, range, restricted: false, purpose: PoolUse::All, own: false, node: None }
    }

    /// Whether it is known to lie on another node than the device is attached to. Two nodes are
    /// as far as any two others: what one hop costs is the machine's secret.
    #[inline]
    pub(super) fn is_far(&self, device: &DeviceInfo<'_>) -> bool {
        matches!((self.node, device.node), (Some(pool), Some(device)) if pool != device)
    }
}

/// Where the memory of a request lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// One run of physical memory from here.
    At(PhysAddr),
    /// In no single run that the platform knows: it can be copied, never mapped in place.
    Unlocated,
}

/// One streaming map, before anything is done about it.
#[derive(Clone, Copy, Debug)]
pub struct MapRequest<'a> {
    /// The rules of the machine.
    pub regime: &'a Regime,
    /// Whose map it is.
    pub device: &'a DeviceInfo<'a>,
    /// Where the memory lies.
    pub place: Place,
    /// How long it is in bytes.
    pub len: u64,
    /// What is known about it.
    pub memory: Memory,
    /// Which way the bytes go.
    pub direction: Direction,
    /// What the caller asserts and wants.
    pub attrs: Attrs,
    /// Alignment that a place in a pool has to have, in bytes, a power of two (1: none). For a
    /// device in a domain the page of its IOMMU, where that is more than 4096: a place is then
    /// made of whole pages, so that no entry shows more than the mapping.
    pub align: u64,
    /// The pools of the device and of the machine.
    pub pools: &'a [PoolInfo],
}

impl MapRequest<'_> {
    /// Whether what the device reaches in place is registers, which no cache has lines of: the caller
    /// says so, or it is a peer's memory, whoever says so.
    pub(crate) fn is_registers(&self) -> bool {
        self.attrs.contains(Attrs::MMIO) || self.memory == Memory::Peer
    }
}

/// What kind of memory is allocated: each is what one of Linux's allocators gives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum AllocKind {
    /// What CPU and device see alike without syncs (`dma_alloc_attrs`).
    #[default]
    Coherent,
    /// Pages that the CPU caches and the driver syncs (`dma_alloc_pages`).
    Pages,
    /// The same, of which the device alone has to see one run (`dma_alloc_noncontiguous`).
    NonContiguous,
}

impl AllocKind {
    /// The attributes that such an allocation takes. Linux has no `NO_WARN` for the last two,
    /// because its page flags say the same.
    pub const fn takes(self) -> Attrs {
        match self {
            Self::Coherent => Attrs::FOR_ALLOC,
            Self::Pages => Attrs::NO_WARN,
            Self::NonContiguous => Attrs::NO_WARN.with(Attrs::ALLOC_SINGLE_PAGES),
        }
    }
}

/// One allocation, before anything is done about it.
#[derive(Clone, Copy, Debug)]
pub struct AllocRequest<'a> {
    /// The rules of the machine.
    pub regime: &'a Regime,
    /// What kind of memory it is.
    pub kind: AllocKind,
    /// Whose memory it will be.
    pub device: &'a DeviceInfo<'a>,
    /// How long it has to be in bytes. It is given in whole pages.
    pub len: u64,
    /// The page in bytes, a power of two: the machine's, or that of the device's IOMMU where it is
    /// longer.
    pub page: u64,
    /// The alignment that is asked for, in bytes, a power of two (1: none). An allocation is aligned
    /// to its length rounded up to a power of two in any case ([`Extent`](super::Extent)).
    pub align: u64,
    /// What the caller wants.
    pub attrs: Attrs,
    /// Whether the caller may wait.
    pub context: Context,
    /// Whether there is a source of pages of our own.
    pub pages: bool,
    /// The pools of the device and of the machine.
    pub pools: &'a [PoolInfo],
}
