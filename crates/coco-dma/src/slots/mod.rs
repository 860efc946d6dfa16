//! The slot allocator, of pools and of IOMMU domains alike: a bitmap, one bit a slot, lock-free,
//! lowest address first; and a word a slot that says whose run starts there. What a slot is long
//! is the owner's matter: 2 KiB in pools, a page in domains.
//!
//! A run of slots is claimed word by word in ascending order; whoever meets a taken bit gives
//! back what it claimed so far and goes on behind it. Since everybody climbs, of several that
//! meet the one that stands highest always gets on: no lock, no waiting for another CPU.

#[cfg(all(test, not(loom)))]
mod tests;

use crate::addr::Places;
use crate::word::Ordering;
use crate::word::Word;

/// No free run of slots was long enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// Slots that cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SlotsError {
    /// Not a single slot.
    TooSmall,
    /// More than half a word counts.
    TooLarge,
    /// The storage has too few words.
    Storage { wanted: usize, given: usize },
}

/// The slots of one pool or domain. A set bit is a slot in use.
#[derive(Debug)]
pub(crate) struct Slots<'m> {
    bits: &'m [Word],
    owners: &'m [Word],
    used: &'m Word,
    high_water: &'m Word,
    capacity: usize,
    /// A slot is 2^shift bytes long.
    shift: u32,
}

/// Who takes slots: a device of the layer, by its number. Numbers are never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owner(usize);

/// What an owner number and a count have in a word each: half of it.
const HALF: usize = (1 << (Word::BITS / 2)) - 1;
/// The bit of an owner's half that says that the slots are allocated, not mapped.
const ALLOCATED: usize = 1 << (Word::BITS / 2 - 1);

impl Owner {
    /// The most owners there can be: half a word of them, but for a bit.
    pub(crate) const MOST: usize = ALLOCATED - 1;

    /// The owner with this number, from 1 on.
    pub(crate) const fn new(number: usize) -> Option<Self> {
        if number == 0 || number > Self::MOST { None } else { Some(Self(number)) }
    }

    /// The same device as the owner of memory that it allocated: a revocation, which ends maps,
    /// does not end that.
    pub(crate) const fn allocating(self) -> Self {
        Self(self.0 | ALLOCATED)
    }

    /// What stands at the first slot of a run of `count`.
    fn mark(self, count: usize) -> usize {
        self.0 << (Word::BITS / 2) | count
    }

    /// The length of the run that a mark tells, if it is this owner's.
    fn run_of(self, mark: usize) -> Option<usize> {
        (mark >> (Word::BITS / 2) == self.0).then_some(mark & HALF)
    }
}

/// Slots that were taken, and the place in them. Not `Copy`: who holds it holds the slots, and
/// losing it loses them.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "slots that are not given back are lost"]
pub struct SlotRun {
    first: usize,
    count: usize,
    offset: usize,
    owner: Owner,
}

impl SlotRun {
    /// The record of an owner that kept only the numbers of the slots (but not the place in them).
    pub(crate) const fn of(first: usize, count: usize, owner: Owner) -> Self {
        Self { first, count, offset: 0, owner }
    }

    /// The place in bytes from the start of the pool.
    #[inline]
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// The number of its first slot in the pool.
    #[inline]
    pub fn first(&self) -> usize {
        self.first
    }

    /// The number of slots.
    #[inline]
    pub fn count(&self) -> usize {
        self.count
    }
}

/// A run of slots that somebody holds, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeldRun {
    /// The number of its first slot.
    pub first: usize,
    /// Slots.
    pub count: usize,
    /// The number of the device that holds it.
    pub device: usize,
    /// Whether the device allocated it; otherwise it is a map's.
    pub allocated: bool,
}

/// Words beside the bitmap: slots in use, and the most that ever were.
const COUNTERS: usize = 2;

impl<'m> Slots<'m> {
    /// Words of storage for `len` bytes in slots of `unit`, which is not 0.
    #[expect(clippy::cast_possible_truncation, reason = "half a word fits a word")]
    pub(crate) const fn words(len: u64, unit: u64) -> usize {
        let slots = len / unit;
        if slots > HALF as u64 {
            return usize::MAX;
        }
        let slots = slots as usize;
        slots.div_ceil(Word::BITS) + slots + COUNTERS
    }

