//! The books of one page of objects: a bitmap, and what the page was made of. They lie in private
//! memory: nothing that a device or host can write says which object is free.
// UNSAFETY: what the page is made of is written and read by whom the bitmap lets.
#![expect(unsafe_code)]

use core::cell::UnsafeCell;
use core::fmt;

use super::layout::MOST;
use crate::word::Ordering;
use crate::word::Word;

/// Words of the bitmap.
const WORDS: usize = MOST / Word::BITS;

/// No pool has it.
const UNUSED: usize = 0;
/// A pool has it, and it has no memory.
const EMPTY: usize = 1;
/// Somebody gives it memory or takes the memory away.
const BUSY: usize = 2;
/// It has memory.
const OPEN: usize = 3;
/// It has memory that could not be given back: nobody is given an object of it.
const STUCK: usize = 4;

/// The books of one page, which is made of `R` while it is open.
///
/// A set bit is an object in use, or one that is not there: of a page that is not open all are set.
/// Whoever holds one object keeps the page open, so that what it is made of stays as it is.
pub(super) struct Page<R> {
    bits: [Word; WORDS],
    state: Word,
    memory: UnsafeCell<Option<R>>,
}

// SAFETY: `memory` is written only between `EMPTY`, `OPEN` or `STUCK` and the state after, by the one thread
// whose compare-exchange made it `BUSY`, while all bits are set by it; it is read only by who holds a
// bit. Of several that hold bits each only reads, hence `Sync`.
unsafe impl<R: Send + Sync> Sync for Page<R> {}

impl<R> Page<R> {
    /// A page that no pool has.
    #[cfg(not(loom))]
    pub(super) const fn new() -> Self {
        let (bits, state) = ([const { Word::new() }; WORDS], Word::new());
        Self { bits, state, memory: UnsafeCell::new(None) }
    }

    /// A page that no pool has.
    #[cfg(loom)]
    pub(super) fn new() -> Self {
        let bits = core::array::from_fn(|_| Word::new());
        Self { bits, state: Word::new(), memory: UnsafeCell::new(None) }
    }

    /// Makes it one pool's; false where it is another's, or has memory that was kept.
    pub(super) fn claim(&self) -> bool {
        let claimed = self.change(UNUSED, BUSY);
        if claimed {
            for word in &self.bits {
                word.0.store(!0, Ordering::Relaxed);
            }
            self.state.0.store(EMPTY, Ordering::Release);
        }
        claimed
    }

    /// Gives it up, if it has no memory.
    pub(super) fn unclaim(&self) {
        self.change(EMPTY, UNUSED);
    }

    /// The turn to give it memory; false where it has some, or somebody else has the turn.
    pub(super) fn start(&self) -> bool {
        self.change(EMPTY, BUSY)
    }

    /// Ends the turn without memory.
    pub(super) fn abandon(&self) {
        self.state.0.store(EMPTY, Ordering::Release);
    }

    /// Opens it with `count` objects, of which the caller has the first. Only after
    /// [`start`](Self::start) said yes.
    pub(super) fn open(&self, memory: R, count: usize) {
        // SAFETY: the caller has the turn, and all bits are set: nobody looks at it.
        unsafe { *self.memory.get() = Some(memory) };
        self.state.0.store(OPEN, Ordering::Release);
        for (index, (word, theirs)) in self.bits.iter().zip(masks(count)).enumerate() {
            let first = usize::from(index == 0);
            // Release: what the page is made of is there for who takes an object.
            word.0.fetch_and(!theirs | first, Ordering::Release);
        }
    }

    /// Takes the lowest free object.
    pub(super) fn alloc(&self) -> Option<usize> {
        for (index, word) in self.bits.iter().enumerate() {
            let mut seen = word.0.load(Ordering::Relaxed);
            while seen != !0 {
                let bit = seen.trailing_ones() as usize;
                // Acquire: pairs with `open`, and with who gave the object back. A failure saw
                // another CPU succeed.
                let (success, failure) = (Ordering::Acquire, Ordering::Relaxed);
                match word.0.compare_exchange_weak(seen, seen | 1 << bit, success, failure) {
                    Ok(_) => return Some(index * Word::BITS + bit),
                    Err(now) => seen = now,
                }
            }
        }
        None
    }

