//! The ledger under loom: every interleaving, every order that the atomics allow.
// UNSAFETY: loom's cell stands for the bytes of a granule.
#![expect(unsafe_code)]

use std::boxed::Box;
use std::vec::Vec;

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;

use super::entry::PER_WORD;
use super::*;
use crate::state::Visibility::Private;
use crate::state::Visibility::Shared;
use crate::word::Word;
use crate::word::race::outcomes;
use crate::word::race::race;

const PAGE: u64 = 0x1000;
/// Granules of a ledger of two words: the first word full, and one granule in the second.
const TWO_WORDS: u64 = PER_WORD as u64 + 1;
/// The granule in the second word.
const SECOND: u64 = PER_WORD as u64;

/// A private range over words that live as long as the program.
fn ledger(granules: u64) -> Ledger<'static> {
    let words: Vec<_> = (0..Tracked::words(granules * PAGE, PAGE)).map(|_| Word::new()).collect();
    let range = pages(0, granules);
    let tracked = Tracked::new(range, PAGE, Initial::Private, Box::leak(words.into())).unwrap();
    Ledger::new(Box::leak(Box::new([tracked]))).unwrap()
}

fn pages(first: u64, count: u64) -> PhysRange {
    PhysRange::new(PhysAddr::new(first * PAGE), count * PAGE).unwrap()
}

/// Every granule is private and has this many pins.
fn all_private(ledger: &Ledger<'_>, granules: u64, pins: usize) {
    for granule in 0..granules {
        let run = pages(granule, 1);
        let expected = Granule { run, state: GranuleState::Private, pins };
        assert_eq!(ledger.granule(run.base()), Some(expected));
    }
}

/// Bytes that one converts and others use: loom reports who is not alone with them.
struct Bytes(UnsafeCell<u32>);

impl Bytes {
    fn new() -> Arc<Self> {
        Arc::new(Self(UnsafeCell::new(0)))
    }

    /// As a device and the CPU do under a pin.
    fn read(&self) -> u32 {
        // SAFETY: the granule is pinned, and nobody converts it; loom reports if somebody does.
        self.0.with(|bytes| unsafe { *bytes })
    }

    /// As a conversion does.
    fn wipe(&self) {
        // SAFETY: the granule is being converted by us; loom reports if somebody else has it.
        self.0.with_mut(|bytes| unsafe { *bytes += 1 });
    }
}

/// Pins one granule, uses it, gives it back.
fn use_once(ledger: &Ledger<'_>, run: PhysRange, bytes: &Bytes) -> Option<u32> {
    let pin = ledger.pin(run, Private).ok()?;
    let read = bytes.read();
    ledger.unpin(pin);
    Some(read)
}

/// Converts one granule there, and says so.
fn convert_once(ledger: &Ledger<'_>, run: PhysRange, bytes: &Bytes) -> bool {
    let Ok(conversion) = ledger.begin(run, Private) else { return false };
    bytes.wipe();
    ledger.settle(conversion, run.len(), 0, Private);
    true
}

/// Both may succeed one after the other, or either alone; never neither.
const NEVER_NEITHER: [(bool, bool); 3] = [(false, true), (true, false), (true, true)];

#[test]
fn loom_a_granule_is_never_pinned_and_converted() {
    let met = outcomes(|swap| {
        let (ledger, bytes) = (ledger(1), Bytes::new());
        let theirs = bytes.clone();
        let (used, converted) = race(
            swap,
            move || use_once(&ledger, pages(0, 1), &bytes).is_some(),
            move || convert_once(&ledger, pages(0, 1), &theirs),
        );
        all_private(&ledger, 1, 0);
        (used, converted)
    });
    assert_eq!(met, NEVER_NEITHER);
}

/// What was done to memory before a conversion was settled happens before a pin that finds it,
/// and what was done under a pin happens before the next conversion.
#[test]
fn loom_bytes_follow_pin_and_conversion() {
    let met = outcomes(|swap| {
        let (ledger, bytes) = (ledger(1), Bytes::new());
        let (mine, theirs) = (bytes.clone(), bytes.clone());
        let (read, wiped) = race(
            swap,
            move || [(); 2].map(|()| use_once(&ledger, pages(0, 1), &mine)),
            move || [(); 2].map(|()| convert_once(&ledger, pages(0, 1), &theirs)),
        );
        assert_eq!(bytes.read(), wiped.map(u32::from).iter().sum::<u32>());
        if let [Some(first), Some(second)] = read {
            assert!(first <= second);
        }
        read.iter().flatten().copied().max()
    });
    assert_eq!(met, [None, Some(0), Some(1), Some(2)]);
}

/// A state that a pin finds came with the bytes of whoever settled it, even where another entry
/// of the word changed in between, which releases nothing.
#[test]
fn loom_a_neighbour_in_the_word_hides_nothing() {
    let met = outcomes(|swap| {
        let (ledger, bytes) = (ledger(2), Bytes::new());
        let theirs = bytes.clone();
        let conversion = ledger.begin(pages(0, 1), Private).unwrap();
        let neighbour = thread::spawn(move || ledger.pin(pages(1, 1), Private).unwrap());
        let ((), read) = race(
            swap,
            move || {
                theirs.wipe();
                ledger.settle(conversion, PAGE, 0, Shared);
            },
            move || {
                let pin = ledger.pin(pages(0, 1), Shared).ok()?;
                let read = bytes.read();
                ledger.unpin(pin);
                Some(read)
            },
        );
        ledger.unpin(neighbour.join().unwrap());
        assert_eq!(ledger.granule(pages(1, 1).base()).unwrap().pins, 0);
        read
    });
    assert_eq!(met, [None, Some(1)]);
}

