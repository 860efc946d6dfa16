//! What the ledger answers, case by case. Against a plain model it stands in `random`.

use std::format;
use std::string::ToString;
use std::vec::Vec;

use super::*;
use crate::state::Visibility::Private;
use crate::state::Visibility::Shared;
use crate::word::Word;

const PAGE: u64 = 0x1000;
const BASE: u64 = 0x8000_0000;

fn range(base: u64, len: u64) -> PhysRange {
    PhysRange::new(PhysAddr::new(base), len).unwrap()
}

/// `count` granules from granule `first`.
fn pages(first: u64, count: u64) -> PhysRange {
    range(BASE + first * PAGE, count * PAGE)
}

fn at(page: u64) -> PhysAddr {
    pages(page, 1).base()
}

fn storage(pages: u64) -> Vec<Word> {
    (0..Tracked::words(pages * PAGE, PAGE)).map(|_| Word::new()).collect()
}

/// Runs a test on a ledger of one range of `count` granules.
fn with_ledger(count: u64, initial: Initial, test: impl FnOnce(Ledger<'_>)) {
    let words = storage(count);
    let ranges = [Tracked::new(pages(0, count), PAGE, initial, &words).unwrap()];
    test(Ledger::new(&ranges).unwrap());
}

fn found(result: Result<impl std::fmt::Debug, Conflict>) -> (PhysAddr, Found) {
    let conflict = result.unwrap_err();
    (conflict.at, conflict.found)
}

#[test]
fn an_entry_takes_sixteen_bits() {
    let four = Word::BITS as u64 / 16;
    assert_eq!(Tracked::words(four * PAGE, PAGE), 1 + 1);
    assert_eq!(Tracked::words((four + 1) * PAGE, PAGE), 2 + 1);
    assert_eq!(Tracked::words(PAGE, 0), usize::MAX);
    assert_eq!(Tracked::words(u64::MAX, 1) == usize::MAX, Word::BITS < 64);
}

#[test]
fn a_range_is_checked_and_never_rounded() {
    let words = storage(8);
    let new = |range, granule| Tracked::new(range, granule, Initial::Private, &words).unwrap_err();
    assert_eq!(new(pages(0, 8), 0), LedgerError::Granule(0));
    assert_eq!(new(pages(0, 8), 0x1800), LedgerError::Granule(0x1800));
    for bad in [range(BASE + 1, PAGE), range(BASE, PAGE + 1), range(BASE + 0x800, PAGE)] {
        let error = new(bad, PAGE);
        assert_eq!(error, LedgerError::Misaligned { range: bad, granule: PAGE });
        let text = error.to_string();
        assert!(text.contains(&bad.to_string()) && text.contains("0x1000"), "{text}");
    }
    let given = words.len();
    let wanted = Tracked::words(16 * PAGE, PAGE);
    assert_eq!(new(pages(0, 16), PAGE), LedgerError::Storage { wanted, given });
    let empty = Tracked::new(pages(0, 1), PAGE, Initial::Private, &[]).unwrap_err();
    assert_eq!(empty, LedgerError::Storage { wanted: 2, given: 0 });
    let all = range(0, u64::MAX);
    assert!(matches!(new(all, 1), LedgerError::Storage { .. } | LedgerError::TooLarge { .. }));
}

#[test]
fn storage_that_was_used_before_starts_anew() {
    let words = storage(8);
    for word in &words {
        word.0.store(usize::MAX, crate::word::Ordering::Relaxed);
    }
    let ranges = [Tracked::new(pages(0, 8), PAGE, Initial::Shared, &words).unwrap()];
    let ledger = Ledger::new(&ranges).unwrap();
    assert_eq!(ledger.peek(pages(0, 8)), RangeState::Uniform(GranuleState::Shared));
    assert_eq!(ledger.quarantined(), 0);
}

#[test]
fn ranges_stand_in_order_and_do_not_overlap() {
    let foreign = |first, count| Tracked::foreign(pages(first, count), Shared);
    assert!(Ledger::new(&[]).is_ok());
    assert!(Ledger::new(&[foreign(0, 1), foreign(1, 1), foreign(3, 1)]).is_ok());
    for bad in [[foreign(0, 2), foreign(1, 1)], [foreign(1, 1), foreign(0, 1)]] {
        let (before, after) = (bad[0].range(), bad[1].range());
        assert_eq!(Ledger::new(&bad).unwrap_err(), LedgerError::Order { before, after });
    }
}

#[test]
fn a_run_is_in_one_range_in_none_or_across_a_border() {
    let words = storage(2);
    let ranges = [
        Tracked::new(pages(1, 2), PAGE, Initial::Private, &words).unwrap(),
        Tracked::foreign(pages(3, 1), Private),
    ];
    let ledger = Ledger::new(&ranges).unwrap();
    let border = |page| RangeState::Border { first: at(page) };
    for (run, seen) in [
        (pages(0, 1), RangeState::Untracked),
        (pages(4, 1), RangeState::Untracked),
        (range(0, BASE), RangeState::Untracked),
        (pages(0, 2), border(1)),
        (range(0, u64::MAX), border(1)),
        (pages(1, 2), RangeState::Uniform(GranuleState::Private)),
        (range(BASE + PAGE + 5, 1), RangeState::Uniform(GranuleState::Private)),
        // Both sides are private.
        (pages(2, 2), RangeState::Uniform(GranuleState::Private)),
        (pages(3, 1), RangeState::Foreign(Private)),
        (pages(3, 2), border(4)),
    ] {
        assert_eq!(ledger.peek(run), seen, "{run}");
    }
    let pin = ledger.pin(pages(2, 2), Private).unwrap();
    assert!(pin.is_counted());
    assert_eq!(ledger.granule(at(2)).unwrap().pins, 1);
    ledger.unpin(pin);
    assert_eq!(
        found(ledger.pin(pages(2, 2), Shared)),
        (at(2), Found::State(GranuleState::Private))
    );
    assert_eq!(found(ledger.begin(pages(2, 2), Private)), (at(3), Found::Foreign(Private)));
    assert_eq!(ledger.granule(at(2)).unwrap().state, GranuleState::Private, "nothing was begun");
    assert_eq!(found(ledger.begin(pages(0, 2), Private)), (at(1), Found::Border));
    assert_eq!(found(ledger.declare(pages(3, 2), Shared)), (at(4), Found::Border));
    assert_eq!(Ledger::EMPTY.peek(pages(1, 1)), RangeState::Untracked);
}

#[test]
fn the_last_granule_of_the_address_space_is_one_like_others() {
    let top = range(u64::MAX - (2 * PAGE - 1), 2 * PAGE);
    let words = storage(2);
    let ranges = [Tracked::new(top, PAGE, Initial::Private, &words).unwrap()];
    let ledger = Ledger::new(&ranges).unwrap();
    let last = range(u64::MAX, 1);
    let pin = ledger.pin(last, Private).unwrap();
    assert_eq!(found(ledger.begin(top, Private)).1, Found::Pinned);
    ledger.unpin(pin);
    let conversion = ledger.begin(top, Private).unwrap();
    ledger.settle(conversion, 0, 2 * PAGE, Shared);
    assert_eq!(ledger.quarantine().collect::<Vec<_>>(), [top]);
    assert_eq!(ledger.peek(range(0, u64::MAX)), RangeState::Border { first: top.base() });
}

#[test]
fn memory_that_is_not_kept_is_pinned_without_a_count_and_never_converted() {
    let ranges = [Tracked::foreign(pages(0, 1), Shared)];
    let ledger = Ledger::new(&ranges).unwrap();
    let pin = ledger.pin(pages(0, 1), Shared).unwrap();
    assert!(!pin.is_counted());
    ledger.unpin(pin);
    let foreign = (at(0), Found::Foreign(Shared));
    assert_eq!(found(ledger.pin(pages(0, 1), Private)), foreign);
    assert_eq!(found(ledger.begin(pages(0, 1), Shared)), foreign);
    assert_eq!(found(ledger.declare(pages(0, 1), Shared)), foreign);

    let pin = ledger.pin(pages(1, 1), Private).unwrap();
    assert!(!pin.is_counted());
    ledger.unpin(pin);
    let untracked = (at(1), Found::Untracked);
    assert_eq!(found(ledger.begin(pages(1, 1), Private)), untracked);
    assert_eq!(found(ledger.begin_accept(pages(1, 1))), untracked);
    assert_eq!(found(ledger.declare(pages(1, 1), Private)), untracked);
    assert_eq!(ledger.granule(at(0)), None);
    assert_eq!(ledger.granule(at(1)), None);
}

#[test]
fn memory_that_was_never_accepted_is_not_private() {
    with_ledger(4, Initial::Unaccepted, |ledger| {
        let unaccepted = (at(0), Found::State(GranuleState::Unaccepted));
        assert_eq!(ledger.peek(pages(0, 4)).visibility(), None);
        assert_eq!(found(ledger.pin(pages(0, 1), Private)), unaccepted);
        assert_eq!(found(ledger.begin(pages(0, 1), Private)), unaccepted);
        let conversion = ledger.begin_accept(pages(0, 2)).unwrap();
        ledger.settle(conversion, PAGE, 0, Private);
        assert_eq!(ledger.granule(at(0)).unwrap().state, GranuleState::Private);
        assert_eq!(ledger.granule(at(1)).unwrap().state, GranuleState::Unaccepted);
        ledger.declare(pages(2, 2), Private).unwrap();
        assert!(ledger.pin(pages(2, 2), Private).is_ok());
    });
}

#[test]
fn pins_are_counted_up_to_what_thirteen_bits_hold() {
    with_ledger(6, Initial::Private, |ledger| {
        let mut pins: Vec<_> =
            (0..8191).map(|_| ledger.pin(pages(5, 1), Private).unwrap()).collect();
        // The first granules come into the count, and out of it again.
        assert_eq!(found(ledger.pin(pages(0, 6), Private)), (at(5), Found::TooManyPins));
        assert_eq!(ledger.granule(at(0)).unwrap().pins, 0);
        assert_eq!(ledger.granule(at(4)).unwrap().pins, 0);
        assert_eq!(ledger.granule(at(5)).unwrap().pins, 8191);
        ledger.unpin(pins.pop().unwrap());
        pins.push(ledger.pin(pages(0, 6), Private).unwrap());
        assert_eq!(found(ledger.begin(pages(0, 1), Private)), (at(0), Found::Pinned));
        for pin in pins {
            ledger.unpin(pin);
        }
        assert!(ledger.begin(pages(0, 6), Private).is_ok());
    });
}

#[test]
fn conversions_are_of_whole_granules() {
    with_ledger(4, Initial::Private, |ledger| {
        let misaligned = Found::Misaligned { granule: PAGE };
        for run in [range(BASE + 1, PAGE), range(BASE, PAGE - 1), range(BASE + 0x800, PAGE)] {
            assert_eq!(found(ledger.begin(run, Private)), (run.base(), misaligned));
            assert_eq!(found(ledger.begin_accept(run)), (run.base(), misaligned));
            assert_eq!(found(ledger.begin_retry(run)), (run.base(), misaligned));
            assert_eq!(found(ledger.declare(run, Shared)), (run.base(), misaligned));
        }
        assert_eq!(ledger.peek(pages(0, 4)), RangeState::Uniform(GranuleState::Private));
    });
}

#[test]
fn what_is_not_surely_done_or_unchanged_is_in_quarantine() {
    const HALF: u64 = PAGE / 2;
    // Granules done, in quarantine and unchanged, of five.
    for (done, doubt, expected) in [
        (5 * PAGE, 0, [5, 0, 0]),
        (0, 0, [0, 0, 5]),
        (PAGE, PAGE, [1, 1, 3]),
        (PAGE, 1, [1, 1, 3]),
        (PAGE, PAGE + 1, [1, 2, 2]),
        // A granule that is half done is neither one nor the other.
        (PAGE + HALF, 0, [1, 1, 3]),
        (PAGE + HALF, HALF, [1, 1, 3]),
        (PAGE + HALF, PAGE, [1, 2, 2]),
        // Answers that cannot be.
        (PAGE, u64::MAX, [1, 4, 0]),
        (5 * PAGE, 1, [5, 0, 0]),
        (5 * PAGE + 1, 0, [0, 5, 0]),
        (u64::MAX, u64::MAX, [0, 5, 0]),
    ] {
        with_ledger(7, Initial::Private, |ledger| {
            let conversion = ledger.begin(pages(1, 5), Private).unwrap();
            let settled = ledger.settle(conversion, done, doubt, Shared);
            let [sure, lost, rest] = expected.map(|count: u64| count * PAGE);
            let wanted = Settled { done: sure, doubt: lost, unchanged: rest };
            assert_eq!(settled, wanted, "{done:#x} {doubt:#x}");
            assert_eq!(ledger.quarantined(), lost);
            for (page, state) in (1..).zip(
                [GranuleState::Shared, GranuleState::Quarantined, GranuleState::Private]
                    .into_iter()
                    .zip(expected)
                    .flat_map(|(state, count)| (0..count).map(move |_| state)),
            ) {
                assert_eq!(ledger.granule(at(page)).unwrap().state, state, "{done:#x} {doubt:#x}");
            }
            for page in [0, 6] {
                assert_eq!(ledger.granule(at(page)).unwrap().state, GranuleState::Private);
            }
        });
    }
}

#[test]
fn nothing_leaves_quarantine_but_by_a_retry_that_is_sure() {
    with_ledger(9, Initial::Private, |ledger| {
        let lost = pages(2, 4);
        let conversion = ledger.begin(lost, Private).unwrap();
        ledger.settle(conversion, 0, lost.len(), Shared);
        let quarantined = (at(2), Found::State(GranuleState::Quarantined));
        for visibility in [Private, Shared] {
            assert_eq!(found(ledger.pin(lost, visibility)), quarantined);
            assert_eq!(found(ledger.begin(lost, visibility)), quarantined);
            assert_eq!(found(ledger.declare(lost, visibility)), quarantined);
        }
        assert_eq!(found(ledger.begin_accept(lost)), quarantined);
        assert_eq!(ledger.quarantine().collect::<Vec<_>>(), [lost]);

        // The retry of the middle: counted as lost all the time, and two runs are left.
        let conversion = ledger.begin_retry(pages(3, 2)).unwrap();
        assert_eq!(ledger.quarantined(), 4 * PAGE);
        assert_eq!(ledger.quarantine().collect::<Vec<_>>(), [pages(2, 1), pages(5, 1)]);
        ledger.settle(conversion, PAGE, 0, Private);
        assert_eq!(ledger.quarantined(), 3 * PAGE);
        assert_eq!(ledger.quarantine().collect::<Vec<_>>(), [pages(2, 1), pages(4, 2)]);
        assert!(ledger.pin(pages(3, 1), Private).is_ok());

        let conversion = ledger.begin_retry(pages(4, 2)).unwrap();
        ledger.settle(conversion, 0, 2 * PAGE, Private);
        assert_eq!(ledger.quarantined(), 3 * PAGE);
    });
}

#[test]
fn runs_in_quarantine_end_with_their_range() {
    let (low, high) = (storage(3), storage(3));
    let ranges = [
        Tracked::new(pages(0, 3), PAGE, Initial::Private, &low).unwrap(),
        Tracked::foreign(pages(3, 1), Shared),
        Tracked::new(pages(4, 3), PAGE, Initial::Private, &high).unwrap(),
    ];
    let ledger = Ledger::new(&ranges).unwrap();
    for run in [pages(1, 2), pages(4, 1), pages(6, 1)] {
        let conversion = ledger.begin(run, Private).unwrap();
        ledger.settle(conversion, 0, run.len(), Shared);
    }
    let runs: Vec<_> = ledger.quarantine().collect();
    assert_eq!(runs, [pages(1, 2), pages(4, 1), pages(6, 1)]);
    assert_eq!(ledger.quarantined(), 4 * PAGE);
}

#[test]
fn a_declaration_needs_one_stable_unpinned_state() {
    with_ledger(8, Initial::Private, |ledger| {
        ledger.declare(pages(2, 1), Shared).unwrap();
        ledger.declare(pages(2, 1), Shared).unwrap();
        let mixed = (at(2), Found::State(GranuleState::Shared));
        assert_eq!(found(ledger.declare(pages(0, 8), Shared)), mixed);
        assert_eq!(ledger.peek(pages(0, 2)), RangeState::Uniform(GranuleState::Private));
        let pin = ledger.pin(pages(7, 1), Private).unwrap();
        assert_eq!(found(ledger.declare(pages(3, 5), Shared)), (at(7), Found::Pinned));
        ledger.unpin(pin);
        let conversion = ledger.begin(pages(3, 1), Private).unwrap();
        let converting = (at(3), Found::State(GranuleState::Converting));
        for visibility in [Private, Shared] {
            assert_eq!(found(ledger.declare(pages(3, 1), visibility)), converting);
        }
        ledger.settle(conversion, 0, 0, Shared);
    });
}

/// Tokens go back where they came from; elsewhere they do no harm that can be seen.
#[test]
fn tokens_of_another_ledger_find_nothing_to_change() {
    with_ledger(4, Initial::Private, |other| {
        with_ledger(4, Initial::Private, |ledger| {
            ledger.unpin(other.pin(pages(0, 4), Private).unwrap());
            let conversion = other.begin_accept(pages(0, 4));
            assert!(conversion.is_err());
            assert_eq!(ledger.granule(at(0)).unwrap().pins, 0);
            assert_eq!(ledger.peek(pages(0, 4)), RangeState::Uniform(GranuleState::Private));
        });
        with_ledger(4, Initial::Unaccepted, |strange| {
            let conversion = strange.begin_accept(pages(0, 4)).unwrap();
            let _ = other.settle(conversion, 4 * PAGE, 0, Shared);
            assert_eq!(other.peek(pages(0, 4)), RangeState::Uniform(GranuleState::Private));
            let conversion = strange.begin_accept(pages(0, 4));
            assert!(conversion.is_err(), "still converting where it was begun");
        });
        assert_eq!(Ledger::EMPTY.quarantine().next(), None);
    });
}

#[test]
fn everything_can_be_read() {
    with_ledger(8, Initial::Private, |ledger| {
        ledger.declare(pages(4, 1), Shared).unwrap();
        let conflict = ledger.begin(pages(3, 2), Private).unwrap_err();
        assert_eq!(
            conflict.to_string(),
            "0x80003000..=0x80004fff should be private, but at 0x80004000 it is shared; convert \
             it first, or ask for the state that it is in"
        );
        assert_eq!(
            ledger.peek(pages(3, 2)).to_string(),
            "mixed: private, and from 0x80004000 on shared"
        );
        assert_eq!(
            ledger.to_string(),
            "0x80000000..=0x80007fff in granules of 0x1000 bytes\n0x0 bytes in quarantine"
        );
        let pin = ledger.pin(pages(0, 1), Private).unwrap();
        assert_eq!(pin.to_string(), "0x80000000..=0x80000fff pinned");
        let granule = ledger.granule(at(0)).unwrap();
        assert_eq!(granule.to_string(), "0x80000000..=0x80000fff private, 1 pins");
        let conversion = ledger.begin(pages(5, 1), Private).unwrap();
        let text = "0x80005000..=0x80005fff converting, private before";
        assert_eq!(conversion.to_string(), text);
        assert!(format!("{ledger:?}").len() < 200);
        assert_eq!(Initial::Unaccepted.to_string(), "unaccepted");
    });
    let text = Found::TooManyPins.to_string();
    assert_eq!(text, "holds 8191 pins, as many as can be counted");
}

/// Memory that comes, is used across the border to what was there, and goes when it is idle.
#[test]
fn memory_is_added_and_removed_and_is_like_any_other_meanwhile() {
    let (boot, late) = (storage(2), storage(4));
    let ranges = [
        Tracked::new(pages(0, 2), PAGE, Initial::Private, &boot).unwrap(),
        Tracked::new(pages(2, 4), PAGE, Initial::Absent, &late).unwrap(),
    ];
    let ledger = Ledger::new(&ranges).unwrap();
    let absent = (at(2), Found::State(GranuleState::Absent));
    assert_eq!(found(ledger.pin(pages(1, 2), Private)), absent);
    assert_eq!(found(ledger.begin(pages(2, 1), Private)), absent);
    assert_eq!(found(ledger.declare(pages(2, 1), Private)), absent);
    assert_eq!(ledger.granule(at(1)).unwrap().pins, 0);
    assert_eq!(ledger.peek(pages(2, 1)).memory(), crate::state::Memory::Unaccepted);
    // Only what is not there comes, and all of it or nothing.
    let there = (at(1), Found::State(GranuleState::Private));
    assert_eq!(found(ledger.add(pages(1, 2), Initial::Private)), there);
    ledger.add(pages(2, 2), Initial::Private).unwrap();
    assert_eq!(found(ledger.add(pages(3, 2), Initial::Private)).0, at(3));
    assert_eq!(ledger.granule(at(4)).unwrap().state, GranuleState::Absent);
    // Across the border: pinned, converted and undone as one.
    let across = pages(1, 2);
    let pin = ledger.pin(across, Private).unwrap();
    assert_eq!([1, 2].map(|page| ledger.granule(at(page)).unwrap().pins), [1, 1]);
    assert_eq!(found(ledger.remove(pages(2, 2))), (at(2), Found::Pinned));
    ledger.unpin(pin);
    let conversion = ledger.begin(across, Private).unwrap();
    let settled = ledger.settle(conversion, PAGE, PAGE, Shared);
    assert_eq!((settled.done, settled.doubt, settled.unchanged), (PAGE, PAGE, 0));
    assert_eq!(ledger.quarantine().collect::<Vec<_>>(), [pages(2, 1)]);
    assert_eq!(found(ledger.remove(pages(2, 2))).1, Found::State(GranuleState::Quarantined));
    let retry = ledger.begin_retry(pages(2, 1)).unwrap();
    ledger.settle(retry, PAGE, 0, Private);
    assert_eq!(found(ledger.remove(pages(1, 2))).1, Found::State(GranuleState::Shared));
    ledger.remove(pages(2, 2)).unwrap();
    assert_eq!(ledger.peek(pages(2, 4)), RangeState::Uniform(GranuleState::Absent));
    assert_eq!(ledger.quarantined(), 0);
}
