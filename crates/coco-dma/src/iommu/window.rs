//! The addresses that a domain gives out.

use core::fmt;

use crate::addr::DmaAddr;

/// A run of addresses of a domain, in bytes: never empty, never past 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IovaWindow {
    base: DmaAddr,
    len: u64,
}

impl IovaWindow {
    /// The `len` addresses from `base` on; `None` where there are none or they wrap.
    ///
    /// Choose it below the devices' masks (what lies above one device's mask is not given to it),
    /// within the IOMMU's address width (VT-d: MGAW and SAGAW of CAP_REG; virtio-iommu:
    /// `input_range`), and take what the machine reserves out of the domain
    /// ([`Domain::reserve`](super::Domain::reserve)).
    pub const fn new(base: u64, len: u64) -> Option<Self> {
        if len == 0 || base.checked_add(len - 1).is_none() {
            return None;
        }
        Some(Self { base: DmaAddr::new(base), len })
    }

    /// The first address.
    pub const fn base(self) -> DmaAddr {
        self.base
    }

    /// The length in bytes, at least 1.
    #[expect(clippy::len_without_is_empty, reason = "a window is never empty")]
    pub const fn len(self) -> u64 {
        self.len
    }

    /// The last address.
    pub const fn last(self) -> DmaAddr {
        DmaAddr::new(self.base.raw() + (self.len - 1))
    }
}

impl fmt::Display for IovaWindow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}, {}]", self.base, self.last())
    }
}
