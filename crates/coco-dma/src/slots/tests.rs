//! The slot allocator against a plain model.

use std::vec::Vec;

use proptest::prelude::*;

use super::Cache;
use super::Owner;
use super::SlotRun;
use super::Slots;
use super::SlotsError;
use super::fit::Shape;
use crate::addr::AlignMask;
use crate::addr::Boundary;
use crate::addr::Constraints;
use crate::addr::Placements;
use crate::addr::SLOT;
use crate::word::Word;

const OWNER: Owner = match Owner::new(7) {
    Some(owner) => owner,
    None => panic!("a number"),
};

fn storage(len: u64) -> Vec<Word> {
    (0..Slots::words(len, SLOT)).map(|_| Word::new()).collect()
}

const BASE: u64 = 0x400_0000;

#[test]
fn storage_is_asked_for_and_checked() {
    let words = storage(1 << 20);
    assert!(Slots::new(1 << 20, SLOT, &words).is_ok());
    let given = words.len() - 1;
    assert_eq!(
        Slots::new(1 << 20, SLOT, &words[..given]).err(),
        Some(SlotsError::Storage { wanted: given + 1, given })
    );
    assert_eq!(Slots::new(SLOT - 1, SLOT, &words).err(), Some(SlotsError::TooSmall));
}

#[test]
fn a_full_pool_refuses_and_recovers() {
    let len = 70 * SLOT;
    let words = storage(len);
    let slots = Slots::new(len, SLOT, &words).unwrap();
    slots.open();
    let one = Placements::new(BASE, len, &Constraints::of(1)).unwrap();
    let runs: Vec<_> = (0..70).map(|_| slots.alloc(0, &one, OWNER).unwrap()).collect();
    assert!(slots.alloc(0, &one, OWNER).is_err());
    assert_eq!((slots.used(), slots.high_water()), (70, 70));
    for (place, run) in runs.into_iter().enumerate() {
        assert_eq!(run.offset() as u64, place as u64 * SLOT, "lowest address first");
        assert!(slots.free(0, &run));
    }
    assert_eq!((slots.used(), slots.high_water()), (0, 70));
    let all = Placements::new(BASE, len, &Constraints::of(len)).unwrap();
    let run = slots.alloc(0, &all, OWNER).unwrap();
    assert_eq!(run.count(), 70);
    assert!(slots.free(0, &run));
}

/// One call of a random sequence.
#[derive(Clone, Debug)]
enum Call {
    Take { len: u64, original: u64, keep: u32, align: u32, boundary: u32 },
    Give(usize),
}

fn call() -> impl Strategy<Value = Call> {
    let len = prop_oneof![1..64u64, 1..3 * SLOT, 1..40 * SLOT];
    prop_oneof![
        3 => (len, 0..0x4000u64, 0..13u32, 0..14u32, 0..20u32).prop_map(
            |(len, original, keep, align, boundary)| Call::Take {
                len, original, keep, align, boundary
            }
        ),
        2 => (0..1000usize).prop_map(Call::Give),
    ]
}

