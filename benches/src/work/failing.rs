//! A map that must fail: half of the pool is free, and no two slots of it side by side.
// UNSAFETY: buffers are mapped raw.
#![expect(unsafe_code)]

use core::ptr::NonNull;
use std::time::Duration;
use std::time::Instant;

use crate::hand::Worker;
use crate::measure::Lane;

/// One thread that asks for what there is not.
pub(crate) struct Failing<H: Worker> {
    hand: H,
    buffer: NonNull<[u8]>,
    /// What keeps the pool as it is.
    _held: Vec<H::Record>,
}

// SAFETY: the buffer is raw memory that this lane alone maps, wherever it runs.
unsafe impl<H: Worker> Send for Failing<H> {}

impl<H: Worker> Failing<H> {
    /// Takes every slot, and frees every other one, lowest first. `None` where a map of `buffer`
    /// has room all the same. Both buffers live until this is dropped.
    pub(crate) fn new(mut hand: H, small: NonNull<[u8]>, buffer: NonNull<[u8]>) -> Option<Self> {
        let mut all = Vec::new();
        // SAFETY: the buffer lives as long as this lane.
        while let Some(record) = unsafe { hand.map(small) } {
            all.push((hand.offset(&record), record));
        }
        all.sort_unstable_by_key(|(offset, _)| *offset);
        let mut held = Vec::with_capacity(all.len().div_ceil(2));
        for (index, (_, record)) in all.into_iter().enumerate() {
            if index % 2 == 0 {
                held.push(record);
            } else {
                // SAFETY: as above; the record is of this subject.
                unsafe { hand.unmap(record) };
            }
        }
        // SAFETY: as above.
        let fails = unsafe { hand.map(buffer) }.is_none();
        fails.then_some(Self { hand, buffer, _held: held })
    }
}

impl<H: Worker> Lane for Failing<H> {
    fn run(&mut self, pairs: usize) -> Option<Duration> {
        let start = Instant::now();
        for _ in 0..pairs {
            // SAFETY: the buffer lives as long as this lane, which alone uses it.
            if let Some(record) = unsafe { self.hand.map(self.buffer) } {
                // SAFETY: as above; the record is of this subject.
                unsafe { self.hand.unmap(record) };
            }
        }
        Some(start.elapsed())
    }

    fn calls(&mut self, count: usize, times: &mut Vec<f64>) {
        for _ in 0..count {
            let start = Instant::now();
            self.run(1);
            times.push(start.elapsed().as_secs_f64() * 1e9);
        }
    }
}
