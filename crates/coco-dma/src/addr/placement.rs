//! Where a mapping may lie in a pool: pure arithmetic, shared by `plan`, which asks whether it
//! fits at all, and by the pool, which looks for free slots.

use super::AlignMask;
use super::Alignment;
use super::Boundary;

/// The unit of a bounce pool in bytes (as Linux: `IO_TLB_SIZE`, `include/linux/swiotlb.h`).
pub const SLOT: u64 = 2048;

/// What a mapping asks of its place in a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Constraints {
    /// Length in bytes.
    pub len: u64,
    /// The address of the original, whose low bits under `keep` the place has to have too.
    pub original: u64,
    /// The low bits that have to be kept.
    pub keep: AlignMask,
    /// Alignment of the place in bytes, a power of two; bits kept by `keep` come on top of it.
    pub align: u64,
    /// The boundary that the place may not cross.
    pub boundary: Option<Boundary>,
}

impl Constraints {
    /// `len` bytes anywhere.
    pub const fn of(len: u64) -> Self {
        Self { len, original: 0, keep: AlignMask::NONE, align: 1, boundary: None }
    }
}

/// The places in one pool that meet [`Constraints`]: offsets `first`, `first + stride`, and so on, as
/// far as none crosses the boundary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placements {
    base: u64,
    pool_len: u64,
    len: u64,
    first: u64,
    stride: u64,
    /// None where the pool crosses none.
    boundary: Option<Boundary>,
}

impl Placements {
    /// The places in a pool of `pool_len` bytes that the device sees from `base` on. `None` where
    /// not even an empty pool has one.
    #[inline]
    pub const fn new(base: u64, pool_len: u64, constraints: &Constraints) -> Option<Self> {
        if constraints.len == 0
            || constraints.len > pool_len
            || base.checked_add(pool_len - 1).is_none()
        {
            return None;
        }
        if !constraints.align.is_power_of_two() {
            return None;
        }
        // Both are of the form 2^n - 1, so that the larger one holds the other.
        let modulus_mask = constraints.keep.raw() | (constraints.align - 1);
        let residue = constraints.original & constraints.keep.raw();
        let first = residue.wrapping_sub(base) & modulus_mask;
        let stride = stride(modulus_mask);
        let boundary = match constraints.boundary {
            // What no place in the pool can cross needs no look.
            Some(boundary) if boundary.crossed_by(base, pool_len) => constraints.boundary,
            _ => None,
        };
        let places = Self { base, pool_len, len: constraints.len, first, stride, boundary };
        match boundary {
            None if first <= pool_len - constraints.len => Some(places),
            None => None,
            Some(_) => match places.from(0) {
                Some(_) => Some(places),
                None => None,
            },
        }
    }

    /// The first place and the distance to the next, a power of two, where they are all alike;
    /// `None` where a boundary is in the way, or there is one place alone.
    #[inline]
    pub(crate) const fn grid(&self) -> Option<(u64, u64)> {
        if self.boundary.is_some() || self.stride == 0 {
            return None;
        }
        Some((self.first, self.stride))
    }

    /// The last offset at which the mapping does not leave the pool.
    #[inline]
    pub(crate) const fn last(&self) -> u64 {
        self.pool_len - self.len
    }

    /// How long a place is in bytes.
    #[inline]
    #[expect(clippy::len_without_is_empty, reason = "a place is never empty")]
    pub const fn len(&self) -> u64 {
        self.len
    }

    /// The longest mapping that has a place in an empty pool of `pool_len` bytes at `base` whatever
    /// the low bits of its original are; 0 where there is none. Of `keep` and `align` one at most is
    /// not none.
    pub(crate) fn longest(
        base: u64,
        pool_len: u64,
        keep: AlignMask,
        align: Alignment,
        boundary: Option<Boundary>,
    ) -> u64 {
        // The original's low bits say how far behind the base the first place lies: 0 to `kept`
        // bytes. What fits shrinks with that, and grows again only where the first place comes to
        // lie on a grid point or at a boundary; so the worst is the farthest, or the last one
        // before such a step.
        let kept = keep.raw();
        let steps = [stride(kept), boundary.map_or(0, Boundary::bytes)];
        let before = steps.into_iter().filter_map(|step| {
            let past = base.wrapping_add(kept).wrapping_add(1) & step.checked_sub(1)?;
            kept.checked_sub(past)
        });
        let fits = |first: u64, len| {
            let original = base.wrapping_add(first);
            let align = align.bytes();
            Self::new(base, pool_len, &Constraints { len, original, keep, align, boundary })
                .is_some()
        };
        let longest = |first| {
            // What fits, and what does not.
            let (mut low, mut high) = (0, pool_len.saturating_add(1));
            while high - low > 1 {
                let middle = low + (high - low) / 2;
                if fits(first, middle) { low = middle } else { high = middle }
            }
            low
        };
        before.chain([kept]).map(longest).min().unwrap_or(0)
    }

