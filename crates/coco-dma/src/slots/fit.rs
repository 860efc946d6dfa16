//! Where a run fits into one word of the bitmap: pure arithmetic on bits.

use crate::addr::AlignMask;
use crate::addr::Placements;
use crate::addr::SLOT;
use crate::word::Word;

/// What a run has to be like, where that is the same in every word: the slots, and where in a word
/// it may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Slots; more than a word has bits lie in several.
    pub(super) count: usize,
    /// The bits of every word at which it may begin.
    pub(super) starts: usize,
    /// The last slot of all at which it may begin.
    pub(super) last: usize,
    /// How far into its first slot it begins, in bytes.
    pub(super) within: usize,
}

/// For a grid of 2^n slots: the bits of a word that are on it, from bit 0 on.
#[expect(clippy::indexing_slicing, reason = "the compiler evaluates it")]
const GRIDS: [usize; Word::BITS.trailing_zeros() as usize + 1] = {
    let mut grids = [!0; Word::BITS.trailing_zeros() as usize + 1];
    let mut power = 0;
    while power < grids.len() {
        let mut bit = 0;
        grids[power] = 0;
        while bit < Word::BITS {
            grids[power] |= 1 << bit;
            bit += 1 << power;
        }
        power += 1;
    }
    grids
};

impl Shape {
    /// The shape of a run for `len` bytes (not 0) in slots of [`SLOT`] bytes of a pool that is seen
    /// from `base` on, where the low bits of `original` under `keep` are kept. `None` where `keep` is
    /// wider than a word.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "less than `keep`, which is a word wide")]
    pub(crate) fn keeping(base: u64, len: usize, original: u64, keep: AlignMask) -> Option<Self> {
        const UNIT: usize = SLOT as usize;
        let keep = keep.raw();
        let first = original.wrapping_sub(base) & keep;
        let within = first as usize % UNIT;
        let last = len.checked_sub(1)?;
        let starts = if keep < SLOT {
            !0
        } else {
            let power = keep.trailing_ones() - SLOT.trailing_zeros();
            GRIDS.get(power as usize)?.checked_shl((first / SLOT) as u32)?
        };
        // Past the end of the pool no slot is ever free.
        Some(Self { count: last.checked_add(within)? / UNIT + 1, starts, last: usize::MAX, within })
    }

    /// Its slots.
    #[inline]
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// The shape of a run at one of `places`, in slots of 2^`shift` bytes. `None` where it is
    /// longer than a word has bits, or its places are not alike in every word.
    #[inline]
    pub(super) fn of(places: &Placements, shift: u32) -> Option<Self> {
        let (first, stride) = places.grid()?;
        let count = places.units_at(first, shift);
        let power = stride.trailing_zeros().checked_sub(shift)?;
        let grid = *GRIDS.get(power as usize)?;
        if count > Word::BITS as u64 {
            return None;
        }
        #[expect(clippy::cast_possible_truncation, reason = "smaller than a slot, a grid, a word")]
        let (within, bit, count) =
            ((first & ((1 << shift) - 1)) as usize, (first >> shift) as u32, count as usize);
        // What is past the end of memory is past every slot.
        let last = places.last().saturating_sub(within as u64) >> shift;
        let last = usize::try_from(last).unwrap_or(usize::MAX);
        // The grid is at most a word wide, so that the first place is in the first word.
        Some(Self { count, starts: grid.checked_shl(bit)?, last, within })
    }

    /// The first slot from `slot` on at which the run may begin.
    pub(super) fn next(&self, slot: usize) -> Option<usize> {
        let (word, bit) = (slot / Word::BITS, slot % Word::BITS);
        let here = self.starts >> bit << bit;
        let (word, starts) = if here != 0 { (word, here) } else { (word + 1, self.starts) };
        let first = word.checked_mul(Word::BITS)?.checked_add(starts.trailing_zeros() as usize)?;
        (first <= self.last).then_some(first)
    }

