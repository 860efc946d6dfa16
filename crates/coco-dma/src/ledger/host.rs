//! What the ledger keeps of an SME host: no conversion of the layer's, but a state all the same.

use std::vec::Vec;

use super::*;
use crate::state::Cipher::Encrypted;
use crate::state::Cipher::Plain;
use crate::state::Memory;
use crate::state::State;
use crate::state::Visibility;
use crate::word::Word;

const PAGE: u64 = 0x1000;
const BASE: u64 = 0x8000_0000;

/// `count` granules from granule `first`.
fn pages(first: u64, count: u64) -> PhysRange {
    PhysRange::new(PhysAddr::new(BASE + first * PAGE), count * PAGE).unwrap()
}

/// Runs a test on a ledger of eight granules.
fn with_ledger(initial: Initial, test: impl FnOnce(Ledger<'_>)) {
    let words: Vec<Word> = (0..Tracked::words(8 * PAGE, PAGE)).map(|_| Word::new()).collect();
    let ranges = [Tracked::new(pages(0, 8), PAGE, initial, &words).unwrap()];
    test(Ledger::new(&ranges).unwrap());
}

fn found(result: Result<impl std::fmt::Debug, Conflict>) -> (u64, Found) {
    let conflict = result.unwrap_err();
    ((conflict.at.raw() - BASE) / PAGE, conflict.found)
}

#[test]
fn a_host_declares_what_is_plain_and_what_is_not() {
    with_ledger(Initial::Encrypted, |ledger| {
        ledger.declare_cipher(pages(2, 3), Plain).unwrap();
        let memory = |first, count| ledger.peek(pages(first, count)).memory();
        assert_eq!(memory(0, 2), Memory::Known(State::ENCRYPTED));
        assert_eq!(memory(2, 3), Memory::Known(State::PLAIN));
        assert_eq!(memory(5, 3), Memory::Known(State::ENCRYPTED));
        assert_eq!(memory(1, 2), Memory::Mixed);
        assert_eq!(ledger.peek(pages(2, 3)).visibility(), None, "a host asks nobody that");
        ledger.declare_cipher(pages(3, 1), Encrypted).unwrap();
        assert_eq!(memory(3, 1), Memory::Known(State::ENCRYPTED));
        // All of a run begins in one state.
        let other = (3, Found::State(GranuleState::Encrypted));
        assert_eq!(found(ledger.declare_cipher(pages(2, 2), Encrypted)), other);
        assert_eq!(memory(2, 1), Memory::Known(State::PLAIN), "and nothing was changed");
    });
    with_ledger(Initial::Plain, |ledger| {
        assert_eq!(ledger.peek(pages(0, 8)).memory(), Memory::Known(State::PLAIN));
    });
}

#[test]
fn what_a_device_has_keeps_its_cipher() {
    with_ledger(Initial::Encrypted, |ledger| {
        ledger.declare_cipher(pages(1, 1), Plain).unwrap();
        let encrypted = (1, Found::State(GranuleState::Plain));
        assert_eq!(found(ledger.pin_cipher(pages(0, 3), Encrypted)), encrypted);
        assert_eq!(ledger.granule(pages(0, 1).base()).unwrap().pins, 0);

        let pin = ledger.pin_cipher(pages(1, 1), Plain).unwrap();
        assert!(pin.is_counted());
        assert_eq!(found(ledger.declare_cipher(pages(1, 1), Encrypted)), (1, Found::Pinned));
        ledger.unpin(pin);
        ledger.declare_cipher(pages(1, 1), Encrypted).unwrap();

        for state in [State::ENCRYPTED, State::PLAIN, State::PRIVATE, State::SHARED] {
            let pin = ledger.pin_state(pages(1, 1), state);
            assert_eq!(pin.is_ok(), state == State::ENCRYPTED, "{state}");
        }
        assert_eq!(ledger.pin_state(pages(1, 1), State::Ordinary), Ok(None));
    });
}

#[test]
fn the_words_of_guests_and_hosts_do_not_mix() {
    with_ledger(Initial::Encrypted, |ledger| {
        let run = pages(0, 2);
        let here = (0, Found::State(GranuleState::Encrypted));
        for visibility in [Visibility::Private, Visibility::Shared] {
            assert_eq!(found(ledger.begin(run, visibility)), here);
            assert_eq!(found(ledger.pin(run, visibility)), here);
            assert_eq!(found(ledger.declare(run, visibility)), here);
        }
        assert_eq!(found(ledger.begin_accept(run)), here);
        assert_eq!(found(ledger.begin_retry(run)), here);
        assert!(here.1.way_out().contains("declare"));
    });
    for (initial, state) in [
        (Initial::Private, GranuleState::Private),
        (Initial::Shared, GranuleState::Shared),
        (Initial::Unaccepted, GranuleState::Unaccepted),
    ] {
        with_ledger(initial, |ledger| {
            for cipher in [Encrypted, Plain] {
                let here = (0, Found::State(state));
                assert_eq!(found(ledger.declare_cipher(pages(0, 2), cipher)), here);
                assert_eq!(found(ledger.pin_cipher(pages(0, 2), cipher)), here);
            }
        });
    }
}
