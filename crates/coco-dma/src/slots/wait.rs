//! Waiting for slots: see [`waiters`](crate::waiters).
//!
//! What CPUs keep is the difficulty, as they put slots there by plain stores. Who waits therefore
//! has the turn at every cache once, after it asked, and leaves it empty. Every later turn comes
//! behind that one, sees that somebody waits, and ends with an empty cache too. Where a CPU is at
//! its turn at that moment nothing is known of it, and the answer is to try again.

use super::CacheGuard;
use super::Slots;
use crate::waiters::CapacityListener;
use crate::waiters::Listener;
use crate::waiters::Waiters;
use crate::waiters::Watch;
use crate::word::Ordering;
use crate::word::fence;

impl<'m> Slots<'m> {
    /// The same slots with whom to tell when some are free again.
    pub(crate) fn with_listener(mut self, listener: &'m dyn CapacityListener) -> Self {
        self.map.waiters = Waiters::new(Listener(Some(listener)));
        self
    }

    /// Those who wait.
    pub(crate) fn waiters(&self) -> &Waiters<'m> {
        &self.map.waiters
    }

    /// Asks that the listener be told of what is freed from now on.
    pub(crate) fn watch(&self) -> Watch {
        let answer = self.map.waiters.ask();
        if answer == Watch::Never {
            return answer;
        }
        let caches = if self.ways == 0 { &[] } else { self.caches };
        // All of them, also where one says to try again.
        let retry = caches.iter().enumerate().fold(false, |retry, (number, cache)| {
            let found = match cache.enter(number, self.ways) {
                Some(mut turn) => self.empty(&mut turn),
                None => !cache.is_claimed(),
            };
            retry | found
        });
        if retry { Watch::Retry } else { answer }
    }

    /// At the end of a turn that may leave slots in the cache: while somebody waits for slots it
    /// leaves none.
    #[inline]
    pub(super) fn keep_nothing_back(&self, turn: &mut CacheGuard<'_>) {
        if self.map.waiters.wanted() {
            self.empty_for_waiters(turn);
        }
    }

    #[cold]
    #[inline(never)]
    fn empty_for_waiters(&self, turn: &mut CacheGuard<'_>) {
        self.empty(turn);
    }

    /// The turn to use what a CPU keeps, for long: who waits for slots passes it over.
    pub(crate) fn claim(&self, cpu: usize) -> Option<CacheGuard<'m>> {
        let mut turn = self.enter(cpu)?;
        turn.claim(true);
        Some(turn)
    }

    /// Before such a turn ends.
    pub(crate) fn unclaim(&self, turn: &mut CacheGuard<'_>) {
        turn.claim(false);
        // Whoever still passes it over is seen here.
        fence(Ordering::SeqCst);
        self.keep_nothing_back(turn);
    }
}
