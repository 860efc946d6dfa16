//! The slot allocator under loom: every interleaving, every order that the atomics allow.
// UNSAFETY: loom's cell stands for the memory of a slot.
#![expect(unsafe_code)]

use std::vec::Vec;

use loom::sync::Arc;
use loom::sync::atomic::AtomicUsize;
use loom::sync::atomic::Ordering;
use loom::thread;

use super::Owner;
use super::Slots;
use crate::addr::Places;
use crate::addr::SLOT;
use crate::addr::Wish;
use crate::word::Word;

const OWNER: Owner = match Owner::new(7) {
    Some(owner) => owner,
    None => panic!("a number"),
};

/// Slots over words that live as long as the program.
fn slots(count: u64) -> Slots<'static> {
    let words: Vec<_> = (0..Slots::words(count * SLOT, SLOT)).map(|_| Word::new()).collect();
    let words = std::boxed::Box::leak(words.into_boxed_slice());
    let slots = Slots::new(count * SLOT, SLOT, words).unwrap();
    slots.open();
    slots
}

fn places(pool_slots: u64, slots: u64) -> Places {
    Places::new(0, pool_slots * SLOT, &Wish::of(slots * SLOT)).unwrap()
}

/// Takes, marks each slot as its own, and gives back: a slot that two hold at once is seen.
fn use_once(slots: &Slots<'_>, owners: &[AtomicUsize], places: &Places) -> bool {
    let Ok(run) = slots.take(places, OWNER) else { return false };
    let first = run.first();
    let mine = &owners[first..first + run.count()];
    for owner in mine {
        assert_eq!(owner.fetch_add(1, Ordering::Relaxed), 0, "two owners");
    }
    for owner in mine {
        owner.store(0, Ordering::Relaxed);
    }
    assert!(slots.give(&run));
    true
}

#[test]
fn loom_no_slot_has_two_owners() {
    loom::model(|| {
        let slots = Arc::new(slots(2));
        let owners = Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]);
        let threads: Vec<_> = (0..2)
            .map(|_| {
                let (slots, owners) = (slots.clone(), owners.clone());
                thread::spawn(move || {
                    // Two slots for two threads: both always find one.
                    assert!(use_once(&slots, &*owners, &places(2, 1)));
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(slots.used(), 0);
        assert!(slots.high_water() >= 1);
    });
}

#[test]
fn loom_runs_that_span_words_leave_nothing_behind() {
    loom::model(|| {
        let pool = Word::BITS as u64 + 2;
        let slots = Arc::new(slots(pool));
        // All but two slots on each side of the border between two words are in use.
        let filler = slots.take(&places(pool, Word::BITS as u64 - 2), OWNER).unwrap();
        let other = slots.clone();
        let wide = thread::spawn(move || {
            if let Ok(run) = other.take(&places(pool, 4), OWNER) {
                assert!(other.give(&run));
            }
        });
        if let Ok(run) = slots.take(&places(pool, 3), OWNER) {
            assert!(slots.give(&run));
        }
        wide.join().unwrap();
        let all = slots.take(&places(pool, 4), OWNER).unwrap();
        assert_eq!(slots.used(), usize::try_from(pool).unwrap());
        assert!(slots.give(&all));
        assert!(slots.give(&filler));
        assert_eq!(slots.used(), 0);
    });
}

/// What one owner did with the memory of a slot happens before the next owner's use.
#[test]
fn loom_bytes_follow_the_slot() {
    loom::model(|| {
        let slots = Arc::new(slots(1));
        let bytes = Arc::new(loom::cell::UnsafeCell::new(0u8));
        let (slots2, bytes2) = (slots.clone(), bytes.clone());
        let thread = thread::spawn(move || touch(&slots2, &bytes2));
        touch(&slots, &bytes);
        thread.join().unwrap();
    });
}

fn touch(slots: &Slots<'_>, bytes: &loom::cell::UnsafeCell<u8>) {
    if let Ok(run) = slots.take(&places(1, 1), OWNER) {
        // SAFETY: the slot is ours; loom reports it where it is not.
        bytes.with_mut(|byte| unsafe { *byte += 1 });
        assert!(slots.give(&run));
    }
}