    /// Slots of `unit` bytes, a power of two, all closed: nobody can take one before
    /// [`open`](Self::open).
    pub(crate) fn new(len: u64, unit: u64, words: &'m [Word]) -> Result<Self, SlotsError> {
        let slots = len.checked_div(unit).ok_or(SlotsError::TooSmall)?;
        let capacity = usize::try_from(slots).map_err(|_| SlotsError::TooLarge)?;
        if capacity > HALF {
            return Err(SlotsError::TooLarge);
        }
        if capacity == 0 {
            return Err(SlotsError::TooSmall);
        }
        let wanted = Self::words(len, unit);
        let storage = SlotsError::Storage { wanted, given: words.len() };
        let ([used, high_water, rest @ ..], true) = (words, words.len() >= wanted) else {
            return Err(storage);
        };
        let (bits, rest) = rest.split_at_checked(capacity.div_ceil(Word::BITS)).ok_or(storage)?;
        let owners = rest.get(..capacity).ok_or(storage)?;
        for word in [used, high_water].into_iter().chain(owners) {
            word.0.store(0, Ordering::Relaxed);
        }
        // What the last word has beyond the pool stays in use for ever.
        for word in bits {
            word.0.store(!0, Ordering::Relaxed);
        }
        Ok(Self { bits, owners, used, high_water, capacity, shift: unit.trailing_zeros() })
    }

    /// Opens the pool: all slots are free.
    pub(crate) fn open(&self) {
        self.release(0, self.capacity);
    }

    /// Closes the pool, if no slot of it is in use; else nothing changes.
    pub(crate) fn close(&self) -> bool {
        // A look first: to claim what is free and give it back again would make a map that comes
        // in between find the pool full.
        self.used() == 0 && self.claim(0, self.capacity).is_ok()
    }

    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    pub(crate) fn used(&self) -> usize {
        self.used.0.load(Ordering::Relaxed)
    }

    pub(crate) fn high_water(&self) -> usize {
        self.high_water.0.load(Ordering::Relaxed)
    }

    /// Takes the lowest free run at one of `places`.
    pub(crate) fn take(&self, places: &Places, owner: Owner) -> Result<SlotRun, Full> {
        if self.used() >= self.capacity {
            return Err(Full);
        }
        let mut from = 0;
        while let Some(offset) = places.from(from) {
            let first = to_usize(offset >> self.shift).ok_or(Full)?;
            let count = to_usize(places.units_at(offset, self.shift)).ok_or(Full)?;
            match self.claim(first, count) {
                Ok(()) => {
                    let Some(offset) = to_usize(offset) else {
                        self.release(first, count);
                        return Err(Full);
                    };
                    // Relaxed: read again only by this run's holder, and by a revocation that the
                    // caller orders behind all maps.
                    if let Some(mark) = self.owners.get(first) {
                        mark.0.store(owner.mark(count), Ordering::Relaxed);
                    }
                    self.count_up(count);
                    return Ok(SlotRun { first, count, offset, owner });
                }
                // The next place whose first slot lies behind the one in use.
                Err(taken) => from = (taken as u64).checked_add(1).ok_or(Full)? << self.shift,
            }
        }
        Err(Full)
    }

    /// Gives the slots of a run back. False where they were revoked before: then they may be
    /// somebody else's, and nothing happens.
    pub(crate) fn give(&self, run: &SlotRun) -> bool {
        let held = self.end(run);
        if held {
            self.free(run);
        }
        held
    }

    /// Ends the holding of a run, whose slots nobody gets before [`free`](Self::free). False where
    /// it was ended before: then nothing happens.
    pub(crate) fn end(&self, run: &SlotRun) -> bool {
        let Some(mark) = self.owners.get(run.first) else { return false };
        let held = run.owner.mark(run.count);
        if mark.0.compare_exchange(held, 0, Ordering::Relaxed, Ordering::Relaxed).is_err() {
            return false;
        }
        self.used.0.fetch_sub(run.count, Ordering::Relaxed);
        true
    }

    /// Frees the slots of a run whose holding was ended by the caller.
    pub(crate) fn free(&self, run: &SlotRun) {
        self.release(run.first, run.count);
    }

    /// Keeps the slots of a run whose holding was ended by the caller for ever: nobody's.
    pub(crate) fn lose(&self, run: &SlotRun) {
        if let Some(mark) = self.owners.get(run.first) {
            mark.0.store(run.count, Ordering::Relaxed);
        }
    }

    /// Makes a run of slots another owner's, who has its record from now on.
    pub(crate) fn pass(&self, run: &SlotRun, to: Owner) {
        if let Some(mark) = self.owners.get(run.first) {
            mark.0.store(to.mark(run.count), Ordering::Relaxed);
        }
    }

    /// Whether a run was lost. (Or one that was given to somebody else later, of the same slots:
    /// then it is lost all the same.)
    pub(crate) fn is_lost(&self, run: &SlotRun) -> bool {
        let mark = self.owners.get(run.first);
        mark.is_some_and(|mark| mark.0.load(Ordering::Relaxed) == run.count)
    }