#[test]
fn loom_two_pins_both_count() {
    outcomes(|swap| {
        let ledger = ledger(TWO_WORDS);
        let pin = move || ledger.pin(pages(0, TWO_WORDS), Private).unwrap();
        let (mine, theirs) = race(swap, pin, pin);
        all_private(&ledger, TWO_WORDS, 2);
        race(swap, move || ledger.unpin(mine), move || ledger.unpin(theirs));
        all_private(&ledger, TWO_WORDS, 0);
    });
}

/// A pin of two words against a conversion of the second: one of them gets it, and the other
/// leaves nothing behind.
#[test]
fn loom_a_pin_of_two_words_against_a_conversion_of_the_second() {
    let met = outcomes(|swap| {
        let (ledger, bytes) = (ledger(TWO_WORDS), Bytes::new());
        let theirs = bytes.clone();
        let both = race(
            swap,
            move || use_once(&ledger, pages(0, TWO_WORDS), &bytes).is_some(),
            move || convert_once(&ledger, pages(SECOND, 1), &theirs),
        );
        all_private(&ledger, TWO_WORDS, 0);
        both
    });
    assert_eq!(met, NEVER_NEITHER);
}

/// Conversions that overlap: at least one gets on, never both at once, and who gives up puts
/// back exactly what was there.
#[test]
fn loom_of_conversions_that_overlap_one_gets_on() {
    let met = outcomes(|swap| {
        let (ledger, bytes) = (ledger(TWO_WORDS + 1), Bytes::new());
        let theirs = bytes.clone();
        let both = race(
            swap,
            move || convert_once(&ledger, pages(1, SECOND), &bytes),
            move || convert_once(&ledger, pages(SECOND, 2), &theirs),
        );
        all_private(&ledger, TWO_WORDS + 1, 0);
        both
    });
    assert_eq!(met, NEVER_NEITHER);
}

/// A conversion that gives up because of a pin, while somebody pins what it takes back: the mark
/// is gone in the end, and the pin counts exactly once where it succeeded.
#[test]
fn loom_a_conversion_that_gives_up_leaves_the_exact_state() {
    let met = outcomes(|swap| {
        let ledger = ledger(TWO_WORDS);
        let held = ledger.pin(pages(SECOND, 1), Private).unwrap();
        let (conflict, pin) = race(
            swap,
            move || ledger.begin(pages(0, TWO_WORDS), Private).unwrap_err(),
            move || ledger.pin(pages(0, 1), Private),
        );
        assert_eq!(conflict.found, Found::Pinned);
        let pinned = pin.is_ok();
        match pin {
            Ok(pin) => {
                assert_eq!(ledger.granule(pages(0, 1).base()).unwrap().pins, 1);
                ledger.unpin(pin);
            }
            // The mark was in the way for a moment.
            Err(conflict) => assert_eq!(conflict.found, Found::State(GranuleState::Converting)),
        }
        ledger.unpin(held);
        all_private(&ledger, TWO_WORDS, 0);
        pinned
    });
    assert_eq!(met, [false, true]);
}

/// A pin that gives up because a granule behind it is shared, while somebody else pins and
/// unpins what it takes back.
#[test]
fn loom_a_pin_that_gives_up_leaves_the_exact_count() {
    outcomes(|swap| {
        let ledger = ledger(TWO_WORDS);
        ledger.declare(pages(SECOND, 1), Shared).unwrap();
        let (conflict, ()) = race(
            swap,
            move || ledger.pin(pages(0, TWO_WORDS), Private).unwrap_err(),
            move || ledger.unpin(ledger.pin(pages(0, SECOND), Private).unwrap()),
        );
        assert_eq!(conflict.found, Found::State(GranuleState::Shared));
        all_private(&ledger, SECOND, 0);
    });
}

/// The count of quarantine is never smaller than what can be seen there, and never wraps, while
/// one loses memory and another gets it back.
#[test]
fn loom_quarantine_is_counted_before_it_is_seen() {
    let met = outcomes(|swap| {
        let ledger = ledger(1);
        let conversion = ledger.begin(pages(0, 1), Private).unwrap();
        let (_, back) = race(
            swap,
            move || ledger.settle(conversion, 0, PAGE, Shared),
            move || {
                let Ok(conversion) = ledger.begin_retry(pages(0, 1)) else { return false };
                assert_eq!(ledger.quarantined(), PAGE);
                ledger.settle(conversion, PAGE, 0, Private);
                true
            },
        );
        assert_eq!(ledger.quarantined(), if back { 0 } else { PAGE });
        assert_eq!(ledger.quarantine().next().is_none(), back);
        back
    });
    assert_eq!(met, [false, true]);
}
