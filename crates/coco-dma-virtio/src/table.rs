//! The private table: what each live address stands for. It lies in the caller's storage, never
//! in memory that a device can write.
// UNSAFETY: records are handed between threads by an atomic state of their own.
#![expect(unsafe_code)]

use core::cell::UnsafeCell;
use core::fmt;
use core::sync::atomic::AtomicUsize;
use core::sync::atomic::Ordering;

use coco_dma::coherent::RawCoherent;
use coco_dma::stream::RawMapping;

/// Storage for one live mapping or allocation of an adaptor. A queue of `n` requests needs one
/// for each buffer of each request, and a few for its rings.
pub struct Record {
    state: AtomicUsize,
    live: UnsafeCell<Option<Live>>,
}

/// What an address stands for.
#[derive(Debug)]
pub(crate) enum Live {
    Mapped(RawMapping),
    Allocated(RawCoherent),
}

/// Nothing in it.
const FREE: usize = 0;
/// One thread is at it.
const BUSY: usize = 1;
/// The lowest tag of a live record. A tag holds the address, so that the others need not be
/// claimed to be passed over.
const LIVE: usize = 2;

// SAFETY: `live` is only touched by the thread that moved `state` to BUSY.
unsafe impl Sync for Record {}

impl Record {
    /// An empty record.
    #[expect(clippy::new_without_default, reason = "a Default would not be const")]
    pub const fn new() -> Self {
        Self { state: AtomicUsize::new(FREE), live: UnsafeCell::new(None) }
    }

    /// Moves the record from `from` to BUSY.
    fn claim(&self, from: usize) -> bool {
        // Acquire: pairs with the release that put the record into this state.
        self.state.compare_exchange(from, BUSY, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    fn settle(&self, state: usize) {
        self.state.store(state, Ordering::Release);
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record").field("state", &self.state).finish_non_exhaustive()
    }
}

/// Finds records by address. Neighbours in address are neighbours in the table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Table<'d>(pub(crate) &'d [Record]);

impl<'d> Table<'d> {
    /// Keeps what `addr` stands for; gives it back where the table is full.
    pub(crate) fn keep(self, addr: u64, live: Live) -> Result<(), Live> {
        for record in self.from(addr) {
            if record.state.load(Ordering::Relaxed) == FREE && record.claim(FREE) {
                // SAFETY: BUSY, so this thread alone is at it.
                unsafe { *record.live.get() = Some(live) };
                record.settle(tag(addr));
                return Ok(());
            }
        }
        Err(live)
    }

    /// Takes out what `addr` stands for, if `is` says that it is the one. `None` where there is
    /// none; then nothing has changed.
    pub(crate) fn remove(self, addr: u64, is: impl Fn(&Live) -> bool) -> Option<Live> {
        for record in self.from(addr) {
            if record.state.load(Ordering::Relaxed) != tag(addr) || !record.claim(tag(addr)) {
                continue;
            }
            // SAFETY: BUSY, so this thread alone is at it.
            let live = unsafe { &mut *record.live.get() };
            if live.as_ref().is_some_and(&is) {
                let found = live.take();
                record.settle(FREE);
                return found;
            }
            record.settle(tag(addr));
        }
        None
    }

    /// Takes out any live record; `None` where there is none.
    pub(crate) fn remove_any(self) -> Option<Live> {
        for record in self.0 {
            let state = record.state.load(Ordering::Relaxed);
            if state < LIVE || !record.claim(state) {
                continue;
            }
            // SAFETY: BUSY, so this thread alone is at it.
            let live = unsafe { (*record.live.get()).take() };
            record.settle(FREE);
            if live.is_some() {
                return live;
            }
        }
        None
    }

    /// How many records are live at this moment.
    pub(crate) fn live(self) -> usize {
        let live = |record: &&Record| record.state.load(Ordering::Relaxed) >= LIVE;
        self.0.iter().filter(live).count()
    }

    /// Whether `wanted` records are free at this moment.
    pub(crate) fn has_free(self, wanted: usize) -> bool {
        let free = |record: &&Record| record.state.load(Ordering::Relaxed) == FREE;
        self.0.iter().filter(free).take(wanted).count() == wanted
    }

    /// All records, those where `addr` is likely to be found first.
    fn from(self, addr: u64) -> impl Iterator<Item = &'d Record> {
        let slot = (addr / coco_dma::addr::SLOT) % (self.0.len().max(1) as u64);
        let start = usize::try_from(slot).unwrap_or(0);
        let (before, after) = self.0.split_at_checked(start).unwrap_or((self.0, &[]));
        after.iter().chain(before)
    }
}

/// The state of a live record for `addr`. On narrow machines two addresses may share one; `is`
/// tells them apart.
#[expect(clippy::cast_possible_truncation, reason = "the tag is a hint, checked by `is`")]
fn tag(addr: u64) -> usize {
    (addr as usize).wrapping_shl(2) | LIVE
}
