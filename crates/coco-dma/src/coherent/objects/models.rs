//! Pages of objects under loom: every interleaving, every order that the atomics allow.
// UNSAFETY: loom's cells stand for the memory of objects.
#![expect(unsafe_code)]

use loom::cell::UnsafeCell;
use loom::sync::Arc;

use super::page::Page;
use crate::word::race::outcomes;
use crate::word::race::race;

/// The memory of a page of two objects.
struct Memory([UnsafeCell<u8>; 2]);

// SAFETY: loom reports who uses a cell that is another's.
unsafe impl Sync for Memory {}
// SAFETY: as above.
unsafe impl Send for Memory {}

impl Memory {
    fn new() -> Self {
        Self([UnsafeCell::new(0), UnsafeCell::new(0)])
    }

    fn add(&self, object: usize) -> u8 {
        // SAFETY: the object is ours; loom reports it where it is not.
        self.0[object].with_mut(|byte| unsafe {
            *byte += 1;
            *byte
        })
    }
}

const TWO: usize = 2;

/// Takes an object, uses its memory, gives it back; answers what it found there.
fn use_once(page: &Page<Memory>) -> Option<u8> {
    let object = page.alloc()?;
    // SAFETY: an object is held.
    let found = unsafe { page.memory() }.unwrap().add(object);
    page.free(object);
    Some(found)
}

fn open(page: &Page<Memory>) -> bool {
    let turn = page.start();
    if turn {
        let memory = Memory::new();
        memory.add(0);
        memory.add(1);
        page.open(memory, TWO);
    }
    turn
}

fn close(page: &Page<Memory>) -> bool {
    page.close(TWO, |_| true, |_| Ok(()))
}

fn claimed() -> Arc<Page<Memory>> {
    let page = Arc::new(Page::new());
    assert!(page.claim() && !page.claim());
    page
}

/// An object is one holder's, and what one did with it happens before the next one's use.
#[test]
fn loom_no_object_has_two_holders() {
    let met = outcomes(|swap| {
        let page = claimed();
        assert!(open(&page));
        // The first object is the opener's: one is left for two.
        let (first, second) = (page.clone(), page.clone());
        let both = race(swap, move || use_once(&first), move || use_once(&second));
        page.free(0);
        assert_eq!(page.used(TWO), 0);
        both
    });
    assert_eq!(met, [(None, Some(2)), (Some(2), None), (Some(2), Some(3)), (Some(3), Some(2)),]);
}

/// Who takes an object of a page that is just opened sees what the page is made of; and only one
/// opens it.
#[test]
fn loom_a_page_is_opened_once_and_whole() {
    let met = outcomes(|swap| {
        let page = claimed();
        let (first, second) = (page.clone(), page.clone());
        let both = race(swap, move || open(&first), move || (open(&second), use_once(&second)));
        assert_eq!(page.used(TWO), 1);
        both
    });
    // The other found the page closed, or open with memory that was written before.
    let opened = [(false, (true, Some(2))), (true, (false, None)), (true, (false, Some(2)))];
    assert_eq!(met, opened);
}

/// A page closes only while nobody holds an object, and is opened again with other memory.
#[test]
fn loom_a_page_does_not_close_under_a_holder() {
    let met = outcomes(|swap| {
        let page = claimed();
        assert!(open(&page));
        page.free(0);
        let (first, second) = (page.clone(), page.clone());
        let (found, closed) = race(swap, move || use_once(&first), move || close(&second));
        assert_eq!(page.has_memory(), !closed);
        assert_eq!(open(&page), closed);
        (found, closed)
    });
    assert_eq!(met, [(None, true), (Some(2), false), (Some(2), true)]);
}

/// Of two that close, one is given the memory.
#[test]
fn loom_a_page_is_closed_once() {
    let met = outcomes(|swap| {
        let page = claimed();
        assert!(open(&page));
        page.free(0);
        let (first, second) = (page.clone(), page.clone());
        let both = race(swap, move || close(&first), move || close(&second));
        assert!(page.alloc().is_none());
        both
    });
    assert_eq!(met, [(false, true), (true, false)]);
}

/// Of memory that could not be given back nobody is given an object, whoever takes or closes
/// meanwhile, until it was.
#[test]
fn loom_what_is_stuck_is_not_handed_out() {
    let met = outcomes(|swap| {
        let page = claimed();
        assert!(open(&page));
        page.free(0);
        assert!(!page.close(TWO, |_| true, Err));
        assert!(page.has_memory() && page.used(TWO) == 0);
        let (first, second) = (page.clone(), page.clone());
        let both = race(swap, move || (use_once(&first), open(&first)), move || close(&second));
        assert_eq!(page.has_memory(), both.0.1);
        both
    });
    assert_eq!(met, [((None, false), true), ((None, true), true)]);
}
