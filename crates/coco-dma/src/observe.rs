//! What happens, told to whoever listens. Without a listener an event costs a test of a pointer,
//! and on the path of an open machine not even that.

pub mod ftrace;

use core::fmt;

use crate::addr::AddressLimit;
use crate::addr::DmaAddr;
use crate::addr::PhysAddr;
use crate::addr::PhysRange;
use crate::attrs::Attrs;
use crate::reason::Bounce;
use crate::reason::Refuse;
use crate::state::Cipher;
use crate::state::Context;
use crate::state::Direction;
use crate::state::PoolLabel;
use crate::state::Visibility;

/// Listens to the layer. Called in the context of whoever caused the event, atomic context
/// included: it must not block. No lock is held and the event has happened when it is told, so that
/// a listener may call the layer; its own calls are told to it, too. Where it panics at
/// [`Event::Bounced`], [`Event::Mapped`] or [`Event::Allocated`], what the event tells of is ended
/// again, since its record reaches nobody.
pub trait Observer: Sync {
    /// Something happened.
    fn event(&self, event: &Event<'_>);

    /// Whether it wants to hear of every map and allocation too: [`Event::Mapped`],
    /// [`Event::Unmapped`], [`Event::Synced`], [`Event::Allocated`] and [`Event::Freed`]. Asked once,
    /// by [`Dma::with_observer`](crate::Dma::with_observer). Every map is planned then: neither the
    /// open machine's shortcut nor the fast path of a bounce is taken, and whoever does not ask pays
    /// nothing.
    fn wants_maps(&self) -> bool {
        false
    }
}

/// Memory that a device was given by a map or an allocation. A scatter list is told segment by
/// segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapInfo<'e> {
    /// The device.
    pub device: &'e str,
    /// Which way the bytes go: both for an allocation.
    pub direction: Direction,
    /// The first byte of the memory: of the driver's buffer, not of the slots that it bounces
    /// through. `None` where it lies in no single run, and at the end of a map and at a sync, which
    /// are known by the device's address alone.
    pub phys: Option<PhysAddr>,
    /// What the device was given.
    pub addr: DmaAddr,
    /// Bytes.
    pub len: usize,
    /// What was asked for.
    pub attrs: Attrs,
    /// Where the device finds the bytes.
    pub form: Form,
}

/// Where a device finds the bytes of a map or an allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// In the memory itself: the driver's buffer, or pages of our own.
    Direct,
    /// In slots of a pool with this label.
    Pool(PoolLabel),
}

/// Why a map bounces, with what Linux's trace point tells of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BounceCause {
    /// Why.
    pub reason: Bounce,
    /// What the device would have been given in place; `None` where nothing shows the buffer.
    pub in_place: Option<DmaAddr>,
    /// The last address that the device reaches.
    pub limit: AddressLimit,
}

/// Whom a sync shows the bytes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncFor {
    /// The driver sees what the device wrote.
    Cpu,
    /// The device sees what the driver wrote.
    Device,
}

/// An access that an IOMMU refused, as its driver decoded it (VT-d: fault recording registers;
/// AMD-Vi: event log; virtio-iommu: event queue). Tell the layer by
/// [`Dma::fault`](crate::Dma::fault).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Who did it, as the machine numbers its devices: the requester id (bus << 8 | device << 3 |
    /// function) on PCI, a stream or endpoint id elsewhere.
    pub source: u32,
    /// The address that it used, as far as the IOMMU tells: VT-d gives the page alone.
    pub addr: DmaAddr,
    /// Whether it wanted to write; `None` where the IOMMU does not tell (QEMU's virtio-iommu sets
    /// neither flag of the direction for a page that no entry maps).
    pub write: Option<bool>,
    /// Why it was refused.
    pub reason: FaultReason,
    /// The IOMMU's own code, for people (VT-d: fault reason, 8 bits).
    pub code: u32,
}

/// Why an IOMMU refused an access. The names are those of virtio-iommu
/// (`VIRTIO_IOMMU_FAULT_R_*`, virtio 1.2, 5.13.6.10).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FaultReason {
    /// The device is in no domain (VT-d: 1 to 4 and their like: root and context entries).
    Domain,
    /// No entry allows the access: the page is not mapped, or not with this right (VT-d: 5 for a
    /// write, 6 for a read).
    Mapping,
    /// The driver knows no better.
    Unknown,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = match self.write {
            Some(true) => "write to",
            Some(false) => "read of",
            None => "access to",
        };
        let why = match self.reason {
            FaultReason::Domain => "it is in no domain",
            FaultReason::Mapping => "no entry allows it",
            FaultReason::Unknown => "reason unknown",
        };
        let Self { source, addr, code, .. } = self;
        write!(f, "device {source:#x}: {verb} {addr} refused by the IOMMU: {why} ({code:#x})")
    }
}

