//! The slot allocator and the opening and closing of pools under loom: every interleaving, every
//! order that the atomics allow.
// UNSAFETY: loom's cells stand for the memory of slots.
#![expect(unsafe_code)]

use std::boxed::Box;
use std::ptr::NonNull;
use std::vec::Vec;

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::atomic::AtomicUsize;
use loom::sync::atomic::Ordering;

use super::Owner;
use super::Pool;
use super::SlotRun;
use crate::addr::PhysAddr;
use crate::addr::PhysRange;
use crate::addr::Places;
use crate::addr::SLOT;
use crate::addr::Wish;
use crate::slots::Slots;
use crate::state::PoolLabel;
use crate::word::Word;
use crate::word::race::outcomes;
use crate::word::race::race;

const OWNER: Owner = match Owner::new(7) {
    Some(owner) => owner,
    None => panic!("a number"),
};

fn words(len: u64) -> &'static [Word] {
    let words: Vec<_> = (0..Slots::words(len, SLOT)).map(|_| Word::new()).collect();
    Box::leak(words.into_boxed_slice())
}

/// Slots over words that live as long as the program.
fn slots(count: u64) -> Slots<'static> {
    let slots = Slots::new(count * SLOT, SLOT, words(count * SLOT)).unwrap();
    slots.open();
    slots
}

fn places(pool_slots: u64, slots: u64) -> Places {
    Places::new(0, pool_slots * SLOT, &Wish::of(slots * SLOT)).unwrap()
}

/// Takes, marks each slot as its own, and gives back: a slot that two hold at once is seen.
fn use_once(slots: &Slots<'_>, owners: &[AtomicUsize], places: &Places) -> Option<usize> {
    let run = slots.take(places, OWNER).ok()?;
    let first = slots.first(&run);
    let mine = &owners[first..first + run.count()];
    for owner in mine {
        assert_eq!(owner.fetch_add(1, Ordering::Relaxed), 0, "two owners");
    }
    for owner in mine {
        owner.store(0, Ordering::Relaxed);
    }
    assert!(slots.give(&run));
    Some(first)
}

#[test]
fn loom_no_slot_has_two_owners() {
    let met = outcomes(|swap| {
        let slots = Arc::new(slots(2));
        let owners = Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]);
        let side = || {
            let (slots, owners) = (slots.clone(), owners.clone());
            move || use_once(&slots, &*owners, &places(2, 1)).unwrap()
        };
        // Two slots for two sides: both always find one.
        let both = race(swap, side(), side());
        assert_eq!(slots.used(), 0);
        assert!(slots.high_water() >= 1);
        both
    });
    // One after the other, or at once.
    assert_eq!(met, [(0, 0), (0, 1), (1, 0)]);
}

#[test]
fn loom_runs_that_span_words_leave_nothing_behind() {
    let met = outcomes(|swap| {
        let pool = Word::BITS as u64 + 2;
        let slots = Arc::new(slots(pool));
        // All but two slots on each side of the border between two words are in use.
        let filler = slots.take(&places(pool, Word::BITS as u64 - 2), OWNER).unwrap();
        let side = |wanted| {
            let slots = slots.clone();
            move || {
                let run = slots.take(&places(pool, wanted), OWNER);
                run.is_ok_and(|run| slots.give(&run))
            }
        };
        let both = race(swap, side(4), side(3));
        let all = slots.take(&places(pool, 4), OWNER).unwrap();
        assert_eq!(slots.used(), usize::try_from(pool).unwrap());
        assert!(slots.give(&all));
        assert!(slots.give(&filler));
        assert_eq!(slots.used(), 0);
        both
    });
    // Of two that meet one always gets on.
    assert_eq!(met, [(false, true), (true, false), (true, true)]);
}

/// What one owner did with the memory of a slot happens before the next owner's use.
#[test]
fn loom_bytes_follow_the_slot() {
    let met = outcomes(|swap| {
        let slots = Arc::new(slots(1));
        let bytes = Arc::new(UnsafeCell::new(0u8));
        let side = || {
            let (slots, bytes) = (slots.clone(), bytes.clone());
            move || {
                let Ok(run) = slots.take(&places(1, 1), OWNER) else { return false };
                // SAFETY: the slot is ours; loom reports it where it is not.
                bytes.with_mut(|byte| unsafe { *byte += 1 });
                slots.give(&run)
            }
        };
        race(swap, side(), side())
    });
    assert_eq!(met, [(false, true), (true, false), (true, true)]);
}

/// A revocation and the end of a map meet: the slot is freed once, and counted once.
#[test]
fn loom_a_slot_is_freed_once() {
    let met = outcomes(|swap| {
        let slots = Arc::new(slots(1));
        let run = slots.take(&places(1, 1), OWNER).unwrap();
        let (first, second) = (slots.clone(), slots.clone());
        let (given, freed) = race(swap, move || first.give(&run), move || second.revoke(OWNER));
        assert_eq!(usize::from(given) + freed, 1);
        assert_eq!(slots.used(), 0);
        assert!(slots.take(&places(1, 1), OWNER).is_ok());
        given
    });
    assert_eq!(met, [false, true]);
}

/// The memory of a pool, as loom watches it.
type Cell = UnsafeCell<u32>;

