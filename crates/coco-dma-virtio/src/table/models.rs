//! The table under loom: every interleaving, every order that the atomics allow. Each model runs
//! with its two sides in either order, and says which outcomes it has to meet: loom branches only
//! at the latest access of a word.

use std::boxed::Box;
use std::collections::BTreeSet;
use std::sync::Mutex;
use std::vec::Vec;

use loom::thread;

use super::*;

/// A mapping of so many bytes at an address, with something that only one may have.
#[derive(Debug)]
struct Thing(u64, usize, Box<u32>);

impl Keyed for Thing {
    /// Nothing has no key, as what is kept.
    fn key(&self) -> Option<Key> {
        (self.1 > 0).then(|| key(self.0, self.1))
    }
}

impl AsRef<Entry<Thing>> for Entry<Thing> {
    fn as_ref(&self) -> &Self {
        self
    }
}

fn key(addr: u64, len: usize) -> Key {
    Key { addr, start: core::ptr::null_mut(), len, direction: Some(Direction::Both) }
}

fn thing(addr: u64, len: usize) -> Thing {
    Thing(addr, len, Box::new(7))
}

type Things = &'static Table<'static, Entry<Thing>>;

/// A table that lives as long as the program.
fn table(places: usize) -> Things {
    let entry = || Entry { state: AtomicUsize::new(FREE), live: UnsafeCell::new(None) };
    let entries: Vec<_> = (0..places).map(|_| entry()).collect();
    Box::leak(Box::new(Table(Box::leak(entries.into_boxed_slice()))))
}

/// Takes one out, and looks at it.
fn remove(table: Things, key: Key) -> bool {
    table.remove::<Thing>(&key).is_some_and(|found| {
        assert_eq!((found.key(), *found.2), (Some(key), 7));
        true
    })
}

/// Ends what there is, and looks at it.
fn end_each(table: Things, kept_only: bool) -> bool {
    let mut any = false;
    table.end_each(kept_only, |found: Thing| {
        any = *found.2 == 7;
        None
    });
    any
}

/// Every outcome of two sides, whichever comes first.
fn outcomes(
    places: usize,
    before: fn(Things),
    first: fn(Things) -> bool,
    second: fn(Things) -> bool,
    left: fn(Things) -> usize,
) -> Vec<(bool, bool, usize)> {
    let met = std::sync::Arc::new(Mutex::new(BTreeSet::new()));
    for swap in [false, true] {
        let met = met.clone();
        loom::model(move || {
            let table = table(places);
            before(table);
            let (spawned, here) = if swap { (second, first) } else { (first, second) };
            let side = thread::spawn(move || spawned(table));
            let mine = here(table);
            let other = side.join().unwrap();
            let (one, two) = if swap { (mine, other) } else { (other, mine) };
            met.lock().unwrap().insert((one, two, left(table)));
        });
    }
    std::mem::take(&mut *met.lock().unwrap()).into_iter().collect()
}

/// How many places are free in the end.
fn free(table: Things) -> usize {
    (0..9).take_while(|wanted| table.has_free(*wanted)).count() - 1
}

#[test]
fn loom_nobody_is_in_the_way_of_another_record_at_the_same_address() {
    let before = |table: Things| {
        table.keep(thing(0x1000, 1)).unwrap();
        table.keep(thing(0x1000, 2)).unwrap();
    };
    let met = outcomes(
        2,
        before,
        |table| remove(table, key(0x1000, 1)),
        |table| remove(table, key(0x1000, 2)),
        free,
    );
    assert_eq!(met, [(true, true, 2)]);
}

#[test]
fn loom_two_that_look_alike_are_both_found() {
    let before = |table: Things| {
        table.keep(thing(0x1000, 1)).unwrap();
        table.keep(thing(0x1000, 1)).unwrap();
    };
    let side = |table| remove(table, key(0x1000, 1));
    assert_eq!(outcomes(2, before, side, side, free), [(true, true, 2)]);
}

#[test]
fn loom_one_record_is_found_once() {
    let before = |table: Things| table.keep(thing(0x1000, 1)).unwrap();
    let side = |table| remove(table, key(0x1000, 1));
    assert_eq!(outcomes(1, before, side, side, free), [(false, true, 1), (true, false, 1)]);
    let any = |table| end_each(table, false);
    assert_eq!(outcomes(1, before, side, any, free), [(false, true, 1), (true, false, 1)]);
}

#[test]
fn loom_what_is_kept_is_found_whole() {
    let met = outcomes(
        1,
        |_| (),
        |table| table.keep(thing(0x1000, 1)).is_ok(),
        |table| remove(table, key(0x1000, 1)),
        free,
    );
    assert_eq!(met, [(true, false, 0), (true, true, 1)]);
}

#[test]
fn loom_one_place_holds_one_record() {
    let met = outcomes(
        1,
        |_| (),
        |table| table.keep(thing(0x1000, 1)).is_ok(),
        |table| table.keep(thing(0x2000, 1)).is_ok(),
        free,
    );
    assert_eq!(met, [(false, true, 0), (true, false, 0)]);
    let met = outcomes(
        2,
        |_| (),
        |table| table.keep(thing(0x1000, 1)).is_ok(),
        |table| table.keep(thing(0x1000, 1)).is_ok(),
        free,
    );
    assert_eq!(met, [(true, true, 0)]);
}

#[test]
fn loom_what_could_not_be_ended_is_ended_once_and_in_nobodys_way() {
    let before = |table: Things| {
        table.keep(thing(0x1000, 1)).unwrap();
        table.keep(thing(0x1000, 0)).unwrap();
        // It does not go.
        table.end_each(true, |found: Thing| Some(found));
        assert_eq!(table.kept::<Thing>(), 1);
    };
    let retry = |table| end_each(table, true);
    let met = outcomes(2, before, |table| remove(table, key(0x1000, 1)), retry, free);
    assert_eq!(met, [(true, true, 2)]);
    assert_eq!(outcomes(2, before, retry, retry, free), [(false, true, 1), (true, false, 1)]);
}