    /// Gives an object back.
    pub(super) fn free(&self, object: usize) {
        if let Some(word) = self.bits.get(object / Word::BITS) {
            // Release: what was done with it happens before the next one's use.
            word.0.fetch_and(!(1 << (object % Word::BITS)), Ordering::Release);
        }
    }

    /// What the page is made of.
    ///
    /// # Safety
    ///
    /// The caller holds an object of it for as long as it looks.
    pub(super) unsafe fn memory(&self) -> Option<&R> {
        // SAFETY: the page stays open while the caller holds an object, and open it is not written.
        unsafe { (*self.memory.get()).as_ref() }
    }

    /// Closes it, if it has `count` objects, none in use, and `agree` says so of what it is made of,
    /// which `free` then gives back; or keeps what comes back, and nobody is given an object of it.
    /// Whether it closed.
    pub(super) fn close(
        &self,
        count: usize,
        agree: impl FnOnce(&R) -> bool,
        give: impl FnOnce(R) -> Result<(), R>,
    ) -> bool {
        let was = if self.change(OPEN, BUSY) {
            OPEN
        } else if self.change(STUCK, BUSY) {
            STUCK
        } else {
            return false;
        };
        let taken = was == STUCK || self.take_all(count);
        // SAFETY: nobody holds an object, all are this one's, and the turn is, too.
        let place = if taken { Some(unsafe { &mut *self.memory.get() }) } else { None };
        let wanted = place.filter(|memory| memory.as_ref().is_some_and(agree));
        let state = match wanted.map(|place| (place.take().map(give), place)) {
            Some((Some(Err(memory)), place)) => {
                *place = Some(memory);
                STUCK
            }
            Some(_) => EMPTY,
            None => was,
        };
        if taken && state == OPEN {
            self.release(count, WORDS);
        }
        self.state.0.store(state, Ordering::Release);
        state == EMPTY
    }

    /// Objects in use of the `count` that it has while it is open; those of some moment.
    pub(super) fn used(&self, count: usize) -> usize {
        if self.state.0.load(Ordering::Relaxed) != OPEN {
            return 0;
        }
        let seen = self.bits.iter().map(|word| word.0.load(Ordering::Relaxed));
        seen.zip(masks(count)).map(|(seen, theirs)| (seen & theirs).count_ones() as usize).sum()
    }

    /// Whether it has memory.
    pub(super) fn has_memory(&self) -> bool {
        matches!(self.state.0.load(Ordering::Relaxed), OPEN | STUCK)
    }

    /// Takes all objects, or none.
    fn take_all(&self, count: usize) -> bool {
        for (index, (word, theirs)) in self.bits.iter().zip(masks(count)).enumerate() {
            let (success, failure) = (Ordering::Acquire, Ordering::Relaxed);
            if word.0.compare_exchange(!theirs, !0, success, failure).is_err() {
                self.release(count, index);
                return false;
            }
        }
        true
    }

    /// Frees all objects of the first `words` words.
    fn release(&self, count: usize, words: usize) {
        for (word, theirs) in self.bits.iter().zip(masks(count)).take(words) {
            word.0.fetch_and(!theirs, Ordering::Release);
        }
    }

    fn change(&self, from: usize, to: usize) -> bool {
        // Acquire: pairs with the end of the last turn.
        self.state.0.compare_exchange(from, to, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }
}

/// The bits of each word that stand for one of `count` objects.
fn masks(count: usize) -> impl Iterator<Item = usize> {
    (0..WORDS).map(move |index| {
        let here = count.saturating_sub(index * Word::BITS);
        if here >= Word::BITS { !0 } else { (1 << here) - 1 }
    })
}

impl<R> fmt::Debug for Page<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Page").field("memory", &self.has_memory()).finish_non_exhaustive()
    }
}
