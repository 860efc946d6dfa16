//! The private table: what each live address stands for. It lies in the caller's storage, never
//! in memory that a device can write.
// UNSAFETY: records are handed between threads by an atomic state of their own.
#![expect(unsafe_code)]

#[cfg(all(test, loom))]
mod models;

use core::fmt;
use core::ptr::NonNull;

#[cfg(not(all(test, loom)))]
use core::cell::UnsafeCell;
#[cfg(not(all(test, loom)))]
use core::sync::atomic::AtomicUsize;
#[cfg(not(all(test, loom)))]
use core::sync::atomic::Ordering;

#[cfg(all(test, loom))]
use loom::cell::UnsafeCell;
#[cfg(all(test, loom))]
use loom::sync::atomic::AtomicUsize;
#[cfg(all(test, loom))]
use loom::sync::atomic::Ordering;

use coco_dma::coherent::RawCoherent;
use coco_dma::state::Direction;
use coco_dma::stream::RawMapping;

/// Storage for one live mapping or allocation of an adaptor. A queue of `n` requests needs one
/// for each buffer of each request, and a few for its rings; with twice as many, a record is found
/// at the first or second look.
#[derive(Debug)]
pub struct Record(Entry<Live>);

impl Record {
    /// An empty record.
    #[cfg(not(all(test, loom)))]
    #[expect(clippy::new_without_default, reason = "a Default would not be const")]
    pub const fn new() -> Self {
        Self(Entry { state: AtomicUsize::new(FREE), live: UnsafeCell::new(None) })
    }
}

impl AsRef<Entry<Live>> for Record {
    fn as_ref(&self) -> &Entry<Live> {
        &self.0
    }
}

/// What an address stands for.
#[derive(Debug)]
pub(crate) enum Live {
    Mapped(RawMapping),
    Allocated(RawCoherent),
}

/// What a driver knows of a record: its address, and what it is of. One address may be live
/// several times, where a buffer is mapped in place for several requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    addr: u64,
    start: *mut u8,
    len: usize,
    /// The direction of a mapping; none of an allocation.
    direction: Option<Direction>,
}

impl Key {
    pub(crate) fn mapped(addr: u64, buffer: NonNull<[u8]>, direction: Direction) -> Self {
        let (start, len) = (buffer.as_ptr().cast(), buffer.len());
        Self { addr, start, len, direction: Some(direction) }
    }

    pub(crate) fn allocated(addr: u64, bytes: NonNull<[u8]>) -> Self {
        Self { addr, start: bytes.as_ptr().cast(), len: bytes.len(), direction: None }
    }

    /// The state of a live record with this key. Others pass it over without claiming it; of two
    /// keys that share a tag the records themselves tell which is which. A tag of all of the key,
    /// not of the address alone: while one thread holds another one's record to look at it, that
    /// one would not find it.
    fn tag(&self) -> usize {
        let kind = match self.direction {
            None => 0,
            Some(Direction::ToDevice) => 1,
            Some(Direction::FromDevice) => 2,
            Some(Direction::Both) => 3,
        };
        // Fibonacci hashing, a word at a time.
        let mix = |seen: u64, word: u64| {
            (seen.rotate_left(29) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15)
        };
        let parts = [self.addr, self.start.addr() as u64, self.len as u64, kind];
        let hash = parts.into_iter().fold(0, mix);
        #[expect(clippy::cast_possible_truncation, reason = "the tag is a hint")]
        let hash = (hash ^ (hash >> 32)) as usize;
        hash.wrapping_shl(2) | LIVE
    }
}

/// What can stand in a table.
pub(crate) trait Keyed {
    fn key(&self) -> Key;
}

impl Keyed for Live {
    fn key(&self) -> Key {
        match self {
            Self::Mapped(mapping) => {
                Key::mapped(mapping.addr().raw(), mapping.buffer(), mapping.direction())
            }
            Self::Allocated(memory) => Key::allocated(memory.addr().raw(), memory.bytes()),
        }
    }
}

/// One place of a table.
pub(crate) struct Entry<T> {
    state: AtomicUsize,
    live: UnsafeCell<Option<T>>,
}

/// Nothing in it.
const FREE: usize = 0;
/// One thread is at it.
const BUSY: usize = 1;
/// The lowest tag of a live record.
const LIVE: usize = 2;

// SAFETY: `live` is only touched by the thread that moved `state` to BUSY, and what is in it is
// handed over with that.
unsafe impl<T: Send> Sync for Entry<T> {}

