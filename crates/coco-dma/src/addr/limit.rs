//! What a device can address: the highest address, the boundary a segment may not cross, the low
//! bits that a bounce must keep.

use core::fmt;
use core::num::NonZeroU64;

/// The highest address that can be named, inclusive: a DMA mask of `n` bits is `2^n - 1`, a bus
/// limit is the last address reached.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct AddressLimit(u64);

impl AddressLimit {
    /// No limit: all 64 bits.
    pub const NONE: Self = Self(u64::MAX);

    /// The limit of a mask of `bits` bits, 1 to 64; more than 64 is 64, and 0 reaches address 0
    /// alone.
    #[inline]
    pub const fn bits(bits: u32) -> Self {
        match 1u64.checked_shl(bits) {
            Some(past) => Self(past - 1),
            None => Self::NONE,
        }
    }

    /// The limit whose last reachable address is `last`.
    #[inline]
    pub const fn last(last: u64) -> Self {
        Self(last)
    }

    /// The last address reached.
    #[inline]
    pub const fn raw(self) -> u64 {
        self.0
    }
}

impl fmt::Debug for AddressLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AddressLimit({self})")
    }
}

impl fmt::Display for AddressLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

#[inline]
const fn power_of_two(bytes: u64) -> Option<NonZeroU64> {
    if bytes.is_power_of_two() { NonZeroU64::new(bytes) } else { None }
}

/// A segment boundary: no mapping may cross a multiple of this power of two (in bytes).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Boundary(NonZeroU64);

impl Boundary {
    /// The boundary of `bytes`, a power of two; `None` for anything else.
    #[inline]
    pub const fn new(bytes: u64) -> Option<Self> {
        match power_of_two(bytes) {
            Some(bytes) => Some(Self(bytes)),
            None => None,
        }
    }

    /// The boundary in bytes.
    #[inline]
    pub const fn bytes(self) -> u64 {
        self.0.get()
    }

    /// Whether `len` bytes at `base` cross a multiple of the boundary.
    #[inline]
    pub const fn crossed_by(self, base: u64, len: u64) -> bool {
        let within = base & (self.bytes() - 1);
        len > self.bytes() - within
    }
}

/// The line of a CPU's caches in bytes: what is written back, or thrown away, as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheLine(NonZeroU64);

impl CacheLine {
    /// 64 bytes, as nearly every CPU has it.
    pub const USUAL: Self = match Self::new(64) {
        Some(line) => line,
        None => unreachable!(),
    };

    /// The line of `bytes`, a power of two; `None` for anything else.
    #[inline]
    pub const fn new(bytes: u64) -> Option<Self> {
        match power_of_two(bytes) {
            Some(bytes) => Some(Self(bytes)),
            None => None,
        }
    }

    /// The line in bytes.
    #[inline]
    pub const fn bytes(self) -> u64 {
        self.0.get()
    }
}

/// A power of two of which an address or a length has to be a multiple, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Alignment(NonZeroU64);

impl Alignment {
    /// Any byte.
    pub const NONE: Self = match Self::new(1) {
        Some(align) => align,
        None => unreachable!(),
    };

    /// The alignment of `bytes`, a power of two; `None` for anything else.
    #[inline]
    pub const fn new(bytes: u64) -> Option<Self> {
        match power_of_two(bytes) {
            Some(bytes) => Some(Self(bytes)),
            None => None,
        }
    }

    /// The alignment in bytes.
    #[inline]
    pub const fn bytes(self) -> u64 {
        self.0.get()
    }

    /// Whether any number will do.
    #[inline]
    pub const fn is_none(self) -> bool {
        self.bytes() == 1
    }

    /// Whether `number` is a multiple of it.
    #[inline]
    pub const fn divides(self, number: u64) -> bool {
        number & (self.bytes() - 1) == 0
    }
}

impl Default for Alignment {
    fn default() -> Self {
        Self::NONE
    }
}

/// Low address bits that a bounce has to keep from the original, as NVMe needs them: a mask of
/// ones at the bottom (0 = none, 0xfff = the offset in a 4 KiB page).
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct AlignMask(u64);

impl fmt::Debug for AlignMask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AlignMask({:#x})", self.0)
    }
}

impl AlignMask {
    /// No bit has to be kept.
    pub const NONE: Self = Self(0);

    /// The mask `mask`; `None` unless it is a run of ones from bit 0 (or 0).
    #[inline]
    pub const fn new(mask: u64) -> Option<Self> {
        if mask & mask.wrapping_add(1) == 0 { Some(Self(mask)) } else { None }
    }

    /// The mask as a number.
    #[inline]
    pub const fn raw(self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use std::format;

    use super::*;

    #[test]
    fn masks_are_last_addresses() {
        assert_eq!(AddressLimit::bits(32).raw(), 0xffff_ffff);
        assert_eq!(AddressLimit::bits(64), AddressLimit::NONE);
        assert_eq!(AddressLimit::bits(99), AddressLimit::NONE);
        assert_eq!(AddressLimit::bits(0).raw(), 0);
    }

    #[test]
    fn a_boundary_is_crossed_by_the_first_byte_past_it() {
        let boundary = Boundary::new(0x1_0000).unwrap();
        assert!(!boundary.crossed_by(0x0, 0x1_0000));
        assert!(boundary.crossed_by(0x1, 0x1_0000));
        assert!(!boundary.crossed_by(0x2_fff0, 0x10));
        assert!(boundary.crossed_by(0x2_fff0, 0x11));
        assert!(!boundary.crossed_by(u64::MAX, 1));
        assert!(Boundary::new(3).is_none() && Boundary::new(0).is_none());
    }

    #[test]
    fn an_align_mask_is_a_run_of_ones_from_the_bottom() {
        assert!(AlignMask::new(0).is_some() && AlignMask::new(0xfff).is_some());
        assert!(AlignMask::new(u64::MAX).is_some());
        assert!(AlignMask::new(0xff0).is_none());
    }

    #[test]
    fn limits_are_told_in_hexadecimal() {
        assert_eq!(format!("{}", AddressLimit::bits(32)), "0xffffffff");
        assert_eq!(format!("{:?}", AddressLimit::last(0xfff)), "AddressLimit(0xfff)");
        assert_eq!(format!("{:?}", AlignMask::new(0x1ff).unwrap()), "AlignMask(0x1ff)");
    }
}
