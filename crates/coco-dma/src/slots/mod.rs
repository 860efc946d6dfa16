//! The slot allocator, of pools and of IOMMU domains alike: a bitmap, one bit a slot, lock-free,
//! lowest address first; a word a slot that says whose run starts there; and, for pools, what each
//! CPU keeps for its next maps. What a slot is long is the owner's matter: 2 KiB in pools, a page
//! in domains.
//!
//! A run inside one word of the bitmap is claimed in one step. A longer one is claimed word by
//! word in ascending order; whoever meets a taken bit gives back what it claimed so far and goes
//! on behind it. Since everybody climbs, of several that meet the one that stands highest always
//! gets on: no lock, no waiting for another CPU.

mod alloc;
mod bitmap;
mod cache;
mod fit;
#[cfg(all(test, loom))]
pub(crate) mod models;
mod owners;
mod run;
#[cfg(all(test, not(loom)))]
mod tests;
mod wait;

pub use cache::Cache;
pub(crate) use cache::CacheGuard;
pub(crate) use fit::Shape;
pub(crate) use owners::EndState;
pub use run::Full;
pub use run::HeldRun;
pub(crate) use run::Owner;
pub use run::SlotRun;
pub(crate) use run::SlotsError;

use crate::word::Ordering;
use crate::word::Word;
use bitmap::Bitmap;
use cache::WAYS;

/// The slots of one pool or domain.
#[derive(Debug)]
pub(crate) struct Slots<'m> {
    map: Bitmap<'m>,
    /// At the first slot of a run that is held, whose it is and how long.
    marks: &'m [Word],
    /// Slots that are not free in the bitmap: in use, or kept by a CPU.
    out: &'m Word,
    /// The most that ever were.
    most_out: &'m Word,
    /// The most that were seen in use, where CPUs keep some.
    most_used: &'m Word,
    /// What each CPU keeps.
    caches: &'m [Cache],
    /// How much of it is used, a power of two; 0 where nothing is kept.
    ways: usize,
    /// A slot is 2^shift bytes long.
    shift: u32,
}

/// Words beside the bitmap and the marks: slots out, the most that ever were, and the most in use.
const COUNTERS: usize = 3;

/// All CPUs together keep at most one in so many words of the bitmap, and as much again in long
/// runs.
#[cfg(not(loom))]
const SHARE_KEPT: usize = 4;
#[cfg(loom)]
const SHARE_KEPT: usize = 1;

impl<'m> Slots<'m> {
    /// Words of storage for `len` bytes in slots of `unit`, which is not 0.
    #[expect(clippy::cast_possible_truncation, reason = "half a word fits a word")]
    pub(crate) const fn words(len: u64, unit: u64) -> usize {
        let slots = len / unit;
        if slots > run::HALF as u64 {
            return usize::MAX;
        }
        let slots = slots as usize;
        Bitmap::words(slots) + slots + COUNTERS
    }

    /// Slots of `unit` bytes, a power of two, all closed: nobody can take one before
    /// [`open`](Self::open).
    pub(crate) fn new(len: u64, unit: u64, words: &'m [Word]) -> Result<Self, SlotsError> {
        let slots = len.checked_div(unit).ok_or(SlotsError::TooSmall)?;
        let capacity = usize::try_from(slots).map_err(|_| SlotsError::TooLarge)?;
        // Runs know their places in bytes.
        if capacity > run::HALF || usize::try_from(len).is_err() {
            return Err(SlotsError::TooLarge);
        }
        if capacity == 0 {
            return Err(SlotsError::TooSmall);
        }
        let wanted = Self::words(len, unit);
        let storage = SlotsError::Storage { wanted, given: words.len() };
        let ([out, most_out, most_used, rest @ ..], true) = (words, words.len() >= wanted) else {
            return Err(storage);
        };
        let (map, rest) = Bitmap::new(capacity, rest).ok_or(storage)?;
        let marks = rest.get(..capacity).ok_or(storage)?;
        for word in [out, most_out, most_used].into_iter().chain(marks) {
            word.0.store(0, Ordering::Relaxed);
        }
        let shift = unit.trailing_zeros();
        Ok(Self { map, marks, out, most_out, most_used, caches: &[], ways: 0, shift })
    }

    /// The same with a cache for each CPU, all empty; a pool that is too small for so many keeps
    /// nothing.
    pub(crate) fn with_caches(self, caches: &'m [Cache]) -> Self {
        self.with_ways(caches, 0)
    }