proptest! {
    /// No slot is given twice, none is lost, all constraints are met, and a refusal is true.
    #[test]
    fn agrees_with_a_model(
        calls in prop::collection::vec(call(), 1..200),
        pool_slots in 1..900u64,
        shift in 0..4u64,
        caches in 0..3usize,
    ) {
        let (len, base) = (pool_slots * SLOT, BASE + shift * 0x600);
        let words = storage(len);
        let caches: Vec<_> = (0..caches).map(|_| Cache::new()).collect();
        let slots = Slots::new(len, SLOT, &words).unwrap().with_caches(&caches);
        slots.open();
        let mut cpu = 0;
        let mut model = std::vec![false; usize::try_from(pool_slots).unwrap()];
        let mut held: Vec<SlotRun> = Vec::new();
        for call in calls {
            // Any CPU at any time: also one that has no cache.
            cpu = (cpu * 7 + 3) % 5;
            match call {
                Call::Take { len: wanted, original, keep, align, boundary } => {
                    let constraints = Constraints {
                        len: wanted,
                        original,
                        keep: AlignMask::new((1 << keep) - 1).unwrap(),
                        align: 1 << align,
                        boundary: Boundary::new(if boundary < 11 { 0 } else { 1 << boundary }),
                    };
                    let Some(places) = Placements::new(base, len, &constraints) else { continue };
                    let free = |offset: u64| {
                        let first = usize::try_from(offset / SLOT).unwrap();
                        let count = usize::try_from(places.slots_at(offset)).unwrap();
                        (first..first + count).all(|slot| model.get(slot) == Some(&false))
                    };
                    // Inside one word first, where that may be, and the lowest there.
                    let inside = |offset: &u64| {
                        let first = usize::try_from(offset / SLOT).unwrap();
                        let last = first + usize::try_from(places.slots_at(*offset)).unwrap() - 1;
                        first / Word::BITS == last / Word::BITS
                    };
                    let found = || {
                        std::iter::successors(places.from(0), |at| places.from(at + 1))
                            .filter(|at| free(*at))
                    };
                    let kept = slots.keeps() && Shape::of(&places, SLOT.trailing_zeros()).is_some();
                    let lowest = found().filter(|at| kept && inside(at)).min().or(found().min());
                    match slots.alloc(cpu, &places, OWNER) {
                        Err(_) => prop_assert_eq!(lowest, None, "a refusal of {:?}", constraints),
                        Ok(run) => {
                            let at = run.offset() as u64;
                            if !slots.keeps() {
                                prop_assert_eq!(Some(at), lowest);
                            }
                            let addr = base + at;
                            let low = constraints.keep.raw();
                            prop_assert_eq!(addr & low, original & low);
                            prop_assert_eq!((addr - (addr & low)) % constraints.align, 0);
                            if let Some(boundary) = constraints.boundary {
                                prop_assert!(!boundary.crossed_by(addr, wanted));
                            }
                            let first = run.first();
                            for slot in &mut model[first..first + run.count()] {
                                prop_assert!(!*slot, "a slot given twice");
                                *slot = true;
                            }
                            held.push(run);
                        }
                    }
                }
                Call::Give(which) if !held.is_empty() => {
                    let run = held.swap_remove(which % held.len());
                    let first = run.first();
                    model[first..first + run.count()].fill(false);
                    assert!(slots.free(cpu, &run));
                    assert!(!slots.free(cpu, &run), "given back once");
                }
                Call::Give(_) => {}
            }
            prop_assert_eq!(slots.used(), model.iter().filter(|taken| **taken).count());
        }
    }
}

/// Said before: 64 of one, since the CPU had taken a whole word.
#[test]
fn what_a_cpu_keeps_was_never_in_use() {
    let len = 256 * SLOT;
    let words = storage(len);
    let caches = [Cache::new()];
    let slots = Slots::new(len, SLOT, &words).unwrap().with_caches(&caches);
    slots.open();
    let one = Placements::new(BASE, len, &Constraints::of(1)).unwrap();
    let take = || slots.alloc(0, &one, OWNER).unwrap();
    let first = take();
    assert_eq!((slots.used(), slots.high_water()), (1, 1));
    let more: Vec<_> = (0..64).map(|_| take()).collect();
    assert!(slots.free(0, &first));
    // The look was made when the second word was taken.
    assert_eq!((slots.used(), slots.high_water()), (64, 65));
    assert!(more.iter().all(|run| slots.free(0, run)));
    assert_eq!((slots.used(), slots.high_water()), (0, 65));
}

/// Where the pool has no cache, and where the CPU's is in use, the quick way takes the slots that
/// the other one takes.
#[test]
fn the_quick_way_without_a_turn_takes_what_the_other_takes() {
    for (caches, held) in [(0, 0), (0, 3), (1, 0), (1, 3)] {
        for (len, original, keep) in
            [(1, 0, 0), (3 * SLOT, 0, 0), (5000, 0x1e00, 0x1fff), (90 * SLOT, 0x800, 0xfff)]
        {
            let pool = 400 * SLOT;
            let words = [storage(pool), storage(pool)];
            let caches: Vec<_> = (0..caches).map(|_| Cache::new()).collect();
            let [quick, other] = [&words[0], &words[1]]
                .map(|words| Slots::new(pool, SLOT, words).unwrap().with_caches(&caches));
            let _turn = quick.enter(0);
            let keep = AlignMask::new(keep).unwrap();
            let constraints = Constraints { original, keep, ..Constraints::of(len) };
            let places = Placements::new(BASE, pool, &constraints).unwrap();
            let bytes = usize::try_from(len).unwrap();
            let shape = Shape::keeping(BASE, bytes, original, keep).unwrap();
            for slots in [&quick, &other] {
                slots.open();
                (0..held).for_each(|number| assert!(slots.reserve(61 + number * 2, 1)));
            }
            loop {
                let run = quick.alloc_fast_shared(&shape, OWNER);
                let same = other.alloc_shared(&places, OWNER).ok();
                // What lies in no single word is not for the quick way where CPUs keep words.
                if run.is_none() && !caches.is_empty() {
                    break;
                }
                assert_eq!(run, same);
                if run.is_none() {
                    break;
                }
            }
        }
    }
}
