//! The truth that all CPUs share: a bit a slot, set while the slot is in use or kept by a CPU for
//! its next maps, and a byte for every word of bits that says how long a free run in the word may
//! be. A search looks at the bytes, eight words of the bitmap at once, so that it costs next to
//! nothing to find out that there is no room.
//!
//! The byte is never too small for long: whoever frees slots raises it, and whoever looked in vain
//! lowers it and then looks at the word again. Of the two, at least one sees the other (both sides
//! write first and read then, in the one order of `SeqCst`), so that no free slot stays hidden.

mod long;

use super::fit;
use super::fit::Shape;
use crate::waiters::Listener;
use crate::waiters::Waiters;
use crate::word::Ordering;
use crate::word::Word;
use crate::word::fence_for_models;

/// Bytes in a word: the words of bits that one word of the summary tells of.
const PER_WORD: usize = Word::BITS / 8;
/// One in every byte.
const ONES: usize = !0 / 0xff;
/// The top bit of every byte, which no length needs.
const TOPS: usize = ONES << 7;

/// Which slots are free.
#[derive(Debug)]
pub(super) struct Bitmap<'m> {
    bits: &'m [Word],
    /// The longest free run of each word of `bits`, or more.
    sums: &'m [Word],
    capacity: usize,
    /// Who waits for free slots.
    pub(super) waiters: Waiters<'m>,
}

impl<'m> Bitmap<'m> {
    /// Words of storage for this many slots.
    pub(super) const fn words(slots: usize) -> usize {
        let bits = slots.div_ceil(Word::BITS);
        bits + bits.div_ceil(PER_WORD)
    }

