//! What one CPU keeps for its next maps: some words of the bitmap, whose free bits it took all at
//! once and hands out by plain loads and stores. What is given back on another CPU goes to the
//! bitmap, where this one finds it again when it has nothing else.

use super::fit;
use super::fit::Shape;
use crate::word::Ordering;
use crate::word::Word;
use crate::word::store_over_exchanges;

/// Words of the bitmap that one CPU keeps at most; a word may be kept in one way alone.
#[cfg(not(loom))]
pub(super) const WAYS: usize = 16;
#[cfg(loom)]
pub(super) const WAYS: usize = 2;

/// Classes of lengths: 1 slot, 2, up to 4, and so on to a whole word.
const CLASSES: usize = Word::BITS.trailing_zeros() as usize + 1;

/// What one CPU keeps of a pool, in storage of the caller: a cache line or more of its own, so that
/// no two CPUs write the same. All zero at first.
#[derive(Debug)]
#[repr(C, align(128))]
pub struct Cache {
    /// 1 while somebody uses it.
    turn: Word,
    /// 1 while it may hold anything.
    filled: Word,
    /// A run of whole words and more that came back last: its first slot, and its slots; 0 where
    /// none is kept.
    long: (Word, Word),
    /// 1 while the turn is one for long.
    claimed: Word,
    /// For each class of lengths, the way whose word is the lowest that had room for it.
    hot: [Word; CLASSES],
    ways: [Way; WAYS],
}

/// A word that is kept.
#[derive(Debug)]
pub(super) struct Way {
    /// Its number and 1; 0 where none is kept.
    tag: Word,
    /// Its bits that are free, and this CPU's to give.
    free: Word,
}

impl Cache {
    /// An empty one.
    #[cfg(not(loom))]
    #[expect(clippy::new_without_default, reason = "a Default would not be const")]
    pub const fn new() -> Self {
        Self {
            turn: Word::new(),
            filled: Word::new(),
            long: (Word::new(), Word::new()),
            claimed: Word::new(),
            hot: [const { Word::new() }; CLASSES],
            ways: [const { Way { tag: Word::new(), free: Word::new() } }; WAYS],
        }
    }

    /// An empty one.
    #[cfg(loom)]
    #[expect(clippy::new_without_default, reason = "as above")]
    pub fn new() -> Self {
        let (turn, filled, claimed) = (Word::new(), Word::new(), Word::new());
        let way = |_| Way { tag: Word::new(), free: Word::new() };
        Self {
            turn,
            filled,
            long: (Word::new(), Word::new()),
            claimed,
            hot: core::array::from_fn(|_| Word::new()),
            ways: core::array::from_fn(way),
        }
    }

    /// The turn to use `ways` ways of it (a power of two, always the same), which is the cache with
    /// this number, until it is dropped; `None` while somebody else has it.
    #[inline]
    pub(super) fn enter(&self, number: usize, ways: usize) -> Option<CacheGuard<'_>> {
        // Acquire: pairs with the end of the last turn.
        if self.turn.0.swap(1, Ordering::Acquire) == 0 {
            Some(CacheGuard { cache: self, number, ways })
        } else {
            None
        }
    }

    /// Whether it may hold anything.
    pub(super) fn is_filled(&self) -> bool {
        self.filled.0.load(Ordering::Relaxed) != 0
    }

    /// Whether somebody has it for itself, and for long.
    pub(super) fn is_claimed(&self) -> bool {
        self.claimed.0.load(Ordering::Relaxed) != 0
    }

    /// The slots in it now; while its CPU takes and gives, those of some moment.
    pub(super) fn kept(&self) -> usize {
        let free = self.ways.iter().map(|way| way.free.0.load(Ordering::Relaxed));
        let short: usize = free.map(|free| free.count_ones() as usize).sum();
        short + self.long.1.0.load(Ordering::Relaxed)
    }
}

