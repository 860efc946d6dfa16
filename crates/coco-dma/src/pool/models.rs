//! The opening and closing of pools under loom, with caches and handles: every interleaving, every
//! order that the atomics allow.
// UNSAFETY: loom's cells stand for the memory of slots.
#![expect(unsafe_code)]

use std::boxed::Box;
use std::ptr::NonNull;

use loom::cell::UnsafeCell;

use super::Cache;
use super::Pool;
use super::SlotRun;
use crate::addr::Constraints;
use crate::addr::PhysAddr;
use crate::addr::PhysRange;
use crate::addr::SLOT;
use crate::slots::models::OWNER;
use crate::slots::models::leak;
use crate::slots::models::places;
use crate::slots::models::words;
use crate::state::PoolLabel;
use crate::word::Word;
use crate::word::race::outcomes;
use crate::word::race::race;

/// The memory of a pool, as loom watches it.
type Cell = UnsafeCell<u32>;

/// A pool of `slots` slots that is closed, and two places where its bytes may come to lie.
fn pool(slots: usize, caches: usize) -> (&'static Pool<'static>, [&'static Cell; 2]) {
    let range = PhysRange::new(PhysAddr::new(0), slots as u64 * SLOT).unwrap();
    // SAFETY: the models use the memory as the pool's alone; loom reports it where they do not.
    let pool = unsafe { Pool::convertible(PoolLabel::GuestShared, range, words(range.len())) };
    let caches = (0..caches).map(|_| Cache::new()).collect::<Box<[_]>>();
    let cell = || leak(UnsafeCell::new(0));
    (leak(pool.unwrap().with_caches(Box::leak(caches))), [cell(), cell()])
}

/// Writes `value` as the owner of the memory, and opens the pool over it.
fn open(pool: &Pool<'_>, cell: &'static Cell, value: u32) {
    // SAFETY: nobody else has the memory; loom reports it if somebody does.
    cell.with_mut(|bytes| unsafe { *bytes = value });
    // SAFETY: the cell lives as long as the program. (Nobody reads beyond its first byte.)
    assert!(unsafe { pool.open(NonNull::from(cell).cast().into()) });
}

/// Looks at the memory behind the pointer of the pool, as the holder of slots.
fn see(pool: &Pool<'_>) -> u32 {
    let start = pool.bytes().at(0, 1).expect("whoever holds slots sees where the bytes are");
    // SAFETY: it points to one of the cells.
    let cell = unsafe { start.cast::<Cell>().as_ref() };
    // SAFETY: the slots are ours; loom reports it if the memory is not the pool's.
    cell.with(|bytes| unsafe { *bytes })
}

/// Takes the last slots of the pool, looks at its memory, and gives them back.
fn look(pool: &Pool<'_>, count: usize) -> Option<u32> {
    let run: SlotRun = pool.slots.alloc(0, &places(pool.capacity(), count), OWNER).ok()?;
    let seen = see(pool);
    assert!(pool.slots.free(0, &run));
    Some(seen)
}

/// Closes the pool, uses the memory as its owner, and opens the pool over other memory. False where
/// somebody is in it.
fn move_to(pool: &Pool<'_>, old: &Cell, new: &'static Cell) -> bool {
    let closed = pool.close().is_some();
    if closed {
        use_alone(old);
        open(pool, new, 6);
    }
    closed
}

/// As the owner uses memory that was given back.
fn use_alone(cell: &Cell) {
    // SAFETY: the pool is closed; loom reports it if somebody is at the memory.
    cell.with_mut(|bytes| unsafe { *bytes = 99 });
}

/// More slots than a word has bits.
const WIDE: usize = Word::BITS + 1;

#[test]
fn loom_whoever_takes_a_slot_of_a_pool_that_opens_sees_its_bytes() {
    for count in [1, WIDE] {
        let model: fn(bool) -> Option<u32> = match count {
            1 => |swap| {
                let (pool, [cell, _]) = pool(1, 0);
                race(swap, move || open(pool, cell, 5), move || look(pool, 1)).1
            },
            // All words of it, each of which is released by itself.
            _ => |swap| {
                let (pool, [cell, _]) = pool(WIDE, 0);
                race(swap, move || open(pool, cell, 5), move || look(pool, WIDE)).1
            },
        };
        assert_eq!(outcomes(model), [None, Some(5)]);
    }
}

#[test]
fn loom_a_pool_closes_with_nobody_in_it_or_not_at_all() {
    let met = outcomes(|swap| {
        let (pool, [cell, _]) = pool(1, 0);
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
        let (pool, [cell, _]) = pool(WIDE, 0);
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
        let (pool, [old, new]) = pool(1, 0);
        open(pool, old, 5);
        let (closed, seen) = race(swap, move || move_to(pool, old, new), move || look(pool, 1));
        assert!(pool.is_open());
        (closed, seen)
    });
    assert_eq!(
        met,
        [(false, Some(5)), (true, None), (true, Some(5)), (true, Some(6))],
        "and not closed at all without somebody in it"
    );
}

/// The same where a CPU keeps the slots: what it keeps is taken from it, or it is in its turn.
#[test]
fn loom_a_pool_with_caches_closes_and_opens_anew() {
    let met = outcomes(|swap| {
        let (pool, [old, new]) = pool(2, 1);
        open(pool, old, 5);
        assert_eq!(look(pool, 1), Some(5), "both are kept from now on");
        let (closed, seen) = race(swap, move || move_to(pool, old, new), move || look(pool, 1));
        assert!(pool.is_open());
        assert_eq!(look(pool, 2), Some(if closed { 6 } else { 5 }), "all of it is free again");
        assert_eq!(pool.used(), 0);
        (closed, seen)
    });
    for outcome in [(false, Some(5)), (true, None), (true, Some(5)), (true, Some(6))] {
        assert!(met.contains(&outcome), "{met:?}");
    }
    assert!(!met.contains(&(false, None)), "{met:?}");
}

/// While a handle keeps slots the pool stays open; the handle goes on in a pool that opened anew.
#[test]
fn loom_a_pool_does_not_close_under_a_handle() {
    let met = outcomes(|swap| {
        let (pool, [old, new]) = pool(2, 1);
        open(pool, old, 5);
        let (closed, seen) = race(
            swap,
            move || move_to(pool, old, new),
            move || {
                let mut mine = pool.claim(0)?;
                let mut seen = [None; 2];
                for seen in &mut seen {
                    let Ok(run) = mine.alloc_raw(&Constraints::of(1)) else { continue };
                    *seen = Some(see(pool));
                    // SAFETY: it was taken from this pool.
                    assert!(unsafe { mine.free_raw(run) });
                }
                Some(seen)
            },
        );
        assert!(pool.is_open());
        assert_eq!(look(pool, 2), Some(if closed { 6 } else { 5 }), "all of it is free again");
        assert_eq!(pool.used(), 0);
        (closed, seen)
    });
    let (old, new) = (Some(5), Some(6));
    for outcome in [
        (false, Some([old, old])),
        (true, Some([old, old])),
        (true, Some([None, None])),
        (true, Some([None, new])),
        (true, Some([new, new])),
    ] {
        assert!(met.contains(&outcome), "{met:?}");
    }
    // What the handle keeps is not taken from it between two uses.
    let torn =
        |seen: &Option<[Option<u32>; 2]>| matches!(seen, Some([Some(5), not]) if *not != old);
    assert!(!met.iter().any(|(_, seen)| torn(seen)), "{met:?}");
}

/// A handle is one user's alone; who comes meanwhile does without.
#[test]
fn loom_a_handle_and_who_comes_meanwhile() {
    let met = outcomes(|swap| {
        let (pool, [cell, users]) = pool(2, 1);
        open(pool, cell, 5);
        let one = || Constraints::of(1);
        let (claimed, seen) = race(
            swap,
            move || {
                let Some(mut mine) = pool.claim(0) else { return false };
                // SAFETY: the handle is ours alone; loom reports it where it is not.
                users.with_mut(|user| unsafe { *user += 1 });
                let run = mine.alloc_raw(&one()).expect("nobody keeps the other slot");
                // SAFETY: it was taken from this pool.
                assert!(unsafe { mine.free_raw(run) });
                true
            },
            move || {
                if let Some(mine) = pool.claim(0) {
                    // SAFETY: as above.
                    users.with_mut(|user| unsafe { *user += 1 });
                    drop(mine);
                }
                let run = pool.alloc_raw(0, &one()).ok()?;
                let first = run.first();
                // SAFETY: it was taken from this pool.
                assert!(unsafe { pool.free_raw(0, run) });
                Some(first)
            },
        );
        assert_eq!((pool.used(), look(pool, 2)), (0, Some(5)));
        (claimed, seen)
    });
    for outcome in [(true, None), (true, Some(0)), (false, Some(0))] {
        assert!(met.contains(&outcome), "{met:?}");
    }
}

/// One turn at a time, and what was done in one is seen in the next.
#[test]
fn loom_turns_do_not_meet() {
    let met = outcomes(|swap| {
        let (pool, [cell, _]) = pool(1, 0);
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