    /// The lowest bit of `free` at which the run fits, by its slots and its grid.
    #[inline]
    pub(super) fn find(&self, free: usize) -> Option<u32> {
        let fits = starts(free, self.count) & self.starts;
        (fits != 0).then(|| fits.trailing_zeros())
    }
}

/// The bits at which `count` ones (1 to all) in a row begin.
#[inline]
pub(super) fn starts(mut ones: usize, count: usize) -> usize {
    let mut have = 1;
    while have < count {
        let more = have.min(count - have);
        ones &= ones >> more;
        have += more;
    }
    ones
}

/// The longest row of ones.
pub(super) fn longest(mut ones: usize) -> usize {
    if ones == !0 {
        return Word::BITS;
    }
    let mut length = 0;
    while ones != 0 {
        ones &= ones >> 1;
        length += 1;
    }
    length
}

/// `count` ones (1 to all) from `bit` on, as far as the word goes.
#[inline]
pub(super) const fn run(bit: u32, count: usize) -> usize {
    (!0 >> (Word::BITS - count)) << bit
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::Constraints;

    #[test]
    fn rows_of_ones() {
        assert_eq!(starts(0b0111_0110, 2), 0b0011_0010);
        assert_eq!(starts(0b0111_0110, 3), 0b0001_0000);
        assert_eq!((starts(!0, Word::BITS), starts(!0 >> 1, Word::BITS)), (1, 0));
        assert_eq!((longest(0), longest(!0), longest(0b0110_1110)), (0, Word::BITS, 3));
        assert_eq!((run(3, 2), run(0, Word::BITS)), (0b1_1000, !0));
    }

    #[test]
    fn a_shape_is_where_the_places_are() {
        let shift = SLOT.trailing_zeros();
        let keep = AlignMask::new(0xfff).unwrap();
        for (base, constraints) in [
            (0x1000, Constraints::of(1)),
            (0x1800, Constraints { keep, original: 0x10a00, ..Constraints::of(5000) }),
            (0x1000, Constraints { align: 0x8000, ..Constraints::of(0x3000) }),
            (0x2000, Constraints { align: 0x2_0000, ..Constraints::of(SLOT) }),
            (0x1000, Constraints::of(64 * SLOT)),
        ] {
            // Not whole slots: as far as a device reaches.
            let places = Placements::new(base, 150 * SLOT - 0x500, &constraints).unwrap();
            let Some(shape) = Shape::of(&places, shift) else {
                assert!(places.slots_at(places.lowest()) > Word::BITS as u64, "{constraints:?}");
                continue;
            };
            for slot in 0..150usize {
                let at = slot as u64 * SLOT + shape.within as u64;
                let bit = 1usize << (slot % Word::BITS);
                let here = shape.starts & bit != 0 && slot <= shape.last;
                assert_eq!(here, places.from(at) == Some(at), "{constraints:?} in slot {slot}");
            }
            assert_eq!(shape.count as u64, places.slots_at(places.lowest()));
            let len = usize::try_from(constraints.len).unwrap();
            if let Some(same) = Shape::keeping(base, len, constraints.original, constraints.keep)
                && constraints.align == 1
            {
                assert_eq!(Shape { last: shape.last, ..same }, shape, "{constraints:?}");
            }
        }
        // A boundary inside the pool, and a grid wider than a word.
        let boundary = crate::addr::Boundary::new(0x8000);
        let places =
            Placements::new(0, 150 * SLOT, &Constraints { boundary, ..Constraints::of(1) })
                .unwrap();
        assert_eq!(Shape::of(&places, shift), None);
        let wide = Constraints { align: Word::BITS as u64 * SLOT * 2, ..Constraints::of(1) };
        assert_eq!(Shape::of(&Placements::new(0, 150 * SLOT, &wide).unwrap(), shift), None);
    }
}