/// The class of a length, 1 to the bits of a word.
#[inline]
fn class(count: usize) -> usize {
    // Nearly all are of one slot.
    if count == 1 {
        return 0;
    }
    (usize::BITS - (count - 1).leading_zeros()) as usize
}

/// The use of a cache, by one thread at a time. It ends when this is dropped.
///
/// Every access is relaxed, and a plain load or store on any machine: whose turn it is is alone
/// here, and the next turn begins behind this one.
#[derive(Debug)]
pub(crate) struct CacheGuard<'c> {
    cache: &'c Cache,
    /// The number of the cache.
    number: usize,
    ways: usize,
}

impl CacheGuard<'_> {
    /// The number of the cache.
    #[inline]
    pub(crate) fn number(&self) -> usize {
        self.number
    }

    /// Makes this turn one for long, or ends that.
    pub(super) fn claim(&mut self, claimed: bool) {
        self.cache.claimed.0.store(usize::from(claimed), Ordering::Relaxed);
    }

    /// The lowest run of this shape in the word that had room for the last one.
    #[inline]
    pub(super) fn alloc(&mut self, shape: &Shape) -> Option<usize> {
        let hot = self.cache.hot.get(class(shape.count))?;
        self.alloc_way(hot.0.load(Ordering::Relaxed), shape)
    }

    /// The lowest word that is kept and has room for a run of this shape, and its way.
    #[inline(never)]
    pub(super) fn lowest(&self, shape: &Shape) -> Option<(usize, usize)> {
        let fits = |(number, way): (usize, &Way)| {
            shape.find(way.free())?;
            Some((way.tag().wrapping_sub(1), number))
        };
        self.cache.ways.iter().enumerate().filter_map(fits).min()
    }

    /// The lowest run of this shape in a way, which is in use for it from now on.
    pub(super) fn alloc_from(&mut self, way: usize, shape: &Shape) -> Option<usize> {
        let first = self.alloc_way(way, shape)?;
        self.cache.hot.get(class(shape.count))?.0.store(way, Ordering::Relaxed);
        Some(first)
    }

    #[inline]
    fn alloc_way(&mut self, number: usize, shape: &Shape) -> Option<usize> {
        let way = self.cache.ways.get(number)?;
        let bit = shape.find(way.free())?;
        // What has a free bit has a tag.
        let first = way.tag().wrapping_sub(1) * Word::BITS + bit as usize;
        if first > shape.last {
            return None;
        }
        way.set_free(way.free() & !fit::run(bit, shape.count)); // sabotage: fast-way
        Some(first)
    }

    /// The long run that is kept, if it is of this shape.
    #[inline]
    pub(super) fn alloc_long(&mut self, shape: &Shape) -> Option<usize> {
        let (first, count) = (&self.cache.long.0.0, &self.cache.long.1.0);
        let at = first.load(Ordering::Relaxed);
        let fits = count.load(Ordering::Relaxed) == shape.count && shape.starts & 1 != 0;
        if !fits || at > shape.last {
            return None;
        }
        count.store(0, Ordering::Relaxed);
        Some(at)
    }

    /// Keeps a run that is longer than a word, if there is room for it.
    #[inline(never)]
    fn put_long(&mut self, first: usize, count: usize) -> Put {
        let kept = &self.cache.long.1.0;
        if !first.is_multiple_of(Word::BITS)
            || count > self.ways * Word::BITS
            || kept.load(Ordering::Relaxed) != 0
        {
            return Put::Elsewhere;
        }
        self.cache.filled.0.store(1, Ordering::Relaxed);
        self.cache.long.0.0.store(first, Ordering::Relaxed);
        kept.store(count, Ordering::Relaxed);
        Put::Kept
    }

    /// Puts a run back, where its word is kept, or where it is a long one.
    #[inline]
    pub(super) fn put(&mut self, first: usize, count: usize) -> Put {
        if count > Word::BITS {
            return self.put_long(first, count);
        }
        let (word, bit) = (first / Word::BITS, first % Word::BITS);
        let number = word & (self.ways - 1);
        let Some(way) = self.cache.ways.get(number) else { return Put::Elsewhere };
        // sabotage: fast-other-cpu
        if bit + count > Word::BITS || way.tag() != word + 1 {
            return Put::Elsewhere;
        }
        #[expect(clippy::cast_possible_truncation, reason = "a bit of a word")]
        let free = way.free() | fit::run(bit as u32, count);
        way.set_free(free);
        let Some(hot) = self.cache.hot.get(class(count)) else { return Put::Kept };
        if hot.0.load(Ordering::Relaxed) == number {
            return Put::Kept;
        }
        self.put_second(way, number, hot)
    }

    /// A run came back to another word than the one in use for its length.
    fn put_second(&self, way: &Way, number: usize, hot: &Word) -> Put {
        let in_use = self.cache.ways.get(hot.0.load(Ordering::Relaxed));
        if in_use.is_none_or(|in_use| in_use.free() == 0 || way.tag() < in_use.tag()) {
            // Lowest address first, of those that have any.
            hot.0.store(number, Ordering::Relaxed);
        } else if way.free() == !0 {
            way.set_free(0);
            return Put::Whole(way.tag().wrapping_sub(1));
        }
        Put::Kept
    }

    /// Keeps the free bits of a word from now on, for a run of `count` slots first of all; answers
    /// the word that was kept in its place, and its bits, which are the caller's.
    pub(super) fn keep(
        &mut self,
        word: usize,
        free: usize,
        count: usize,
    ) -> Option<(usize, usize)> {
        self.cache.filled.0.store(1, Ordering::Relaxed);
        let number = word & (self.ways - 1);
        let way = self.cache.ways.get(number)?;
        self.cache.hot.get(class(count))?.0.store(number, Ordering::Relaxed);
        let (tag, rest) = (way.tag(), way.free());
        if tag == word + 1 {
            way.set_free(rest | free);
            return None;
        }
        way.tag.0.store(word + 1, Ordering::Relaxed);
        way.set_free(free);
        (rest != 0).then(|| (tag.wrapping_sub(1), rest))
    }

    /// Whether it may hold anything.
    pub(super) fn is_filled(&self) -> bool {
        self.cache.is_filled()
    }

    /// Empties it: gives away every word that has free bits, with those; answers with the long run,
    /// if one was kept, by its first slot and its slots.
    pub(super) fn empty(&mut self, mut give: impl FnMut(usize, usize)) -> Option<(usize, usize)> {
        for way in &self.cache.ways {
            let (tag, bits) = (way.tag(), way.free());
            // First it is not kept any more: `give` may call a listener, which may panic.
            way.tag.0.store(0, Ordering::Relaxed);
            way.set_free(0);
            if bits != 0 {
                give(tag.wrapping_sub(1), bits);
            }
        }
        self.cache.filled.0.store(0, Ordering::Relaxed);
        let (first, count) = (&self.cache.long.0.0, &self.cache.long.1.0);
        let long = (first.load(Ordering::Relaxed), count.load(Ordering::Relaxed));
        count.store(0, Ordering::Relaxed);
        (long.1 != 0).then_some(long)
    }
}

impl Way {
    #[inline]
    fn tag(&self) -> usize {
        self.tag.0.load(Ordering::Relaxed)
    }

    #[inline]
    fn free(&self) -> usize {
        self.free.0.load(Ordering::Relaxed)
    }

    #[inline]
    fn set_free(&self, bits: usize) {
        self.free.0.store(bits, Ordering::Relaxed);
    }
}

impl Drop for CacheGuard<'_> {
    #[inline]
    fn drop(&mut self) {
        // Release: what was done in this turn happens before the next one.
        store_over_exchanges(&self.cache.turn, 0, Ordering::Release);
    }
}

/// What became of a run that was put back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Put {
    /// It is kept.
    Kept,
    /// Its word is not kept here.
    Elsewhere,
    /// The word with this number is wholly free, and not kept any more.
    Whole(usize),
}