/// What happened. Names follow Linux's trace points where it has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event<'e> {
    /// A buffer goes through a pool (`swiotlb:swiotlb_bounced`).
    Bounced {
        /// The device.
        device: &'e str,
        /// What it was given.
        addr: DmaAddr,
        /// Bytes.
        len: usize,
        /// Why.
        reason: Bounce,
    },
    /// A map was made (`dma:dma_map_phys`). For listeners that [want it](Observer::wants_maps), as
    /// the next four.
    Mapped {
        /// What the device was given.
        lent: MapInfo<'e>,
        /// Why it bounces, where it does.
        bounce: Option<BounceCause>,
    },
    /// A map ended, and what it held is free (`dma:dma_unmap_phys`).
    Unmapped(MapInfo<'e>),
    /// Bytes of a map, from `lent.addr` on, were shown to the other side
    /// (`dma:dma_sync_single_for_cpu` and `dma:dma_sync_single_for_device`).
    Synced {
        /// The part.
        lent: MapInfo<'e>,
        /// Whom it was shown to.
        to: SyncFor,
    },
    /// Memory was allocated (`dma:dma_alloc`).
    Allocated {
        /// What the device was given.
        lent: MapInfo<'e>,
        /// Whether the caller could block.
        context: Context,
    },
    /// An allocation was freed (`dma:dma_free`).
    Freed(MapInfo<'e>),
    /// A map or an allocation was refused (`dma:dma_alloc` with an error, and the message
    /// "swiotlb buffer is full").
    Refused {
        /// The device.
        device: &'e str,
        /// Bytes.
        len: usize,
        /// Why.
        reason: Refuse,
    },
    /// Memory was converted.
    Converted {
        /// Which.
        run: PhysRange,
        /// Who may see it now.
        to: Visibility,
    },
    /// A conversion failed.
    ConversionFailed {
        /// What was to be converted.
        run: PhysRange,
        /// To what.
        to: Visibility,
        /// Bytes that went into quarantine.
        quarantined: u64,
        /// The platform's code.
        code: u64,
    },
    /// Pages of our own on an SME host are stored otherwise now: plain for a device that cannot carry
    /// the C-bit, encrypted again when it gave them back.
    CipherChanged {
        /// Which.
        run: PhysRange,
        /// How they are stored now.
        to: Cipher,
    },
    /// Pages of our own on an SME host could not be stored otherwise.
    CipherFailed {
        /// Which.
        run: PhysRange,
        /// How they were to be stored.
        to: Cipher,
        /// Bytes that went into quarantine.
        quarantined: u64,
        /// The platform's code.
        code: u64,
    },
    /// Memory came out of quarantine: a retry proved its state.
    Recovered {
        /// Which.
        run: PhysRange,
    },
    /// A pool of the reserve for atomic context, or of the reservoir for coherent memory, runs low:
    /// time to refill it.
    LowWater {
        /// Slots that are free.
        free: usize,
        /// Slots in all.
        capacity: usize,
    },
    /// A device was revoked.
    Revoked {
        /// The device.
        device: &'e str,
        /// Slots that were freed.
        slots: usize,
    },
    /// An IOMMU refused an access of a device.
    Fault(Fault),
    /// An IOMMU could not unmap: the addresses are not given out again, and the memory that lies
    /// there stays pinned, or its slots or pages taken, until it is tried again and succeeds. The
    /// one who ended it has it as an error, too.
    UnmapFailed {
        /// The device.
        device: &'e str,
        /// The first address.
        addr: DmaAddr,
        /// Bytes, in whole pages of the IOMMU.
        len: u64,
        /// The code of the IOMMU's driver.
        code: u64,
    },
    /// An accepted device lost the guest's trust.
    TrustLost {
        /// The device.
        device: &'e str,
    },
}

impl fmt::Display for MapInfo<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { device, addr, len, form, .. } = self;
        match form {
            Form::Direct => write!(f, "{device}: {len} bytes at {addr}"),
            Form::Pool(label) => write!(f, "{device}: {len} bytes at {addr} of a {label} pool"),
        }
    }
}

impl fmt::Display for Event<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Bounced { device, addr, len, reason } => {
                write!(f, "{device}: {len} bytes bounced at {addr} ({reason})")
            }
            Self::Mapped { lent, .. } => write!(f, "{lent}, mapped"),
            Self::Unmapped(lent) => write!(f, "{lent}, unmapped"),
            Self::Synced { lent, to: SyncFor::Cpu } => write!(f, "{lent}, synced for the CPU"),
            Self::Synced { lent, to: SyncFor::Device } => {
                write!(f, "{lent}, synced for the device")
            }
            Self::Allocated { lent, .. } => write!(f, "{lent}, allocated"),
            Self::Freed(lent) => write!(f, "{lent}, freed"),
            Self::Refused { device, len, reason } => {
                write!(f, "{device}: {len} bytes refused ({reason}): {}", reason.text())
            }
            Self::Converted { run, to } => write!(f, "{run} is {to:?} now"),
            Self::ConversionFailed { run, to, quarantined, code } => write!(
                f,
                "{run} could not be made {to:?} (code {code:#x}); {quarantined:#x} bytes are lost"
            ),
            Self::CipherChanged { run, to } => write!(f, "{run} is stored {to:?} now"),
            Self::CipherFailed { run, to, quarantined, code } => write!(
                f,
                "{run} could not be stored {to:?} (code {code:#x}); {quarantined:#x} bytes are lost"
            ),
            Self::Recovered { run } => write!(f, "{run} came out of quarantine"),
            Self::LowWater { free, capacity } => {
                write!(f, "a pool kept for allocations has {free} of {capacity} slots left")
            }
            Self::Revoked { device, slots } => write!(f, "{device}: revoked, {slots} slots freed"),
            Self::Fault(fault) => fault.fmt(f),
            Self::UnmapFailed { device, addr, len, code } => write!(
                f,
                "{device}: {len:#x} bytes at {addr} could not be unmapped (code {code:#x}), and \
                 are kept"
            ),
            Self::TrustLost { device } => write!(f, "{device}: no longer trusted"),
        }
    }
}
