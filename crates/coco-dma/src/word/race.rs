//! What the models of every floor share.
//!
//! Each model runs with its two sides in either order, and says which outcomes it has to meet:
//! loom branches only at the latest access of a word, so that of a side that loads and gives up
//! it does not see every way that the other could have gone before (`last_dependent_access`,
//! loom 0.7, `src/rt/atomic.rs`). A model that never met what it is about would prove nothing.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::vec::Vec;

use loom::thread;

/// Runs two sides at once, `first` in a thread of its own where `swap` says so.
pub(crate) fn race<A: 'static, B: 'static>(
    swap: bool,
    first: impl FnOnce() -> A + 'static,
    second: impl FnOnce() -> B + 'static,
) -> (A, B) {
    if swap {
        let first = thread::spawn(first);
        let second = second();
        (first.join().unwrap(), second)
    } else {
        let second = thread::spawn(second);
        (first(), second.join().unwrap())
    }
}

/// Every outcome of a model, whichever side comes first.
pub(crate) fn outcomes<O: Ord + Send + 'static>(model: fn(swap: bool) -> O) -> Vec<O> {
    let met = std::sync::Arc::new(Mutex::new(BTreeSet::new()));
    for swap in [false, true] {
        let met = met.clone();
        loom::model(move || {
            let outcome = model(swap);
            met.lock().unwrap().insert(outcome);
        });
    }
    std::mem::take(&mut *met.lock().unwrap()).into_iter().collect()
}