    /// Takes these slots out of use for ever, if they are all free.
    pub(crate) fn reserve(&self, first: usize, count: usize) -> bool {
        self.claim(first, count).is_ok()
    }

    /// Whether the run is still its holder's.
    pub(crate) fn holds(&self, run: &SlotRun) -> bool {
        let mark = self.owners.get(run.first);
        mark.is_some_and(|mark| mark.0.load(Ordering::Relaxed) == run.owner.mark(run.count))
    }

    /// Slots that an owner holds.
    pub(crate) fn held_by(&self, owner: Owner) -> usize {
        let marks = self.owners.iter().map(|mark| mark.0.load(Ordering::Relaxed));
        marks.filter_map(|mark| owner.run_of(mark)).sum()
    }

    /// The runs that are held.
    pub(crate) fn held(&self) -> impl Iterator<Item = HeldRun> {
        self.owners.iter().enumerate().filter_map(|(first, mark)| {
            let mark = mark.0.load(Ordering::Relaxed);
            let (owner, count) = (mark >> (Word::BITS / 2), mark & HALF);
            let (device, allocated) = (owner & Owner::MOST, owner & ALLOCATED != 0);
            (mark != 0).then_some(HeldRun { first, count, device, allocated })
        })
    }

    /// Frees all that an owner holds; says how many slots that was.
    pub(crate) fn revoke(&self, owner: Owner) -> usize {
        let mut freed = 0;
        for run in self.runs_of(owner) {
            // The record of this run may come later; it finds the mark gone. (Or it came just now:
            // then it counts there.)
            if self.give(&run) {
                freed += run.count;
            }
        }
        freed
    }

    /// What an owner holds, as the records that it has itself (but for the place in the slots).
    pub(crate) fn runs_of(&self, owner: Owner) -> impl Iterator<Item = SlotRun> {
        self.owners.iter().enumerate().filter_map(move |(first, mark)| {
            let count = owner.run_of(mark.0.load(Ordering::Relaxed))?;
            Some(SlotRun::of(first, count, owner))
        })
    }

    fn count_up(&self, count: usize) {
        let used = self.used.0.fetch_add(count, Ordering::Relaxed).saturating_add(count);
        if used > self.high_water.0.load(Ordering::Relaxed) {
            self.high_water.0.fetch_max(used, Ordering::Relaxed);
        }
    }

    /// Claims `count` slots from `first`, or says which slot, the highest of those seen, is in
    /// use.
    fn claim(&self, first: usize, count: usize) -> Result<(), usize> {
        if first.checked_add(count).is_none_or(|end| end > self.capacity) {
            return Err(self.capacity);
        }
        for (part, (word, mask)) in self.parts(first, count).enumerate() {
            if let Err(taken) = claim_word(word, mask) {
                let word_start = (first / Word::BITS + part) * Word::BITS;
                let claimed = word_start.saturating_sub(first);
                self.release(first, claimed);
                return Err(word_start + taken);
            }
        }
        Ok(())
    }

    /// Frees slots that are claimed.
    fn release(&self, first: usize, count: usize) {
        for (word, mask) in self.parts(first, count) {
            // Release: what this owner did with the memory happens before the next one's claim.
            word.0.fetch_and(!mask, Ordering::Release);
        }
    }

    /// The words that hold `count` slots from `first`, each with the bits that are theirs.
    fn parts(&self, first: usize, count: usize) -> impl Iterator<Item = (&'m Word, usize)> {
        let last = first + count;
        let words = if count == 0 { 0..0 } else { first / Word::BITS..last.div_ceil(Word::BITS) };
        words.filter_map(move |index| {
            let start = index * Word::BITS;
            let low = first.max(start) - start;
            let high = last.min(start + Word::BITS) - start;
            let ones = if high - low == Word::BITS { !0 } else { (1 << (high - low)) - 1 };
            Some((self.bits.get(index)?, ones << low))
        })
    }
}

/// Sets the bits of `mask`, all or none; else the number of the highest that is set already.
fn claim_word(word: &Word, mask: usize) -> Result<(), usize> {
    let mut seen = word.0.load(Ordering::Relaxed);
    loop {
        if seen & mask != 0 {
            return Err(Word::BITS - 1 - (seen & mask).leading_zeros() as usize);
        }
        // Acquire: pairs with the release of the last owner. A failure saw another CPU succeed.
        match word.0.compare_exchange_weak(seen, seen | mask, Ordering::Acquire, Ordering::Relaxed)
        {
            Ok(_) => return Ok(()),
            Err(now) => seen = now,
        }
    }
}

fn to_usize(value: u64) -> Option<usize> {
    usize::try_from(value).ok()
}