    /// So many slots, all taken; and the storage that is left.
    pub(super) fn new(capacity: usize, words: &'m [Word]) -> Option<(Self, &'m [Word])> {
        let count = capacity.div_ceil(Word::BITS);
        let (bits, rest) = words.split_at_checked(count)?;
        let (sums, rest) = rest.split_at_checked(count.div_ceil(PER_WORD))?;
        // What the last word has beyond the capacity stays in use for ever.
        for word in bits {
            word.0.store(!0, Ordering::Relaxed);
        }
        for word in sums {
            word.0.store(0, Ordering::Relaxed);
        }
        Some((Self { bits, sums, capacity, waiters: Waiters::new(Listener(None)) }, rest))
    }

    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }

    /// Words of bits.
    pub(super) fn len(&self) -> usize {
        self.bits.len()
    }

    /// The free bits of a word, at some moment.
    #[inline]
    pub(super) fn free(&self, index: usize) -> usize {
        self.bits.get(index).map_or(0, |word| !word.0.load(Ordering::Relaxed))
    }

    /// Takes all free bits of a word.
    pub(super) fn claim_all(&self, index: usize) -> usize {
        let Some(word) = self.bits.get(index) else { return 0 };
        // Acquire: pairs with the release of the last holders.
        !word.0.fetch_or(!0, Ordering::Acquire)
    }

    /// Takes the lowest run of this shape that lies inside a word.
    pub(super) fn claim_shape(&self, shape: &Shape) -> Option<usize> {
        let mut from = 0;
        loop {
            let index = self.next(from, shape.count)?;
            let start = index * Word::BITS;
            if start > shape.last {
                return None;
            }
            if let Some(bit) = self.claim_in(index, shape) {
                return Some(start + bit as usize);
            }
            from = index + 1;
        }
    }

    /// The lowest word from `from` on that seems to have room for a run of this shape.
    pub(super) fn with_capacity(&self, from: usize, shape: &Shape) -> Option<usize> {
        let mut from = from;
        loop {
            let index = self.next(from, shape.count)?;
            if shape.find(self.free(index)).is_some() {
                return (index * Word::BITS <= shape.last).then_some(index);
            }
            self.correct(index);
            from = index + 1;
        }
    }

    /// The lowest place of a run of `count` slots, in one word or across several, that is found
    /// free: `place` says, for a slot, the first at which the run may begin from there on. Takes
    /// it.
    pub(super) fn claim_run(
        &self,
        count: usize,
        place: impl Fn(usize) -> Option<usize>,
    ) -> Option<usize> {
        // A run that covers no whole word has half of itself in one.
        let need = count.div_ceil(2).min(Word::BITS);
        let (mut scan, mut from) = (0, 0);
        loop {
            let index = self.next(scan, need)?;
            if fit::starts(self.free(index), need) == 0 {
                self.correct(index);
                scan = index + 1;
                continue;
            }
            // It may begin in the word before this one.
            let first = place(from.max(index.saturating_sub(1) * Word::BITS))?;
            // Places ascend: behind one that leaves the pool there is none that does not.
            if first.checked_add(count).is_none_or(|end| end > self.capacity) {
                return None;
            }
            match self.claim(first, count) {
                Ok(()) => return Some(first),
                Err(taken) => from = taken + 1,
            }
            scan = from / Word::BITS;
        }
    }

    /// Takes `count` slots from `first`, or says which slot, the highest of those seen, is in
    /// use.
    pub(super) fn claim(&self, first: usize, count: usize) -> Result<(), usize> {
        if first.checked_add(count).is_none_or(|end| end > self.capacity) {
            return Err(self.capacity);
        }
        // A look first: what cannot be had is not touched.
        let taken = self.parts(first, count).filter_map(|(index, mask)| {
            let taken = !self.free(index) & mask;
            (taken != 0).then(|| index * Word::BITS + highest(taken))
        });
        if let Some(taken) = taken.last() {
            return Err(taken);
        }
        self.claim_found(first, count)
    }

    /// The same for slots that were free just now.
    fn claim_found(&self, first: usize, count: usize) -> Result<(), usize> {
        for (index, mask) in self.parts(first, count) {
            let Err(taken) = self.claim_bits(index, mask) else { continue };
            let claimed = (index * Word::BITS).saturating_sub(first);
            self.release(first, claimed);
            return Err(index * Word::BITS + taken);
        }
        Ok(())
    }

    /// Frees slots that are taken.
    pub(super) fn release(&self, first: usize, count: usize) {
        let freed = self.release_words(first, count);
        for (index, mask) in self.parts(first + freed, count - freed) {
            self.clear_bits(index, mask);
        }
        self.waiters.given();
    }

    /// Frees bits of one word.
    pub(super) fn release_bits(&self, index: usize, mask: usize) {
        self.clear_bits(index, mask);
        self.waiters.given();
    }

    fn clear_bits(&self, index: usize, mask: usize) {
        let Some(word) = self.bits.get(index) else { return };
        // Release: what this owner did with the memory happens before the next one's claim.
        let before = word.0.fetch_and(!mask, Ordering::SeqCst);
        fence_for_models();
        self.raise(index, !before | mask);
    }

    /// Claims the lowest run of this shape in one word.
    fn claim_in(&self, index: usize, shape: &Shape) -> Option<u32> {
        let word = self.bits.get(index)?;
        let mut seen = word.0.load(Ordering::Relaxed);
        loop {
            let Some(bit) = shape.find(!seen) else {
                self.correct(index);
                return None;
            };
            if index * Word::BITS + bit as usize > shape.last {
                return None;
            }
            let taken = seen | fit::run(bit, shape.count);
            // Acquire: pairs with the release of the last owner. A failure saw another CPU succeed.
            match word.0.compare_exchange_weak(seen, taken, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return Some(bit),
                Err(now) => seen = now,
            }
        }
    }

    /// Sets the bits of `mask`, all or none; else the number of the highest that is set already.
    fn claim_bits(&self, index: usize, mask: usize) -> Result<(), usize> {
        let Some(word) = self.bits.get(index) else { return Err(0) };
        let mut seen = word.0.load(Ordering::Relaxed);
        loop {
            if seen & mask != 0 {
                return Err(highest(seen & mask));
            }
            // As above.
            let taken = seen | mask;
            match word.0.compare_exchange_weak(seen, taken, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return Ok(()),
                Err(now) => seen = now,
            }
        }
    }

    /// The lowest word from `from` on that may have a free run of `need` slots.
    fn next(&self, from: usize, need: usize) -> Option<usize> {
        let wanted = need * ONES;
        let mut lanes = !0 << (from % PER_WORD * 8);
        for (group, sum) in self.sums.iter().enumerate().skip(from / PER_WORD) {
            // A byte keeps its top bit if it is not smaller; none borrows from the next.
            let enough = ((sum.0.load(Ordering::Relaxed) | TOPS) - wanted) & TOPS & lanes;
            if enough != 0 {
                return Some(group * PER_WORD + enough.trailing_zeros() as usize / 8);
            }
            lanes = !0;
        }
        None
    }

    /// Makes the summary of a word as large as its free bits allow, where it is smaller; says
    /// whether it was.
    fn raise(&self, index: usize, free: usize) -> bool {
        let Some(sum) = self.sums.get(index / PER_WORD) else { return false };
        let shift = index % PER_WORD * 8;
        let mut seen = sum.0.load(Ordering::SeqCst);
        let byte = |sum: usize| sum >> shift & 0xff;
        // Mostly this is all there is to do: it was never found too small.
        if byte(seen) >= Word::BITS {
            return false;
        }
        let longest = fit::longest(free);
        while byte(seen) < longest {
            let raised = seen & !(0xff << shift) | longest << shift;
            match sum.0.compare_exchange_weak(seen, raised, Ordering::SeqCst, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(now) => seen = now,
            }
        }
        false
    }

    /// Makes the summary of a word what its free bits say, where it promises more.
    #[cold]
    fn correct(&self, index: usize) {
        let Some(sum) = self.sums.get(index / PER_WORD) else { return };
        let shift = index % PER_WORD * 8;
        let seen = sum.0.load(Ordering::Relaxed);
        let longest = fit::longest(self.free(index));
        if seen >> shift & 0xff <= longest {
            return;
        }
        let lowered = seen & !(0xff << shift) | longest << shift;
        let lower = sum.0.compare_exchange(seen, lowered, Ordering::SeqCst, Ordering::Relaxed);
        if lower.is_ok() {
            fence_for_models();
            // Who freed some of it meanwhile may have found the byte large enough.
            let free = self.bits.get(index).map_or(0, |word| !word.0.load(Ordering::SeqCst));
            if self.raise(index, free) {
                // Who freed it has told before it was to be seen.
                self.waiters.given();
            }
        }
    }

    /// The words that hold `count` slots from `first`, by number, each with the bits that are
    /// theirs.
    #[inline]
    fn parts(&self, first: usize, count: usize) -> impl Iterator<Item = (usize, usize)> + use<> {
        let (mut at, end) = (first, first + count);
        core::iter::from_fn(move || {
            if at >= end {
                return None;
            }
            let (index, low) = (at / Word::BITS, at % Word::BITS);
            let here = (end - at).min(Word::BITS - low);
            at += here;
            #[expect(clippy::cast_possible_truncation, reason = "a bit of a word")]
            Some((index, fit::run(low as u32, here)))
        })
    }
}

/// The number of the highest bit that is set.
fn highest(bits: usize) -> usize {
    Word::BITS - 1 - bits.leading_zeros() as usize
}
