//! A device at work on the other processor: it touches every byte of every mapping, so that the
//! pool's lines are in its cache and not in ours.
// UNSAFETY: buffers are mapped raw, and the device reads and writes what it was given.
#![expect(unsafe_code)]

use core::ptr::NonNull;
use core::sync::atomic::AtomicUsize;
use core::sync::atomic::Ordering;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use coco_dma::state::Direction;

use crate::hand::Worker;
use crate::measure::Lane;
use crate::measure::pause;
use crate::memory::Region;

/// What driver and device have between them: mappings in batches, one batch at a time.
struct Desk {
    offsets: Vec<AtomicUsize>,
    posted: AtomicUsize,
    done: AtomicUsize,
}

/// A driver that maps all `buffers`, has the device use them, and finishes them; and the device.
/// The driver's time is that of its maps and finishes alone. The buffers live until both are
/// dropped.
pub(crate) fn active<'a, H: Worker + 'a>(
    hand: H,
    buffers: Vec<NonNull<[u8]>>,
    region: &'a Region,
    direction: Direction,
    refused: &'a AtomicUsize,
) -> Vec<Box<dyn Lane + 'a>> {
    let len = buffers.first().map_or(0, |buffer| buffer.len());
    let desk = Arc::new(Desk {
        offsets: buffers.iter().map(|_| AtomicUsize::new(0)).collect(),
        posted: AtomicUsize::new(0),
        done: AtomicUsize::new(0),
    });
    let records = Vec::with_capacity(buffers.len());
    let driver = Driver { hand, buffers, records, desk: Arc::clone(&desk), refused };
    vec![Box::new(driver), Box::new(Device { desk, region, direction, len })]
}

struct Driver<'a, H: Worker> {
    hand: H,
    buffers: Vec<NonNull<[u8]>>,
    records: Vec<H::Record>,
    desk: Arc<Desk>,
    refused: &'a AtomicUsize,
}

// SAFETY: the buffers are raw memory that this lane alone uses, wherever it runs.
unsafe impl<H: Worker> Send for Driver<'_, H> {}

impl<H: Worker> Lane for Driver<'_, H> {
    fn run(&mut self, pairs: usize) -> Option<Duration> {
        let mut took = Duration::ZERO;
        for _ in 0..pairs.div_ceil(self.buffers.len().max(1)) {
            let start = Instant::now();
            for (buffer, offset) in self.buffers.iter().zip(&self.desk.offsets) {
                // SAFETY: the buffer lives as long as this lane.
                match unsafe { self.hand.map(*buffer) } {
                    Some(record) => {
                        offset.store(self.hand.offset(&record), Ordering::Relaxed);
                        self.records.push(record);
                    }
                    None => _ = self.refused.fetch_add(1, Ordering::Relaxed),
                }
            }
            took += start.elapsed();
            let batch = self.desk.posted.fetch_add(1, Ordering::Release) + 1;
            pause(|| self.desk.done.load(Ordering::Acquire) == batch);
            let start = Instant::now();
            for record in self.records.drain(..) {
                // SAFETY: as above; the device is done, and the record is of this subject.
                unsafe { self.hand.unmap(record) };
            }
            took += start.elapsed();
        }
        // Whole batches were done: their time is scaled to the pairs that were asked for.
        let batches = pairs.div_ceil(self.buffers.len().max(1)) * self.buffers.len();
        #[expect(clippy::cast_precision_loss, reason = "nobody counts to 2^53 here")]
        let part = pairs as f64 / batches.max(1) as f64;
        Some(took.mul_f64(part))
    }
}

struct Device<'a> {
    desk: Arc<Desk>,
    region: &'a Region,
    direction: Direction,
    len: usize,
}

impl Device<'_> {
    fn touch(&self, offset: usize) {
        let bytes = self.region.at(offset, self.len);
        for word in 0..self.len / 8 {
            // SAFETY: `at` answers for it.
            let at = unsafe { bytes.add(word * 8) }.cast::<u64>();
            if self.direction.to_device() {
                // SAFETY: inside the mapping, which is the device's until it says that it is done;
                // a mapping may begin at any byte.
                let _ = core::hint::black_box(unsafe { at.read_unaligned() });
            }
            if self.direction.from_device() {
                // SAFETY: as above.
                unsafe { at.write_unaligned(word as u64) };
            }
        }
    }
}

impl Lane for Device<'_> {
    fn run(&mut self, pairs: usize) -> Option<Duration> {
        for _ in 0..pairs.div_ceil(self.desk.offsets.len().max(1)) {
            let batch = self.desk.done.load(Ordering::Relaxed) + 1;
            pause(|| self.desk.posted.load(Ordering::Acquire) == batch);
            for offset in &self.desk.offsets {
                self.touch(offset.load(Ordering::Relaxed));
            }
            self.desk.done.store(batch, Ordering::Release);
        }
        None
    }
}
