//! The addresses that a domain gives out.

use core::fmt;

use crate::addr::DmaAddr;

/// The first address of the last page of 64 bits.
const NOBODYS_PAGE: u64 = 0xffff_ffff_ffff_f000;

/// A run of addresses of a domain, in bytes: never empty, never past 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IovaWindow {
    base: DmaAddr,
    len: u64,
}

impl IovaWindow {
    /// The `len` addresses from `base` on; `None` where there are none, where they wrap, and where
    /// the last page of 64 bits is among them: that one is no device's, so that an interface
    /// without errors has an address for what was not mapped.
    ///
    /// Choose it below the devices' masks (what lies above one device's mask is not given to it),
    /// within the IOMMU's address width (VT-d: MGAW and SAGAW of CAP_REG; virtio-iommu:
    /// `input_range`), and take what the machine reserves out of the domain
    /// ([`Domain::reserve`](super::Domain::reserve)).
    pub const fn new(base: u64, len: u64) -> Option<Self> {
        match base.checked_add(len.wrapping_sub(1)) {
            Some(last) if len > 0 && last < NOBODYS_PAGE => {}
            _ => return None,
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The virtio adaptor's address for what was not mapped was one that a domain could give out:
    /// such a map could never be ended.
    #[test]
    fn the_last_page_of_all_is_no_devices() {
        assert!(IovaWindow::new(0, u64::MAX).is_none());
        assert!(IovaWindow::new(NOBODYS_PAGE, 4096).is_none());
        assert!(IovaWindow::new(NOBODYS_PAGE - 4096, 4097).is_none());
        assert_eq!(IovaWindow::new(0, NOBODYS_PAGE).unwrap().last().raw(), NOBODYS_PAGE - 1);
        for (base, len) in [(0, 0), (1, 0), (u64::MAX, 0), (u64::MAX, 2)] {
            assert!(IovaWindow::new(base, len).is_none(), "{base:#x} {len:#x}");
        }
    }
}