    /// The lowest place in an empty pool, as an offset in bytes.
    #[inline]
    pub const fn lowest(&self) -> u64 {
        match self.from(0) {
            Some(offset) => offset,
            None => self.first,
        }
    }

    /// The lowest place at `offset` or above; `None` where the pool ends before one.
    pub const fn from(&self, offset: u64) -> Option<u64> {
        let Some(place) = self.on_grid(offset) else { return None };
        let place = match self.boundary {
            Some(boundary) if self.crosses(boundary, place) => {
                // The first place in the next window: places lie alike in every window, so that
                // where this one crosses too, all do.
                let within = (self.base + place) & (boundary.bytes() - 1);
                let Some(window) = place.checked_add(boundary.bytes() - within) else {
                    return None;
                };
                let Some(next) = self.on_grid(window) else { return None };
                if self.crosses(boundary, next) {
                    return None;
                }
                next
            }
            _ => place,
        };
        if self.fits(place) { Some(place) } else { None }
    }

    /// The number of slots that a mapping at `offset` touches, the first one included.
    #[inline]
    pub const fn slots_at(&self, offset: u64) -> u64 {
        self.units_at(offset, SLOT.trailing_zeros())
    }

    /// The same in units of 2^`shift` bytes.
    #[inline]
    pub(crate) const fn units_at(&self, offset: u64, shift: u32) -> u64 {
        let within = offset & ((1 << shift) - 1);
        // A place has one byte at least.
        ((within + (self.len - 1)) >> shift) + 1
    }

    /// The lowest grid point at `offset` or above, were the pool endless; `None` past its end.
    const fn on_grid(&self, offset: u64) -> Option<u64> {
        let place = if offset <= self.first {
            self.first
        } else if self.stride == 0 {
            // A stride of 2^64: there is one place alone.
            return None;
        } else {
            // The stride is a power of two: no division.
            let rest = self.stride - 1;
            let Some(above) = (offset - self.first).checked_add(rest) else { return None };
            match self.first.checked_add(above & !rest) {
                Some(place) => place,
                None => return None,
            }
        };
        if self.fits(place) { Some(place) } else { None }
    }

    const fn fits(&self, place: u64) -> bool {
        place <= self.last()
    }

    const fn crosses(&self, boundary: Boundary, place: u64) -> bool {
        boundary.crossed_by(self.base + place, self.len)
    }
}