    /// The same, where each CPU keeps at least so many words of the bitmap, whatever that leaves.
    pub(crate) fn with_ways(self, caches: &'m [Cache], least: usize) -> Self {
        let each = self.map.len().checked_div(caches.len().saturating_mul(SHARE_KEPT));
        let each = each.unwrap_or(0).max(least);
        let ways = each.checked_ilog2().map_or(0, |power| 1 << power);
        Self { caches, ways: ways.min(WAYS), ..self }
    }

    /// Whether CPUs keep slots of it.
    #[cfg(test)]
    fn keeps(&self) -> bool {
        self.ways > 0
    }

    /// Opens the pool: all slots are free.
    pub(crate) fn open(&self) {
        self.map.release(0, self.capacity());
    }

    /// Closes the pool, if no slot of it is in use; else nothing changes. While a CPU has its
    /// cache for itself alone the pool stays open.
    pub(crate) fn close(&self) -> bool {
        // A look first: to claim what is free and give it back again would make a map that comes
        // in between find the pool full.
        if self.used() != 0 {
            return false;
        }
        self.empty_caches();
        self.map.claim(0, self.capacity()).is_ok()
    }

    pub(crate) fn capacity(&self) -> usize {
        self.map.capacity()
    }

    /// Slots in use; while other threads take and give, the number of some moment.
    pub(crate) fn used(&self) -> usize {
        let kept: usize = self.caches.iter().map(Cache::kept).sum();
        let used = self.out.0.load(Ordering::Relaxed).saturating_sub(kept);
        if self.ways > 0 {
            raise(self.most_used, used);
        }
        used
    }

    /// The most slots that were ever in use at once, as far as anybody looked: nobody counts what
    /// a CPU takes of what it keeps.
    pub(crate) fn high_water(&self) -> usize {
        if self.ways == 0 {
            return self.most_out.0.load(Ordering::Relaxed);
        }
        self.used();
        self.most_used.0.load(Ordering::Relaxed)
    }

    /// So many slots are not free in the bitmap any more; whether more are out than ever before.
    fn count_out(&self, count: usize) -> bool {
        raise(self.most_out, self.out.0.fetch_add(count, Ordering::Relaxed).saturating_add(count))
    }

    /// The same for slots that are in use from now on.
    fn count_used(&self, count: usize) {
        if self.count_out(count) {
            self.look_at_used();
        }
    }

    /// Notes how many are in use, when more are out than ever before: seldom enough for a walk over
    /// what all CPUs keep.
    fn look_at_used(&self) {
        if self.ways > 0 {
            self.used();
        }
    }

    /// So many are free in it again. Called before they are, so that the number is never too
    /// large for what is free.
    fn count_in(&self, count: usize) {
        self.out.0.fetch_sub(count, Ordering::Relaxed);
    }

    /// Frees slots that are nobody's.
    fn release(&self, first: usize, count: usize) {
        self.count_in(count);
        self.map.release(first, count);
    }

    /// Frees slots of one word that are nobody's.
    fn release_bits(&self, word: usize, bits: usize) {
        self.count_in(bits.count_ones() as usize);
        self.map.release_bits(word, bits);
    }

    /// Gives back what CPUs keep; false where they kept nothing. Who uses its cache at this moment
    /// is passed over, the caller too if it has one.
    fn empty_caches(&self) -> bool {
        let filled = self.caches.iter().enumerate().filter(|(_, cache)| cache.is_filled());
        let turns = filled.filter_map(|(number, cache)| cache.enter(number, self.ways));
        turns.fold(false, |any, mut turn| self.empty(&mut turn) | any)
    }

    /// Gives back what one CPU keeps; false where it kept nothing.
    fn empty(&self, turn: &mut CacheGuard<'_>) -> bool {
        let mut any = false;
        if turn.is_filled() {
            let long = turn.empty(|word, bits| {
                any = true;
                self.release_bits(word, bits);
            });
            if let Some((first, count)) = long {
                any = true;
                self.release(first, count);
            }
        }
        any
    }
}

/// Makes a mark as high as `to`; false where it was.
fn raise(mark: &Word, to: usize) -> bool {
    let raised = to > mark.0.load(Ordering::Relaxed);
    if raised {
        mark.0.fetch_max(to, Ordering::Relaxed);
    }
    raised
}
