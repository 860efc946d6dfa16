//! Mapped on one processor, finished on the other.
// UNSAFETY: buffers are mapped raw, and records change hands in a ring.
#![expect(unsafe_code)]

use core::cell::UnsafeCell;
use core::ptr::NonNull;
use core::sync::atomic::AtomicUsize;
use core::sync::atomic::Ordering;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use crate::hand::Worker;
use crate::measure::Lane;
use crate::measure::pause;

/// Records on their way at most.
pub(crate) const RING: usize = 64;
/// Records that are shown to the other side together, so that the ring's own lines do not drown
/// what is measured.
const BATCH: usize = 16;

/// A counter on lines of its own.
#[derive(Default)]
#[repr(align(128))]
struct Count(AtomicUsize);

/// A ring of records, for one that puts and one that takes.
struct Ring<R> {
    cells: Vec<UnsafeCell<Option<R>>>,
    put: Count,
    taken: Count,
}

// SAFETY: a cell is the putting side's until `put` passes it, and the taking side's until `taken`
// does.
unsafe impl<R: Send> Sync for Ring<R> {}

/// The two lanes of a handoff: the first maps `buffers` in turn, the second finishes. The buffers
/// live until both are dropped.
pub(crate) fn handoff<'a, H: Worker + 'a>(
    mapper: H,
    finisher: H,
    buffers: Vec<NonNull<[u8]>>,
) -> Vec<Box<dyn Lane + 'a>> {
    let cells = (0..RING).map(|_| UnsafeCell::new(None)).collect();
    let ring = Arc::new(Ring { cells, put: Count::default(), taken: Count::default() });
    let other = Arc::clone(&ring);
    vec![
        Box::new(Mapper { hand: mapper, buffers, ring, at: 0 }),
        Box::new(Finisher { hand: finisher, ring: other, at: 0 }),
    ]
}

struct Mapper<H: Worker> {
    hand: H,
    buffers: Vec<NonNull<[u8]>>,
    ring: Arc<Ring<H::Record>>,
    at: usize,
}

// SAFETY: the buffers are raw memory that the two lanes alone use, wherever they run.
unsafe impl<H: Worker> Send for Mapper<H> {}

impl<H: Worker> Lane for Mapper<H> {
    fn run(&mut self, pairs: usize) -> Option<Duration> {
        let start = Instant::now();
        let end = self.at + pairs;
        while self.at < end {
            let batch = BATCH.min(end - self.at);
            pause(|| self.at + batch - self.ring.taken.0.load(Ordering::Acquire) <= RING);
            for _ in 0..batch {
                let buffer = *self.buffers.get(self.at % self.buffers.len().max(1))?;
                // SAFETY: the buffer lives as long as this lane.
                let mut record = unsafe { self.hand.map(buffer) };
                if record.is_none() {
                    // The other side gives back soon what is lacking.
                    self.ring.put.0.store(self.at, Ordering::Release);
                    pause(|| {
                        // SAFETY: as above.
                        record = unsafe { self.hand.map(buffer) };
                        record.is_some()
                    });
                }
                let cell = self.ring.cells.get(self.at % RING)?;
                // SAFETY: `taken` has passed what was in this cell, and `put` has not passed this.
                unsafe { *cell.get() = record };
                self.at += 1;
            }
            self.ring.put.0.store(self.at, Ordering::Release);
        }
        Some(start.elapsed())
    }
}

struct Finisher<H: Worker> {
    hand: H,
    ring: Arc<Ring<H::Record>>,
    at: usize,
}

// SAFETY: records are `Send`, hands are too, and the ring is shared as it is meant to be.
unsafe impl<H: Worker> Send for Finisher<H> {}

impl<H: Worker> Lane for Finisher<H> {
    fn run(&mut self, pairs: usize) -> Option<Duration> {
        let start = Instant::now();
        let end = self.at + pairs;
        while self.at < end {
            pause(|| self.ring.put.0.load(Ordering::Acquire) > self.at);
            let put = self.ring.put.0.load(Ordering::Acquire).min(end);
            while self.at < put {
                let cell = self.ring.cells.get(self.at % RING)?;
                // SAFETY: `put` has passed this cell, and `taken` has not.
                if let Some(record) = unsafe { (*cell.get()).take() } {
                    // SAFETY: the buffer lives as long as the lanes; the record is of this subject.
                    unsafe { self.hand.unmap(record) };
                }
                self.at += 1;
            }
            self.ring.taken.0.store(self.at, Ordering::Release);
        }
        Some(start.elapsed())
    }
}
