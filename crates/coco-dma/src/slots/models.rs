//! The slot allocator under loom: every interleaving of two sides, every order that the atomics
//! allow. Here the bitmap and the marks; what CPUs keep is in [`caches`].
// UNSAFETY: loom's cells stand for the memory of slots.
#![expect(unsafe_code)]

mod caches;

use std::boxed::Box;
use std::vec::Vec;

use loom::cell::UnsafeCell;
use loom::sync::atomic::AtomicUsize;
use loom::sync::atomic::Ordering;

use super::Owner;
use super::SlotRun;
use super::Slots;
use crate::addr::Constraints;
use crate::addr::Placements;
use crate::addr::SLOT;
use crate::word::Word;
use crate::word::race::outcomes;
use crate::word::race::race;

pub(crate) const OWNER: Owner = match Owner::new(7) {
    Some(owner) => owner,
    None => panic!("a number"),
};

/// Lives as long as the program, so that both sides reach it without a count of their own.
pub(crate) fn leak<T>(value: T) -> &'static T {
    Box::leak(Box::new(value))
}

pub(crate) fn words(len: u64) -> &'static [Word] {
    let words: Vec<_> = (0..Slots::words(len, SLOT)).map(|_| Word::new()).collect();
    Box::leak(words.into_boxed_slice())
}

/// Where `slots` slots may lie in a pool of `pool_slots`.
pub(crate) fn places(pool_slots: usize, slots: usize) -> Placements {
    Placements::new(0, pool_slots as u64 * SLOT, &Constraints::of(slots as u64 * SLOT)).unwrap()
}

/// Open slots without caches.
fn slots(count: usize) -> &'static Slots<'static> {
    let len = count as u64 * SLOT;
    let slots = leak(Slots::new(len, SLOT, words(len)).unwrap());
    slots.open();
    slots
}

/// The memory of slots, as loom watches it: two that hold the same one at once are seen, and so is
/// one who does not see what the last holder did.
#[derive(Debug)]
struct Memory(Vec<UnsafeCell<u32>>);

impl Memory {
    fn of(slots: usize) -> &'static Self {
        leak(Self((0..slots).map(|_| UnsafeCell::new(0)).collect()))
    }

    /// As the holder of the run.
    fn write(&self, run: &SlotRun) {
        for cell in &self.0[run.first()..run.first() + run.count()] {
            // SAFETY: the slot is ours; loom reports it where it is not.
            cell.with_mut(|bytes| unsafe { *bytes += 1 });
        }
    }
}

/// Takes `count` slots on a CPU, uses them, and gives them back; says which.
fn use_once(slots: &Slots<'_>, memory: &Memory, cpu: usize, count: usize) -> Option<usize> {
    let run = slots.alloc(cpu, &places(slots.capacity(), count), OWNER).ok()?;
    memory.write(&run);
    assert!(slots.free(cpu, &run));
    Some(run.first())
}

/// With nobody else there: nothing is in use, and nothing lost.
fn is_whole(slots: &Slots<'_>) {
    assert_eq!(slots.used(), 0);
    let capacity = slots.capacity();
    let all = slots.alloc(0, &places(capacity, capacity), OWNER).expect("all of it is free");
    assert_eq!((slots.used(), slots.high_water()), (capacity, capacity));
    assert!(slots.free(0, &all));
    assert_eq!(slots.used(), 0);
}

#[test]
fn loom_no_slot_has_two_owners() {
    let met = outcomes(|swap| {
        let slots = slots(2);
        let owners = leak([AtomicUsize::new(0), AtomicUsize::new(0)]);
        let side = || {
            let run = slots.alloc(0, &places(2, 1), OWNER).unwrap();
            let owner = &owners[run.first()];
            assert_eq!(owner.fetch_add(1, Ordering::Relaxed), 0, "two owners");
            owner.store(0, Ordering::Relaxed);
            assert!(slots.free(0, &run));
            run.first()
        };
        // Two slots for two sides: both always find one.
        let both = race(swap, side, side);
        is_whole(slots);
        both
    });
    // One after the other, or at once.
    assert_eq!(met, [(0, 0), (0, 1), (1, 0)]);
}

#[test]
fn loom_runs_that_span_words_leave_nothing_behind() {
    let met = outcomes(|swap| {
        let pool = Word::BITS + 2;
        let slots = slots(pool);
        // All but two slots on each side of the border between two words are in use.
        let filler = slots.alloc(0, &places(pool, Word::BITS - 2), OWNER).unwrap();
        // Without the search, which climbs on: loom has no time for its every way.
        let side = |first, count| {
            move || {
                let claimed = slots.map.claim(first, count).is_ok();
                if claimed {
                    slots.map.release(first, count);
                }
                claimed
            }
        };
        let both = race(swap, side(Word::BITS - 2, 4), side(Word::BITS - 1, 3));
        assert!(slots.free(0, &filler));
        is_whole(slots);
        both
    });
    // Of two that meet one always gets on.
    assert_eq!(met, [(false, true), (true, false), (true, true)]);
}

/// What one owner did with the memory of a slot happens before the next owner's use.
#[test]
fn loom_bytes_follow_the_slot() {
    let met = outcomes(|swap| {
        let (slots, memory) = (slots(1), Memory::of(1));
        let side = || use_once(slots, memory, 0, 1).is_some();
        let both = race(swap, side, side);
        is_whole(slots);
        both
    });
    assert_eq!(met, [(false, true), (true, false), (true, true)]);
}

/// Of several that end the same holding one does, and frees it; it is counted once.
#[test]
fn loom_a_holding_ends_once() {
    let met = outcomes(|swap| {
        let slots = slots(1);
        let run = leak(slots.alloc(0, &places(1, 1), OWNER).unwrap());
        let side = || {
            let ended = slots.end(run);
            if ended {
                slots.clear(run);
            }
            ended
        };
        let (ended, freed) = race(swap, side, || slots.revoke(OWNER));
        assert_eq!(usize::from(ended) + freed, 1);
        assert!(!slots.free(0, run), "a record that comes late");
        is_whole(slots);
        ended
    });
    assert_eq!(met, [false, true]);
}

/// One looks in vain and lowers the summary, the other frees: nothing that is free stays hidden.
#[test]
fn loom_a_search_in_vain_hides_nothing() {
    let met = outcomes(|swap| {
        let slots = slots(1);
        let run = slots.alloc(0, &places(1, 1), OWNER).unwrap();
        let memory = Memory::of(1);
        let (found, ()) = race(
            swap,
            || use_once(slots, memory, 0, 1).is_some(),
            move || {
                memory.write(&run);
                assert!(slots.free(0, &run));
            },
        );
        is_whole(slots);
        found
    });
    assert_eq!(met, [false, true]);
}

/// The same with neighbours: each frees a part, and looks for the whole.
#[test]
fn loom_parts_become_a_whole_that_is_found() {
    let met = outcomes(|swap| {
        let slots = slots(3);
        let take = || slots.alloc(0, &places(3, 1), OWNER).unwrap();
        let (low, middle, high) = (take(), take(), take());
        let memory = Memory::of(3);
        let give = |run| {
            memory.write(&run);
            assert!(slots.free(0, &run));
        };
        let look = || use_once(slots, memory, 0, 3).is_some();
        let both = race(
            swap,
            move || {
                give(low);
                give(high);
                look()
            },
            move || {
                give(middle);
                look()
            },
        );
        is_whole(slots);
        both
    });
    for outcome in [(false, true), (true, false), (true, true)] {
        assert!(met.contains(&outcome), "{met:?}");
    }
}
