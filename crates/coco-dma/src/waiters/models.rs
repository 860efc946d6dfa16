//! Who waits for space never sleeps through it: every interleaving, every order that the atomics
//! allow.

use std::boxed::Box;
use std::vec::Vec;

use loom::sync::Arc;
use loom::thread;

use super::CapacityListener;
use super::Watch;
use crate::addr::Constraints;
use crate::addr::Placements;
use crate::addr::SLOT;
use crate::slots::Cache;
use crate::slots::Owner;
use crate::slots::SlotRun;
use crate::slots::Slots;
use crate::word::Word;
use crate::word::race::outcomes;
use crate::word::race::race;

const OWNER: Owner = match Owner::new(7) {
    Some(owner) => owner,
    None => panic!("a number"),
};

/// Counts how often it was told. Not loom's: it is read when all is over.
#[derive(Default)]
struct Told(std::sync::atomic::AtomicUsize);

impl CapacityListener for Told {
    fn capacity(&self) {
        self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }
}

impl Told {
    fn any(&self) -> bool {
        self.0.load(std::sync::atomic::Ordering::Relaxed) > 0
    }
}

/// What became of who waited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    /// It had its slots before it asked.
    First,
    /// It asked, and had them at its second try.
    Second,
    /// It was told not to sleep yet.
    Awake,
    /// It slept, and was woken or has to be.
    Asleep,
}

/// So many slots, of which `free` are free and the rest is nobody's, with so many caches.
fn slots(all: u64, free: usize, caches: usize) -> (Arc<Slots<'static>>, &'static Told) {
    let told: &'static Told = Box::leak(Box::default());
    let words: Vec<_> = (0..Slots::words(all * SLOT, SLOT)).map(|_| Word::new()).collect();
    let caches: Vec<_> = (0..caches).map(|_| Cache::new()).collect();
    let slots = Slots::new(all * SLOT, SLOT, words.leak()).unwrap();
    let slots = slots.with_caches(caches.leak()).with_listener(told);
    slots.open();
    assert!(slots.reserve(free, slots.capacity() - free));
    (Arc::new(slots), told)
}

/// Few slots, of which a cache keeps what it takes (under loom it may keep all).
const KEPT: u64 = 2;

fn alloc(slots: &Slots<'_>, cpu: usize, count: u64) -> Option<SlotRun> {
    let all = slots.capacity() as u64 * SLOT;
    slots.alloc(cpu, &Placements::new(0, all, &Constraints::of(count * SLOT)).unwrap(), OWNER).ok()
}

/// Waits as it is to be done, up to the sleep.
fn wait(slots: &Slots<'_>, cpu: usize, count: u64) -> End {
    if alloc(slots, cpu, count).is_some() {
        return End::First;
    }
    match slots.watch() {
        Watch::Retry => End::Awake,
        Watch::Set if alloc(slots, cpu, count).is_some() => End::Second,
        Watch::Set => End::Asleep,
        Watch::Never => panic!("there is a listener"),
    }
}

/// The same when it is to be had at last: nobody sleeps untold where there is space.
fn judge(end: End, slots: &Slots<'_>, told: &Told, count: u64) -> (End, bool) {
    if matches!(end, End::Asleep) {
        assert!(told.any(), "asleep, and never told");
    }
    if matches!(end, End::Asleep | End::Awake) {
        assert!(alloc(slots, 0, count).is_some(), "{end:?}, and then there is space");
    }
    (end, told.any())
}

/// A slot comes back on a CPU while somebody waits for one on the first.
fn given_on(cpu: usize, swap: bool, slots: &Arc<Slots<'static>>, told: &Told) -> (End, bool) {
    let run = alloc(slots, 0, 1).unwrap();
    let (giver, waiter) = (slots.clone(), slots.clone());
    let (given, end) = race(swap, move || giver.free(cpu, &run), move || wait(&waiter, 0, 1));
    assert!(given);
    judge(end, slots, told, 1)
}

#[test]
fn loom_waiting_misses_nothing_that_goes_to_the_bitmap() {
    let met = outcomes(|swap| {
        let (slots, told) = slots(1, 1, 0);
        given_on(0, swap, &slots, told)
    });
    let expected =
        [(End::First, false), (End::Second, false), (End::Second, true), (End::Asleep, true)];
    assert_eq!(met, expected);
}

