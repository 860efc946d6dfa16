//! What a device did, as counters that anyone may read at any time. A map on an open machine
//! that is in reach counts nothing: it stores nothing at all.

use crate::word::AtomicUsize;
use crate::word::Ordering;

/// The counters of one device. Relaxed: each is exact, together they are of no one moment.
#[derive(Debug)]
pub struct Counters {
    direct: AtomicUsize,
    /// Of those that the fast path did not make.
    bounced: AtomicUsize,
    /// Of those that it made from the bitmap, or with a cache that has no counters of its own.
    bounced_fast: AtomicUsize,
    refused: AtomicUsize,
    finished: AtomicUsize,
    lost: AtomicUsize,
    allocated: AtomicUsize,
    freed: AtomicUsize,
    turns: [PerCpuCounts; TURNS],
}

/// How many caches of a pool have counters of their own; those past that share the device's.
const TURNS: usize = 8;

/// What was counted by whoever had the turn to use one cache of the device's pool: by plain loads
/// and stores, since only one has it at a time. On a line of its own.
#[derive(Debug)]
#[repr(align(64))]
struct PerCpuCounts {
    bounced: AtomicUsize,
    finished: AtomicUsize,
}

/// The counters at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CountersNow {
    /// Maps of memory where it lies.
    pub direct: usize,
    /// Maps through a pool.
    pub bounced: usize,
    /// Maps refused.
    pub refused: usize,
    /// Maps that were finished.
    pub finished: usize,
    /// [`Mapping`](crate::stream::Mapping)s that were dropped without being finished: what they
    /// held is kept for good. One that was forgotten nobody sees end; it stays in
    /// [`live`](Self::live).
    pub lost: usize,
    /// Allocations of coherent memory.
    pub allocated: usize,
    /// Allocations that were freed.
    pub freed: usize,
}

/// The bounces of a device by the way that they took: for tests, which see by it that they judge
/// what they mean to. Each is exact while no pool has more caches than counters (8).
#[doc(hidden)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounces {
    /// On the fast path, with slots of a cache.
    pub cached: usize,
    /// On the fast path, with slots of the bitmap.
    pub bitmap: usize,
    /// The whole way.
    pub slow: usize,
}

impl CountersNow {
    /// Maps that are not finished, lost ones among them.
    pub fn live(&self) -> usize {
        self.direct.wrapping_add(self.bounced).wrapping_sub(self.finished)
    }

    /// Allocations that are not freed, lost ones among them.
    pub fn allocations(&self) -> usize {
        self.allocated.wrapping_sub(self.freed)
    }
}

impl Counters {
    pub(super) fn new() -> Self {
        Self {
            direct: AtomicUsize::new(0),
            bounced: AtomicUsize::new(0),
            bounced_fast: AtomicUsize::new(0),
            refused: AtomicUsize::new(0),
            finished: AtomicUsize::new(0),
            lost: AtomicUsize::new(0),
            allocated: AtomicUsize::new(0),
            freed: AtomicUsize::new(0),
            turns: core::array::from_fn(|_| PerCpuCounts {
                bounced: AtomicUsize::new(0),
                finished: AtomicUsize::new(0),
            }),
        }
    }

    fn in_turns(&self, of: fn(&PerCpuCounts) -> &AtomicUsize) -> usize {
        let counts = self.turns.iter().map(|turn| of(turn).load(Ordering::Relaxed));
        counts.fold(0, usize::wrapping_add)
    }

    /// The bounces by the way that they took.
    pub(super) fn bounces(&self) -> Bounces {
        Bounces {
            cached: self.in_turns(|turn| &turn.bounced),
            bitmap: self.bounced_fast.load(Ordering::Relaxed),
            slow: self.bounced.load(Ordering::Relaxed),
        }
    }

    pub(super) fn now(&self) -> CountersNow {
        let Bounces { cached, bitmap, slow } = self.bounces();
        CountersNow {
            direct: self.direct.load(Ordering::Relaxed),
            bounced: cached.wrapping_add(bitmap).wrapping_add(slow),
            refused: self.refused.load(Ordering::Relaxed),
            finished: self
                .finished
                .load(Ordering::Relaxed)
                .wrapping_add(self.in_turns(|turn| &turn.finished)),
            lost: self.lost.load(Ordering::Relaxed),
            allocated: self.allocated.load(Ordering::Relaxed),
            freed: self.freed.load(Ordering::Relaxed),
        }
    }

    pub(crate) fn direct(&self) {
        self.direct.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn bounced(&self) {
        self.bounced.fetch_add(1, Ordering::Relaxed);
    }

    /// The same on the fast path, by whoever has the turn to use the cache with this number, of the
    /// one pool whose turns count here; `None` without a turn.
    #[inline]
    pub(crate) fn bounced_fast(&self, turn: Option<usize>) {
        match turn.and_then(|turn| self.turns.get(turn)) {
            Some(turn) => count_alone(&turn.bounced),
            None => drop(self.bounced_fast.fetch_add(1, Ordering::Relaxed)),
        }
    }

    /// As [`bounced_fast`](Self::bounced_fast), for the end of any map.
    #[inline]
    pub(crate) fn unmapped_in(&self, turn: Option<usize>) {
        match turn.and_then(|turn| self.turns.get(turn)) {
            Some(turn) => count_alone(&turn.finished),
            None => self.unmapped(),
        }
    }

    pub(crate) fn refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn unmapped(&self) {
        self.finished.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn allocated(&self) {
        self.allocated.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn freed(&self) {
        self.freed.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn lost(&self) {
        self.lost.fetch_add(1, Ordering::Relaxed);
    }
}

/// One more, where nobody else counts here at this moment.
#[inline]
fn count_alone(counter: &AtomicUsize) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
}
