//! What happens, told to whoever listens. Without a listener an event costs a test of a pointer,
//! and on the path of an open machine not even that.

pub mod ftrace;

use core::fmt;

use crate::addr::DmaAddr;
use crate::addr::PhysRange;
use crate::reason::Bounce;
use crate::reason::Refuse;
use crate::state::Visibility;

/// Listens to the layer. Called in the context of whoever caused the event, atomic context
/// included: it must not block and must not call the layer.
pub trait Observer: Sync {
    /// Something happened.
    fn event(&self, event: &Event<'_>);
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

impl fmt::Display for Event<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Bounced { device, addr, len, reason } => {
                write!(f, "{device}: {len} bytes bounced at {addr} ({reason})")
            }
            Self::Refused { device, len, reason } => {
                write!(f, "{device}: {len} bytes refused ({reason}): {}", reason.text())
            }
            Self::Converted { run, to } => write!(f, "{run} is {to:?} now"),
            Self::ConversionFailed { run, to, quarantined, code } => write!(
                f,
                "{run} could not be made {to:?} (code {code:#x}); {quarantined:#x} bytes are lost"
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