/// A run that comes back to the cache of the CPU that keeps its word.
#[test]
fn loom_waiting_misses_nothing_that_goes_to_a_cache() {
    let met = outcomes(|swap| {
        let (slots, told) = slots(KEPT, 1, 1);
        given_on(0, swap, &slots, told)
    });
    assert!(met.contains(&(End::First, false)), "{met:?}");
    assert!(met.contains(&(End::Asleep, true)), "{met:?}");
    assert!(met.iter().any(|(end, _)| *end == End::Awake), "{met:?}");
}

/// A run that comes back on another CPU than the one that keeps its word.
#[test]
fn loom_waiting_misses_nothing_that_comes_back_elsewhere() {
    let met = outcomes(|swap| {
        let (slots, told) = slots(2 * Word::BITS as u64, 1, 2);
        given_on(1, swap, &slots, told)
    });
    assert!(met.contains(&(End::First, false)), "{met:?}");
    assert!(met.contains(&(End::Asleep, true)), "{met:?}");
    assert!(met.iter().any(|(end, _)| *end == End::Awake), "{met:?}");
}

/// Three slots, of which the middle one is in use: who takes the first keeps the last, and the
/// middle one comes back to it.
#[test]
fn loom_waiting_misses_nothing_that_a_take_keeps() {
    let met = outcomes(|swap| {
        let (slots, told) = slots(3, 3, 1);
        let [first, middle, last] = [(); 3].map(|()| alloc(&slots, 0, 1).unwrap());
        slots.free(0, &first);
        slots.free(0, &last);
        let (other, waiter) = (slots.clone(), slots.clone());
        let takes = move || {
            let taken = alloc(&other, 0, 1);
            assert!(other.free(0, &middle));
            taken
        };
        // Who takes may find nothing while the other one looks: it has both in its cache.
        let (_, end) = race(swap, takes, move || wait(&waiter, 0, 2));
        judge(end, &slots, told, 2)
    });
    assert!(met.contains(&(End::Asleep, true)), "{met:?}");
    assert!(met.iter().any(|(end, _)| *end == End::Awake), "{met:?}");
}

/// What a handle kept comes when it ends.
#[test]
fn loom_waiting_misses_nothing_that_a_handle_kept() {
    let met = outcomes(|swap| {
        let (slots, told) = slots(KEPT, 1, 1);
        let run = alloc(&slots, 0, 1).unwrap();
        let owner = slots.clone();
        let waiter = slots.clone();
        let ((), end) = race(
            swap,
            move || {
                let Some(mut turn) = owner.claim(0) else {
                    assert!(owner.free(0, &run));
                    return;
                };
                assert!(owner.free_with(&mut turn, &run));
                owner.unclaim(&mut turn);
            },
            move || wait(&waiter, 0, 1),
        );
        judge(end, &slots, told, 1)
    });
    assert!(met.contains(&(End::First, false)), "{met:?}");
    assert!(met.contains(&(End::Asleep, true)), "{met:?}");
    assert!(met.iter().any(|(end, _)| *end == End::Awake), "{met:?}");
}

/// Somebody else's search in vain makes the summary too small for a moment, in which the slot is
/// free and nobody finds it.
#[test]
fn loom_waiting_misses_nothing_that_is_hidden_for_a_moment() {
    let met = outcomes(|swap| {
        let (slots, told) = slots(1, 1, 0);
        let run = alloc(&slots, 0, 1).unwrap();
        let (giver, waiter, searcher) = (slots.clone(), slots.clone(), slots.clone());
        let search = thread::spawn(move || alloc(&searcher, 0, 1));
        let (given, end) = race(swap, move || giver.free(0, &run), move || wait(&waiter, 0, 1));
        assert!(given);
        if let Some(run) = search.join().unwrap() {
            assert!(slots.free(0, &run));
        }
        judge(end, &slots, told, 1)
    });
    assert!(met.contains(&(End::First, false)), "{met:?}");
    assert!(met.contains(&(End::Asleep, true)), "{met:?}");
}
