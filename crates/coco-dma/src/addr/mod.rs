//! Addresses and runs of memory: types that cannot be mixed up, arithmetic that cannot wrap.
//!
//! A [`PhysAddr`] is what the guest calls a page: it never carries a C-bit, a shared bit or a
//! boundary offset. A [`DmaAddr`] is what a device is given: only the DMA codec
//! ([`Regime::dma_form`](crate::regime::Regime::dma_form)) and the device's bus ranges make one.
//! Neither converts to or from a number by `From`; [`PhysAddr::new`] and [`PhysAddr::raw`] say in
//! the source where a number becomes an address.

mod bus;
mod limit;
mod memory;
mod placement;

pub use bus::BusRange;
pub use bus::BusRanges;
pub use limit::AddressLimit;
pub use limit::AlignMask;
pub use limit::Alignment;
pub use limit::Boundary;
pub use limit::CacheLine;
pub use memory::MemoryMap;
pub use memory::PageConstraints;
pub use placement::Constraints;
pub use placement::Placements;
pub use placement::SLOT;

use core::fmt;
use core::num::NonZeroU64;

macro_rules! address {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(transparent)]
        pub struct $name(u64);

        impl $name {
            /// The address with this number.
            #[inline]
            pub const fn new(raw: u64) -> Self {
                Self(raw)
            }

            /// The number of this address.
            #[inline]
            pub const fn raw(self) -> u64 {
                self.0
            }

            /// The address `bytes` further up; `None` where that wraps.
            #[inline]
            pub const fn checked_add(self, bytes: u64) -> Option<Self> {
                match self.0.checked_add(bytes) {
                    Some(raw) => Some(Self(raw)),
                    None => None,
                }
            }

            /// How far this address lies above `base`; `None` where it lies below.
            #[inline]
            pub const fn offset_from(self, base: Self) -> Option<u64> {
                self.0.checked_sub(base.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:#x})"), self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#x}", self.0)
            }
        }

        impl fmt::LowerHex for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::LowerHex::fmt(&self.0, f)
            }
        }
    };
}

address! {
    /// A physical address as the guest (or the bare machine) numbers its memory, in bytes. Bits
    /// that say how memory is stored or who may see it are never part of it.
    PhysAddr
}

address! {
    /// An address as a device is given it, in bytes: form bits and bus offset included, or an
    /// address in an IOMMU domain.
    ///
    /// A number is not access: safe code may have it, print it and compare it. **Giving it to a
    /// device is the unsafe step of DMA**, and whoever takes that step answers for it: the device
    /// uses the address only in the direction of the mapping, and is stopped (its queue drained,
    /// its bus mastering off, or the device reset) before the mapping ends. That is the one whose
    /// code holds the `unsafe` that writes the register or the descriptor. A *safe* function that
    /// takes a bare `DmaAddr` and starts a device with it is therefore unsound: its caller may
    /// end the mapping the next moment. Let such a function be `unsafe`, or let it take the
    /// mapping itself and give it back when the device has stopped.
    DmaAddr
}

/// A run of physical memory in bytes: never empty, never past the end of the address space.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PhysRange {
    base: PhysAddr,
    len: NonZeroU64,
}

impl PhysRange {
    /// The byte at address 0: what a table holds where it holds nothing yet.
    pub(crate) const FIRST_BYTE: Self = Self { base: PhysAddr(0), len: NonZeroU64::MIN };

    /// The run of `len` bytes at `base`; `None` where it is empty or wraps.
    #[inline]
    pub const fn new(base: PhysAddr, len: u64) -> Option<Self> {
        match NonZeroU64::new(len) {
            Some(len) if base.0.checked_add(len.get() - 1).is_some() => Some(Self { base, len }),
            _ => None,
        }
    }

    /// The run from `base` to `last`, both of it; `None` where there is none, and for all 2^64 bytes.
    pub(crate) fn between(base: PhysAddr, last: PhysAddr) -> Option<Self> {
        Self::new(base, last.offset_from(base)?.checked_add(1)?)
    }

    /// The first address.
    #[inline]
    pub const fn base(self) -> PhysAddr {
        self.base
    }

    /// The length in bytes, at least 1.
    #[inline]
    #[expect(clippy::len_without_is_empty, reason = "a run is never empty")]
    pub const fn len(self) -> u64 {
        self.len.get()
    }

    /// The last address of the run (inclusive, so that a run may end at the top).
    #[inline]
    pub const fn last(self) -> PhysAddr {
        PhysAddr(self.base.0 + (self.len.get() - 1))
    }

    /// Whether `other` lies wholly in this run.
    #[inline]
    pub const fn contains(self, other: Self) -> bool {
        self.base.0 <= other.base.0 && other.last().0 <= self.last().0
    }

    /// Whether the two runs share a byte.
    #[inline]
    pub const fn overlaps(self, other: Self) -> bool {
        self.base.0 <= other.last().0 && other.base.0 <= self.last().0
    }

    /// The part of `len` bytes that starts `offset` bytes into the run; `None` where it is empty
    /// or leaves the run.
    #[inline]
    pub const fn slice(self, offset: u64, len: u64) -> Option<Self> {
        match self.base.checked_add(offset) {
            Some(base) => match Self::new(base, len) {
                Some(part) if self.contains(part) => Some(part),
                _ => None,
            },
            None => None,
        }
    }

    /// Whether base and length are both multiples of `granule` (a power of two).
    #[inline]
    pub const fn is_aligned(self, granule: u64) -> bool {
        (self.base.0 | self.len.get()) & (granule.wrapping_sub(1)) == 0
    }
}

impl fmt::Debug for PhysRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for PhysRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..={}", self.base, self.last())
    }
}

#[cfg(test)]
mod tests {
    use std::format;

    use super::*;

    fn range(base: u64, len: u64) -> PhysRange {
        PhysRange::new(PhysAddr::new(base), len).unwrap()
    }

    #[test]
    fn a_run_is_never_empty_and_never_wraps() {
        assert!(PhysRange::new(PhysAddr::new(0x1000), 0).is_none());
        assert!(PhysRange::new(PhysAddr::new(u64::MAX), 2).is_none());
        assert_eq!(range(u64::MAX, 1).last(), PhysAddr::new(u64::MAX));
        assert!(PhysRange::new(PhysAddr::new(1), u64::MAX).is_some());
        assert!(PhysRange::new(PhysAddr::new(2), u64::MAX).is_none());
    }

    #[test]
    fn runs_contain_overlap_and_slice() {
        let run = range(0x1000, 0x1000);
        assert!(run.contains(range(0x1fff, 1)));
        assert!(!run.contains(range(0x1fff, 2)));
        assert!(run.overlaps(range(0, 0x1001)));
        assert!(!run.overlaps(range(0, 0x1000)));
        assert_eq!(run.slice(0x800, 0x800), Some(range(0x1800, 0x800)));
        assert_eq!(run.slice(0x800, 0x801), None);
        assert_eq!(run.slice(u64::MAX, 1), None);
    }

    #[test]
    fn a_run_is_told_by_its_first_and_its_last_byte() {
        assert_eq!(format!("{}", range(0x1000, 0x1000)), "0x1000..=0x1fff");
        assert_eq!(format!("{:?}", range(u64::MAX, 1)), format!("{0:#x}..={0:#x}", u64::MAX));
        assert_eq!(format!("{:?}", DmaAddr::new(0x40)), "DmaAddr(0x40)");
    }
}
