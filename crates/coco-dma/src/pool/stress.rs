//! A pool with four to eight threads on it, under shuttle: take, give here and give there, handles,
//! closing and opening, in as many orders as there is time for. Shuttle knows no weak memory; the
//! models for loom do.
// UNSAFETY: slots are given back by hand, and the pool is opened over memory that nobody reads.
#![expect(unsafe_code)]

use std::boxed::Box;
use std::mem;
use std::ptr::NonNull;
use std::sync::Mutex;
use std::vec;
use std::vec::Vec;

use shuttle::rand::Rng;
use shuttle::rand::thread_rng;
use shuttle::thread;

use super::Cache;
use super::Pool;
use super::SlotRun;
use crate::addr::Constraints;
use crate::addr::PhysAddr;
use crate::addr::PhysRange;
use crate::addr::SLOT;
use crate::state::PoolLabel;
use crate::word::Word;

/// Slots: so few that threads meet, so many that CPUs keep some.
const SLOTS: usize = 8 * Word::BITS;
/// Caches; threads also come with the numbers of CPUs that have none of their own.
const CACHES: usize = 2;
/// What each thread does.
const STEPS: usize = 12;

/// What is known of the pool beside its own books. Of the standard library, so that shuttle does not
/// see it, and never locked across a step of the pool.
#[derive(Debug)]
struct Truth {
    /// Slots that somebody holds.
    held: Vec<bool>,
    /// Runs on their way from one thread to another.
    sent: Vec<SlotRun>,
    open: bool,
}

impl Truth {
    fn took(&mut self, run: &SlotRun) {
        assert!(self.open, "slots of a pool that is closed");
        for held in &mut self.held[run.first()..run.first() + run.count()] {
            assert!(!*held, "a slot given twice");
            *held = true;
        }
    }

    /// Called before the run is given back.
    fn gives(&mut self, run: &SlotRun) {
        self.held[run.first()..run.first() + run.count()].fill(false);
    }
}

#[derive(Clone, Copy)]
struct Crowd<'p> {
    pool: &'p Pool<'p>,
    truth: &'p Mutex<Truth>,
}

impl Crowd<'_> {
    fn truth<R>(&self, then: impl FnOnce(&mut Truth) -> R) -> R {
        then(&mut self.truth.lock().unwrap())
    }

    fn free(&self, cpu: usize, run: SlotRun) {
        self.truth(|truth| truth.gives(&run));
        // SAFETY: it was taken from this pool.
        assert!(unsafe { self.pool.free_raw(cpu, run) });
    }

    fn alloc(&self, cpu: usize) -> Option<SlotRun> {
        let run = self.pool.alloc_raw(cpu, &constraints()).ok()?;
        self.truth(|truth| truth.took(&run));
        Some(run)
    }

    /// One user of a cache for itself.
    fn claim(&self, cpu: usize) {
        let Some(mut mine) = self.pool.claim(cpu) else { return };
        for _ in 0..2 {
            let Ok(run) = mine.alloc_raw(&constraints()) else { continue };
            self.truth(|truth| truth.took(&run));
            self.truth(|truth| truth.gives(&run));
            // SAFETY: it was taken from this pool.
            assert!(unsafe { mine.free_raw(run) });
        }
    }

    /// The pool goes away and comes again.
    fn change(&self) {
        let Some(_turn) = self.pool.change() else { return };
        if let Some(start) = self.pool.close() {
            self.truth(|truth| {
                assert!(!truth.held.contains(&true), "closed with somebody in it");
                truth.open = false;
            });
            thread::yield_now();
            self.truth(|truth| truth.open = true);
            // SAFETY: as before; nobody reads or writes what it points to.
            assert!(unsafe { self.pool.open(start) });
        }
    }

    fn member(&self) {
        let mut own: Vec<SlotRun> = Vec::new();
        for _ in 0..STEPS {
            let cpu = thread_rng().gen_range(0..CACHES + 1);
            match thread_rng().gen_range(0..10) {
                0..4 => own.extend(self.alloc(cpu)),
                4 => own.drain(..).for_each(|run| self.free(cpu, run)),
                5 => self.truth(|truth| truth.sent.append(&mut own)),
                6 => own.extend(self.truth(|truth| truth.sent.pop())),
                7 => self.claim(cpu),
                _ => {
                    own.append(&mut self.truth(|truth| mem::take(&mut truth.sent)));
                    own.drain(..).for_each(|run| self.free(cpu, run));
                    self.change();
                }
            }
        }
        let cpu = thread_rng().gen_range(0..CACHES);
        own.into_iter().for_each(|run| self.free(cpu, run));
    }
}

/// A slot, some, or more than a word has bits.
fn constraints() -> Constraints {
    let slots: u64 = match thread_rng().gen_range(0..4) {
        0 | 1 => thread_rng().gen_range(1..4),
        2 => thread_rng().gen_range(4..65),
        _ => thread_rng().gen_range(65..300),
    };
    Constraints::of(slots * SLOT)
}

fn meet(members: usize) {
    let range = PhysRange::new(PhysAddr::new(0), SLOTS as u64 * SLOT).unwrap();
    let words: Vec<_> = (0..Pool::words(range.len())).map(|_| Word::new()).collect();
    let caches: Box<[_]> = (0..CACHES).map(|_| Cache::new()).collect();
    // SAFETY: nobody reads or writes the memory.
    let pool = unsafe { Pool::convertible(PoolLabel::GuestShared, range, &words) };
    let pool = pool.unwrap().with_caches(&caches);
    // SAFETY: the same.
    assert!(unsafe { pool.open(NonNull::dangling().into()) });
    let truth = Mutex::new(Truth { held: vec![false; SLOTS], sent: Vec::new(), open: true });
    let crowd = Crowd { pool: &pool, truth: &truth };
    thread::scope(|scope| {
        for _ in 0..members {
            scope.spawn(move || crowd.member());
        }
    });
    let sent = crowd.truth(|truth| mem::take(&mut truth.sent));
    let held = crowd.truth(|truth| truth.held.iter().filter(|held| **held).count());
    assert_eq!(pool.used(), held, "what is on its way");
    sent.into_iter().for_each(|run| crowd.free(0, run));
    assert_eq!((pool.used(), pool.held().count()), (0, 0));
    assert!(pool.high_water() <= SLOTS);
    let all = pool.alloc_raw(0, &Constraints::of(range.len())).expect("nothing is lost");
    // SAFETY: it was taken from this pool.
    assert!(unsafe { pool.free_raw(0, all) });
}

/// Schedules to try of each kind.
fn schedules() -> usize {
    std::env::var("SHUTTLE_SCHEDULES").ok().and_then(|number| number.parse().ok()).unwrap_or(1000)
}

#[test]
fn shuttle_stress_at_random() {
    for members in 4..=8 {
        shuttle::check_random(move || meet(members), schedules());
    }
}

/// Few changes from one thread to another, where they hurt: a bug that needs so many is found with
/// a known probability (Burckhardt and others, ASPLOS 2010).
#[test]
fn shuttle_stress_with_few_changes() {
    for members in 4..=8 {
        shuttle::check_pct(move || meet(members), schedules(), 4);
    }
}
