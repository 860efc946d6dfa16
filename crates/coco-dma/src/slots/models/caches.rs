//! What CPUs keep, under loom.

use std::boxed::Box;
use std::vec::Vec;

use super::Memory;
use super::OWNER;
use super::is_whole;
use super::leak;
use super::places;
use super::use_once;
use super::words;
use crate::addr::SLOT;
use crate::slots::Cache;
use crate::slots::Slots;
use crate::word::Word;
use crate::word::race::outcomes;
use crate::word::race::race;

/// Open slots with caches.
fn slots(count: usize, caches: usize) -> &'static Slots<'static> {
    let len = count as u64 * SLOT;
    let caches: Vec<_> = (0..caches).map(|_| Cache::new()).collect();
    let caches = Box::leak(caches.into_boxed_slice());
    let slots = leak(Slots::new(len, SLOT, words(len)).unwrap().with_caches(caches));
    assert!(slots.keeps());
    slots.open();
    slots
}

/// Two on one CPU: one has the turn, the other goes past it.
#[test]
fn loom_two_share_a_cache() {
    let met = outcomes(|swap| {
        let (slots, memory) = (slots(2, 1), Memory::of(2));
        let side = || use_once(slots, memory, 0, 1);
        let both = race(swap, side, side);
        is_whole(slots);
        both
    });
    // Who meets the other's turn takes from the bitmap, unless all of it is kept there.
    let (low, high) = (Some(0), Some(1));
    assert_eq!(met, [(None, low), (low, None), (low, low), (low, high), (high, low)]);
}

/// What was done with the memory in one turn is seen in the next.
#[test]
fn loom_bytes_follow_the_slot_through_a_cache() {
    let met = outcomes(|swap| {
        let (slots, memory) = (slots(1, 1), Memory::of(1));
        // It is kept from the start, so that nothing but the turn orders the two.
        assert!(use_once(slots, memory, 0, 1).is_some());
        let side = || use_once(slots, memory, 0, 1).is_some();
        let both = race(swap, side, side);
        is_whole(slots);
        both
    });
    assert_eq!(met, [(false, true), (true, false), (true, true)]);
}

/// What another CPU gives back is found by the one that keeps its word.
#[test]
fn loom_slots_come_back_from_another_cpu() {
    let met = outcomes(|swap| {
        let (slots, memory) = (slots(2, 1), Memory::of(2));
        let run = slots.alloc(0, &places(2, 1), OWNER).unwrap();
        let (firsts, ()) = race(
            swap,
            || {
                let take = || slots.alloc(0, &places(2, 1), OWNER).ok();
                let runs = [take(), take()];
                runs.iter().flatten().for_each(|run| memory.write(run));
                runs.map(|run| {
                    run.map(|run| {
                        assert!(slots.free(0, &run));
                        run.first()
                    })
                })
            },
            move || {
                memory.write(&run);
                assert!(slots.free_shared(&run));
            },
        );
        is_whole(slots);
        firsts
    });
    assert_eq!(met, [[Some(1), None], [Some(1), Some(0)]]);
}

/// One CPU looks in vain and lowers the summary, another frees: nothing that is free stays hidden.
#[test]
fn loom_a_cpu_that_looks_in_vain_hides_nothing() {
    let met = outcomes(|swap| {
        let (slots, memory) = (slots(2, 1), Memory::of(2));
        let take = || slots.alloc_shared(&places(2, 1), OWNER).unwrap();
        let (low, high) = (take(), take());
        let (found, ()) = race(
            swap,
            || use_once(slots, memory, 0, 2),
            move || {
                for run in [high, low] {
                    memory.write(&run);
                    assert!(slots.free_shared(&run));
                }
            },
        );
        is_whole(slots);
        found
    });
    assert_eq!(met, [None, Some(0)]);
}

/// Somebody who needs more than a CPU keeps takes it away, and meets its turn.
#[test]
fn loom_what_is_kept_is_taken_away_between_turns() {
    let met = outcomes(|swap| {
        let (slots, memory) = (slots(2, 1), Memory::of(2));
        // Kept: both slots.
        assert!(use_once(slots, memory, 0, 1).is_some());
        let both = race(
            swap,
            || use_once(slots, memory, 0, 1).is_some(),
            || {
                let run = slots.alloc_shared(&places(2, 2), OWNER).ok();
                run.is_some_and(|run| {
                    memory.write(&run);
                    slots.free_shared(&run)
                })
            },
        );
        is_whole(slots);
        both
    });
    for outcome in [(true, false), (false, true), (true, true)] {
        assert!(met.contains(&outcome), "{met:?}");
    }
}

/// Two CPUs and a free slot in each of two words: each finds one, though both look into the first
/// word first, and each keeps another one.
#[test]
fn loom_two_cpus_find_a_slot_each() {
    let met = outcomes(|swap| {
        let pool = Word::BITS + 1;
        let (slots, memory) = (slots(pool, 2), Memory::of(pool));
        let filler = slots.alloc_shared(&places(pool, Word::BITS - 1), OWNER).unwrap();
        let side = |cpu| {
            move || {
                let run = slots.alloc(cpu, &places(pool, 1), OWNER).expect("one for each");
                memory.write(&run);
                run
            }
        };
        let (first, second) = race(swap, side(0), side(1));
        let both = (first.first(), second.first());
        // Given back on the wrong CPU, which costs speed and nothing else.
        assert!(slots.free(1, &first) && slots.free(0, &second));
        assert!(slots.free(1, &filler));
        is_whole(slots);
        both
    });
    assert_eq!(met, [(Word::BITS - 1, Word::BITS), (Word::BITS, Word::BITS - 1)]);
}
