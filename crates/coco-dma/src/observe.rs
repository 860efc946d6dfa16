//! What happens, told to whoever listens. Without a listener an event costs a test of a pointer,
//! and on the path of an open machine not even that.

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
    /// The reserve for atomic context runs low: time to refill it.
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
                write!(f, "the reserve has {free} of {capacity} slots left")
            }
            Self::Revoked { device, slots } => write!(f, "{device}: revoked, {slots} slots freed"),
            Self::TrustLost { device } => write!(f, "{device}: no longer trusted"),
        }
    }
}