/// A pool of `slots` slots that is closed, and two places where its bytes may come to lie.
fn pool(slots: u64) -> (&'static Pool<'static>, [&'static Cell; 2]) {
    let range = PhysRange::new(PhysAddr::new(0), slots * SLOT).unwrap();
    // SAFETY: the models use the memory as the pool's alone; loom reports it where they do not.
    let pool = unsafe { Pool::convertible(PoolLabel::GuestShared, range, words(range.len())) };
    let cell = || &*Box::leak(Box::new(UnsafeCell::new(0)));
    (Box::leak(Box::new(pool.unwrap())), [cell(), cell()])
}

/// Writes `value` as the owner of the memory, and opens the pool over it.
fn open(pool: &Pool<'_>, cell: &'static Cell, value: u32) {
    // SAFETY: nobody else has the memory; loom reports it if somebody does.
    cell.with_mut(|bytes| unsafe { *bytes = value });
    // SAFETY: the cell lives as long as the program. (Nobody reads beyond its first byte.)
    assert!(unsafe { pool.open(NonNull::from(cell).cast()) });
}

/// Takes the last slots of the pool, looks at the memory behind its pointer, and gives them back.
fn look(pool: &Pool<'_>, count: u64) -> Option<u32> {
    let slots = pool.capacity() as u64;
    let run: SlotRun = pool.take(&places(slots, count), OWNER).ok()?;
    let start = pool.bytes().at(0, 1).expect("whoever holds slots sees where the bytes are");
    // SAFETY: it points to one of the cells.
    let cell = unsafe { start.cast::<Cell>().as_ref() };
    // SAFETY: the slots are ours; loom reports it if the memory is not the pool's.
    let seen = cell.with(|bytes| unsafe { *bytes });
    assert!(pool.give(&run));
    Some(seen)
}

/// As the owner uses memory that was given back.
fn use_alone(cell: &Cell) {
    // SAFETY: the pool is closed; loom reports it if somebody is at the memory.
    cell.with_mut(|bytes| unsafe { *bytes = 99 });
}

/// More slots than a word has bits.
const WIDE: u64 = Word::BITS as u64 + 1;

#[test]
fn loom_whoever_takes_a_slot_of_a_pool_that_opens_sees_its_bytes() {
    for count in [1, WIDE] {
        let model: fn(bool) -> Option<u32> = match count {
            1 => |swap| {
                let (pool, [cell, _]) = pool(1);
                race(swap, move || open(pool, cell, 5), move || look(pool, 1)).1
            },
            // All words of it, each of which is released by itself.
            _ => |swap| {
                let (pool, [cell, _]) = pool(WIDE);
                race(swap, move || open(pool, cell, 5), move || look(pool, WIDE)).1
            },
        };
        assert_eq!(outcomes(model), [None, Some(5)]);
    }
}

#[test]
fn loom_a_pool_closes_with_nobody_in_it_or_not_at_all() {
    let met = outcomes(|swap| {
        let (pool, [cell, _]) = pool(1);
        open(pool, cell, 5);
        let (closed, seen) = race(
            swap,
            move || {
                let closed = pool.close().is_some();
                if closed {
                    use_alone(cell);
                }
                closed
            },
            move || look(pool, 1).is_some(),
        );
        assert_eq!((pool.is_open(), pool.used()), (!closed, 0));
        (closed, seen)
    });
    assert_eq!(met, [(false, true), (true, false), (true, true)]);
}

/// Two words: one side closes, the other is in the second word alone.
#[test]
fn loom_a_close_that_gives_up_leaves_the_pool_as_it_was() {
    let met = outcomes(|swap| {
        let (pool, [cell, _]) = pool(WIDE);
        open(pool, cell, 5);
        let (closed, seen) = race(
            swap,
            move || {
                let closed = pool.close().is_some();
                if closed {
                    use_alone(cell);
                }
                closed
            },
            move || look(pool, 2).is_some(),
        );
        if !closed {
            assert_eq!(look(pool, WIDE), Some(5), "all of it is free again");
        }
        (closed, seen)
    });
    assert_eq!(met, [(false, true), (true, false), (true, true)]);
}

/// Closed, and opened over other memory: who takes a slot sees the old bytes before or the new
/// ones after, and never memory that is not the pool's.
#[test]
fn loom_a_pool_that_opens_anew_shows_its_new_bytes() {
    let met = outcomes(|swap| {
        let (pool, [old, new]) = pool(1);
        open(pool, old, 5);
        let (closed, seen) = race(
            swap,
            move || {
                let closed = pool.close().is_some();
                if closed {
                    use_alone(old);
                    open(pool, new, 6);
                }
                closed
            },
            move || look(pool, 1),
        );
        assert!(pool.is_open());
        (closed, seen)
    });
    assert_eq!(
        met,
        [(false, Some(5)), (true, None), (true, Some(5)), (true, Some(6))],
        "and not closed at all without somebody in it"
    );
}

/// One turn at a time, and what was done in one is seen in the next.
#[test]
fn loom_turns_do_not_meet() {
    let met = outcomes(|swap| {
        let (pool, [cell, _]) = pool(1);
        let side = move || {
            let turn = pool.change();
            if turn.is_some() {
                // SAFETY: it is our turn; loom reports it if it is somebody else's too.
                cell.with_mut(|bytes| unsafe { *bytes += 1 });
            }
            turn.is_some()
        };
        let both = race(swap, side, side);
        assert!(pool.change().is_some());
        both
    });
    assert_eq!(met, [(false, true), (true, false), (true, true)]);
}
