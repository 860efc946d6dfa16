//! What of a device changes while it is bound: whether it may still do anything, and how much it
//! holds.

use crate::reason::Refuse;
use crate::waiters::Listener;
use crate::waiters::Waiters;
use crate::word::AtomicUsize;
use crate::word::Ordering;

/// Whether a device may do what its plans say. Relaxed: a flag of its own, which orders nothing;
/// whoever revokes a device has stopped its maps before.
#[derive(Debug)]
pub(super) struct Life(AtomicUsize);

/// It may.
const ALIVE: usize = 0;
/// An accepted device that the guest trusts no longer.
const DISTRUSTED: usize = 1;
/// A device that is dead or gone.
const REVOKED: usize = 2;

impl Life {
    pub(super) fn new() -> Self {
        Self(AtomicUsize::new(ALIVE))
    }

    pub(super) fn revoke(&self) {
        // A step of its own, not a store: loom lets a reader take a store for older than a
        // compare-and-swap that came before it.
        self.0.swap(REVOKED, Ordering::Relaxed);
    }

    /// A device that is revoked stays so.
    pub(super) fn distrust(&self) {
        let (alive, distrusted) = (ALIVE, DISTRUSTED);
        let _ = self.0.compare_exchange(alive, distrusted, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Why it may do nothing any more, if so.
    #[inline]
    pub(super) fn stopped(&self) -> Option<Refuse> {
        match self.0.load(Ordering::Relaxed) {
            ALIVE => None,
            DISTRUSTED => Some(Refuse::TrustLost),
            _ => Some(Refuse::Revoked),
        }
    }
}

/// The slots that a device may hold, and those that it holds; pages of our own are counted in slots
/// too. Relaxed, but for who waits: a number of its own; the slots carry the order of what is done
/// in them.
#[derive(Debug)]
pub(super) struct Quota<'d> {
    limit: usize,
    held: AtomicUsize,
    waiters: Waiters<'d>,
}

impl<'d> Quota<'d> {
    /// At most this many; `None` counts nothing.
    pub(super) fn new(limit: Option<usize>, listener: Listener<'d>) -> Self {
        let limit = limit.unwrap_or(usize::MAX);
        Self { limit, held: AtomicUsize::new(0), waiters: Waiters::new(listener) }
    }

    /// Those who wait until slots are taken off.
    pub(super) fn waiters(&self) -> &Waiters<'d> {
        &self.waiters
    }

    /// Books `slots` more; false where there are not that many left.
    #[inline]
    pub(super) fn charge(&self, slots: usize) -> bool {
        if self.limit == usize::MAX {
            return true;
        }
        // One step: who does not fit is never in the way of who does.
        let fits = |held: usize| held.checked_add(slots).filter(|held| *held <= self.limit);
        self.held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok()
    }

    /// Takes them off again.
    #[inline]
    pub(super) fn discharge(&self, slots: usize) {
        if self.limit != usize::MAX {
            // In the one order with the look for waiters behind it.
            self.held.fetch_sub(slots, Ordering::SeqCst);
            self.waiters.given();
        }
    }

    /// Slots on it; 0 where nothing is counted.
    pub(super) fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }
}

#[cfg(all(test, loom))]
mod models {
    use loom::sync::Arc;

    use super::*;
    use crate::word::race::outcomes;
    use crate::word::race::race;

    /// Two that do not fit together: one of them gets in, never both and never neither.
    #[test]
    fn loom_a_charge_that_fits_is_not_refused_for_one_that_does_not() {
        let met = outcomes(|swap| {
            let quota = Arc::new(Quota::new(Some(2), Listener(None)));
            let other = quota.clone();
            let both = race(swap, move || other.charge(3), {
                let quota = quota.clone();
                move || quota.charge(2)
            });
            assert_eq!(quota.held(), 2);
            both
        });
        assert_eq!(met, [(false, true)]);
        let met = outcomes(|swap| {
            let quota = Arc::new(Quota::new(Some(3), Listener(None)));
            let (first, second) = (quota.clone(), quota.clone());
            let both = race(swap, move || first.charge(2), move || second.charge(2));
            assert_eq!(quota.held(), 2);
            both
        });
        assert_eq!(met, [(false, true), (true, false)]);
    }

    /// What one gives back another may have, and in the end nothing is held.
    #[test]
    fn loom_what_is_discharged_can_be_charged() {
        let met = outcomes(|swap| {
            let quota = Arc::new(Quota::new(Some(2), Listener(None)));
            assert!(quota.charge(2));
            let (first, second) = (quota.clone(), quota.clone());
            let ((), got) = race(swap, move || first.discharge(2), move || second.charge(1));
            assert_eq!(quota.held(), usize::from(got));
            got
        });
        assert_eq!(met, [false, true]);
    }

    #[test]
    fn loom_a_device_that_is_revoked_stays_so() {
        let met = outcomes(|swap| {
            let life = Arc::new(Life::new());
            let (first, second) = (life.clone(), life.clone());
            let ((), seen) = race(
                swap,
                move || first.revoke(),
                move || {
                    second.distrust();
                    second.stopped()
                },
            );
            assert_eq!(life.stopped(), Some(Refuse::Revoked));
            assert!(seen.is_some());
            seen == Some(Refuse::Revoked)
        });
        assert_eq!(met, [false, true]);
    }
}