/// How far apart places are that keep the low bits under `mask`, which is of the form 2^n - 1:
/// 2^n bytes, and no less than a slot. 0 stands for 2^64.
const fn stride(mask: u64) -> u64 {
    (mask | (SLOT - 1)).wrapping_add(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lowest(base: u64, pool_len: u64, constraints: &Constraints) -> Option<u64> {
        Placements::new(base, pool_len, constraints).map(|places| places.lowest())
    }

    #[test]
    fn an_empty_pool_gives_its_base() {
        assert_eq!(lowest(0x9000_0000, 0x400_0000, &Constraints::of(4096)), Some(0));
        assert_eq!(lowest(0x9000_0000, 4096, &Constraints::of(4097)), None);
        assert_eq!(lowest(0x9000_0000, 4096, &Constraints::of(0)), None);
    }

    #[test]
    fn a_pool_may_end_with_the_last_byte_and_not_past_it() {
        assert_eq!(lowest(u64::MAX - 0xfff, 0x1000, &Constraints::of(0x1000)), Some(0));
        assert_eq!(lowest(u64::MAX - 0xfff, 0x1001, &Constraints::of(0x1000)), None);
    }

    #[test]
    fn low_bits_are_kept() {
        let keep = AlignMask::new(0xfff).unwrap();
        let constraints = Constraints { original: 0x3000_0e00, keep, ..Constraints::of(6000) };
        assert_eq!(lowest(0x400_0000, 0x10_0000, &constraints), Some(0xe00));
        // A pool that is not aligned to the mask itself.
        assert_eq!(lowest(0x400_0800, 0x10_0000, &constraints), Some(0x600));
        assert_eq!(lowest(0x400_0800, 0x600 + 5999, &constraints), None);
    }

    #[test]
    fn a_boundary_moves_the_place_to_the_next_window() {
        let boundary = Boundary::new(0x1_0000);
        let constraints = Constraints { boundary, ..Constraints::of(0x1_0000) };
        assert_eq!(lowest(0x400_8000, 0x10_0000, &constraints), Some(0x8000));
        let constraints = Constraints { boundary, ..Constraints::of(0x1_0001) };
        assert_eq!(lowest(0x400_0000, 0x10_0000, &constraints), None);
        let keep = AlignMask::new(0xfff).unwrap();
        let constraints =
            Constraints { boundary, original: 0x800, keep, ..Constraints::of(0xf900) };
        assert_eq!(lowest(0x400_0000, 0x10_0000, &constraints), None);
    }

    #[test]
    fn the_lowest_place_is_what_a_search_finds() {
        let mut found = 0;
        for base in [0x1000u64, 0x1800, 0x1c00, 0xffff_0000] {
            for pool_len in [0x800u64, 0x3000, 0x9000] {
                for len in [1u64, 0x700, 0x801, 0x1000, 0x2001] {
                    for mask in [0u64, 0x1ff, 0x7ff, 0xfff, 0x3fff] {
                        for original in [0u64, 0x123, 0xa00, 0x3800] {
                            for boundary in [0u64, 0x800, 0x1000, 0x4000] {
                                for align in [1u64, 0x1000] {
                                    let constraints = Constraints {
                                        len,
                                        original,
                                        keep: AlignMask::new(mask).unwrap(),
                                        align,
                                        boundary: Boundary::new(boundary),
                                    };
                                    let got = lowest(base, pool_len, &constraints);
                                    assert_eq!(
                                        got,
                                        search(base, pool_len, &constraints),
                                        "{constraints:?}"
                                    );
                                    found += usize::from(got.is_some());
                                }
                            }
                        }
                    }
                }
            }
        }
        assert!(found > 1000, "{found}");
    }

    #[test]
    fn the_longest_mapping_fits_whatever_its_low_bits_and_no_longer_one_does() {
        for base in [0u64, 0x1000, 0x1c00, 0x1234, 0xffff_0000] {
            for pool_len in [1u64, 0x800, 0x2fff, 0x9000] {
                for mask in [0u64, 1, 0x1ff, 0x7ff, 0xfff, 0x3fff] {
                    for boundary in [0u64, 4, 0x800, 0x1000, 0x4000] {
                        let keep = AlignMask::new(mask).unwrap();
                        let boundary = Boundary::new(boundary);
                        let fits = |len| {
                            (0..=mask).all(|original| {
                                let constraints = Constraints {
                                    original,
                                    keep,
                                    boundary,
                                    ..Constraints::of(len)
                                };
                                Placements::new(base, pool_len, &constraints).is_some()
                            })
                        };
                        let longest =
                            Placements::longest(base, pool_len, keep, Alignment::NONE, boundary);
                        assert!(longest == 0 || fits(longest), "{base:#x} {pool_len:#x} {keep:?}");
                        assert!(!fits(longest + 1), "{base:#x} {pool_len:#x} {keep:?}");
                    }
                }
            }
        }
        assert_eq!(
            Placements::longest(0x1000, 0x1000, AlignMask::NONE, Alignment::NONE, None),
            0x1000
        );
        let all = AlignMask::new(u64::MAX).unwrap();
        assert_eq!(
            Placements::longest(0x1000, 0x1000, all, Alignment::NONE, None),
            0,
            "of 2^64 places one is there"
        );
    }

    #[test]
    fn a_place_knows_its_length_and_touches_slots_in_part() {
        let places = Placements::new(0, 0x10_0000, &Constraints::of(0x801)).unwrap();
        assert_eq!(places.len(), 0x801);
        assert_eq!([0, 0x7fe, 0x7ff, 0x800].map(|offset| places.slots_at(offset)), [2, 2, 2, 2]);
        let places = Placements::new(0, 0x10_0000, &Constraints::of(2)).unwrap();
        assert_eq!([0, 0x7fe, 0x7ff, 0x800].map(|offset| places.slots_at(offset)), [1, 1, 2, 1]);
    }

    /// What `Placements` computes, found by looking at every place.
    fn search(base: u64, pool_len: u64, constraints: &Constraints) -> Option<u64> {
        let low = constraints.keep.raw().max(constraints.align - 1);
        let want = constraints.original & constraints.keep.raw();
        let start = (0..=low).find(|offset| (base + offset) & low == want)?;
        (start..pool_len)
            .step_by(usize::try_from((low + 1).max(SLOT)).unwrap())
            .filter(|offset| offset + constraints.len <= pool_len)
            .find(|offset| {
                constraints.boundary.is_none_or(|b| !b.crossed_by(base + offset, constraints.len))
            })
    }
}