impl<T> Entry<T> {
    fn is(&self, state: usize) -> bool {
        self.state.load(Ordering::Relaxed) == state
    }

    /// Moves the record from `from` to BUSY.
    fn claim(&self, from: usize) -> bool {
        // Acquire: pairs with the release that put the record into this state.
        self.state.compare_exchange(from, BUSY, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    fn settle(&self, state: usize) {
        self.state.store(state, Ordering::Release);
    }

    /// Runs `work` with what is in the record.
    ///
    /// # Safety
    ///
    /// This thread moved the record to BUSY.
    unsafe fn with<R>(&self, work: impl FnOnce(&mut Option<T>) -> R) -> R {
        #[cfg(not(all(test, loom)))]
        let live = self.live.get();
        #[cfg(all(test, loom))]
        let pointer = self.live.get_mut();
        #[cfg(all(test, loom))]
        let live = pointer.with(|live| live);
        // SAFETY: nobody else is at a record that is BUSY.
        work(unsafe { &mut *live })
    }
}

impl<T> fmt::Debug for Entry<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record").field("state", &self.state).finish_non_exhaustive()
    }
}

/// Finds records by key. Neighbours in address are neighbours in the table.
#[derive(Debug)]
pub(crate) struct Table<'d, E = Record>(pub(crate) &'d [E]);

impl<'d, E> Table<'d, E> {
    /// Keeps a record; gives it back where the table is full.
    pub(crate) fn keep<T: Keyed>(&self, live: T) -> Result<(), T>
    where
        E: AsRef<Entry<T>>,
    {
        let key = live.key();
        for entry in self.from(key.addr).map(AsRef::as_ref) {
            if entry.is(FREE) && entry.claim(FREE) {
                // SAFETY: BUSY, so this thread alone is at it.
                unsafe { entry.with(|place| *place = Some(live)) };
                entry.settle(key.tag());
                return Ok(());
            }
        }
        Err(live)
    }

    /// Takes out a record with this key; `None` where there is none, and then nothing has changed.
    pub(crate) fn remove<T: Keyed>(&self, key: &Key) -> Option<T>
    where
        E: AsRef<Entry<T>>,
    {
        let tag = key.tag();
        self.from(key.addr).find_map(|entry| take(entry.as_ref(), tag, |at| at == *key))
    }

    /// Takes out any live record; `None` where there is none.
    pub(crate) fn remove_any<T: Keyed>(&self) -> Option<T>
    where
        E: AsRef<Entry<T>>,
    {
        self.0.iter().map(AsRef::as_ref).find_map(|entry| {
            let state = entry.state.load(Ordering::Relaxed);
            if state < LIVE { None } else { take(entry, state, |_| true) }
        })
    }

    /// How many records are live at this moment.
    pub(crate) fn live<T: Keyed>(&self) -> usize
    where
        E: AsRef<Entry<T>>,
    {
        let live = |entry: &&E| entry.as_ref().state.load(Ordering::Relaxed) >= LIVE;
        self.0.iter().filter(live).count()
    }

    /// Whether `wanted` records are free at this moment.
    pub(crate) fn has_free<T: Keyed>(&self, wanted: usize) -> bool
    where
        E: AsRef<Entry<T>>,
    {
        let free = |entry: &&E| entry.as_ref().is(FREE);
        self.0.iter().filter(free).take(wanted).count() == wanted
    }

    /// All records, those where `addr` is likely to be found first.
    fn from(&self, addr: u64) -> impl Iterator<Item = &'d E> + use<'d, E> {
        let slot = (addr / coco_dma::addr::SLOT) % (self.0.len().max(1) as u64);
        let start = usize::try_from(slot).unwrap_or(0);
        let (before, after) = self.0.split_at_checked(start).unwrap_or((self.0, &[]));
        after.iter().chain(before)
    }
}

/// Takes a record out of a place in this state, if it is the one.
fn take<T: Keyed>(entry: &Entry<T>, tag: usize, is: impl Fn(Key) -> bool) -> Option<T> {
    if !entry.is(tag) || !entry.claim(tag) {
        return None;
    }
    // SAFETY: BUSY, so this thread alone is at it.
    let found = unsafe {
        entry.with(|live| {
            if live.as_ref().is_some_and(|live| is(live.key())) { live.take() } else { None }
        })
    };
    entry.settle(if found.is_some() { FREE } else { tag });
    found
}
