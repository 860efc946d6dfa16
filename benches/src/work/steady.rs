//! The steady state: `depth` mappings live, and each pair ends one and makes one.
// UNSAFETY: buffers are mapped raw.
#![expect(unsafe_code)]

use core::ptr::NonNull;
use core::sync::atomic::AtomicUsize;
use core::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use super::Random;
use super::floor::Pair;
use crate::hand::Worker;
use crate::measure::Lane;
use crate::row::Order;

/// Places in a random order, drawn beforehand: drawing costs, and costs everybody the same.
pub(super) const DRAWN: usize = 4096;

/// How long a trace may take.
const LONG: Duration = Duration::from_millis(300);

/// One thread that keeps `depth` mappings of buffers of its own.
pub(crate) struct Steady<'a, H: Worker> {
    hand: H,
    buffers: Vec<NonNull<[u8]>>,
    held: Vec<Option<H::Record>>,
    order: Vec<usize>,
    at: usize,
    refused: &'a AtomicUsize,
}

// SAFETY: the buffers are raw memory that this lane alone maps, wherever it runs.
unsafe impl<H: Worker> Send for Steady<'_, H> {}

impl<'a, H: Worker> Steady<'a, H> {
    /// One mapping for each of the buffers, which live until this is dropped. What is refused is
    /// counted in `refused`.
    pub(crate) fn new(
        hand: H,
        buffers: Vec<NonNull<[u8]>>,
        order: Order,
        refused: &'a AtomicUsize,
    ) -> Self {
        let depth = buffers.len();
        let mut random = Random::new(0x9e37_79b9_7f4a_7c15);
        let order = match order {
            Order::Fifo => (0..depth).collect(),
            Order::Random => (0..DRAWN).map(|_| random.below(depth)).collect(),
        };
        let held = (0..depth).map(|_| None).collect();
        Self { hand, buffers, held, order, at: 0, refused }
    }

    /// Runs as [`run`](Lane::run) does, and writes down which buffers were copied where; fewer
    /// pairs where they take long.
    pub(crate) fn trace(&mut self, pairs: usize) -> Vec<Pair> {
        let mut turns = Vec::with_capacity(pairs);
        let start = Instant::now();
        for pair in 0..pairs {
            if pair % 64 == 63 && start.elapsed() > LONG && pair >= 2 * self.held.len() {
                break;
            }
            let Some((place, buffer)) = self.next() else { break };
            let back = self.offset(place);
            self.turn(place, buffer);
            let to = self.offset(place);
            turns.push(Pair { buffer: u32::try_from(place).unwrap_or(0), back, to });
        }
        turns
    }

    /// Ends all mappings.
    pub(crate) fn clear(&mut self) {
        for record in self.held.iter_mut().filter_map(Option::take) {
            // SAFETY: as in `turn`.
            unsafe { self.hand.unmap(record) };
        }
    }

    fn offset(&self, place: usize) -> u32 {
        let held = self.held.get(place).and_then(Option::as_ref);
        Pair::offset(held.map(|record| self.hand.offset(record)))
    }

    #[inline]
    fn next(&mut self) -> Option<(usize, NonNull<[u8]>)> {
        let place = *self.order.get(self.at)?;
        self.at = if self.at + 1 == self.order.len() { 0 } else { self.at + 1 };
        Some((place, *self.buffers.get(place)?))
    }

    /// Ends what is at a place, and maps its buffer again.
    #[inline]
    fn turn(&mut self, place: usize, buffer: NonNull<[u8]>) {
        let Some(held) = self.held.get_mut(place) else { return };
        if let Some(record) = held.take() {
            // SAFETY: the buffer lives as long as this lane; the record is of this subject.
            unsafe { self.hand.unmap(record) };
        }
        // SAFETY: the buffer lives as long as this lane, which alone uses it.
        *held = unsafe { self.hand.map(buffer) };
        if held.is_none() {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// One mapping at a time: nothing is kept anywhere.
    #[inline]
    fn alone(&mut self, buffer: NonNull<[u8]>, pairs: usize) {
        for _ in 0..pairs {
            // SAFETY: as in `turn`.
            match unsafe { self.hand.map(buffer) } {
                // SAFETY: as in `turn`.
                Some(record) => unsafe { self.hand.unmap(record) },
                None => _ = self.refused.fetch_add(1, Ordering::Relaxed),
            }
        }
    }
}

impl<H: Worker> Lane for Steady<'_, H> {
    fn run(&mut self, pairs: usize) -> Option<Duration> {
        if let [buffer] = *self.buffers {
            // What a trace left.
            self.clear();
            let start = Instant::now();
            self.alone(buffer, pairs);
            return Some(start.elapsed());
        }
        let start = Instant::now();
        for _ in 0..pairs {
            let (place, buffer) = self.next()?;
            self.turn(place, buffer);
        }
        Some(start.elapsed())
    }

    fn calls(&mut self, count: usize, times: &mut Vec<f64>) {
        for _ in 0..count {
            let Some((place, buffer)) = self.next() else { return };
            let Some(held) = self.held.get_mut(place) else { return };
            if let Some(record) = held.take() {
                // SAFETY: as in `turn`.
                unsafe { self.hand.unmap(record) };
            }
            let start = Instant::now();
            // SAFETY: as in `turn`.
            let mapped = unsafe { self.hand.map(buffer) };
            let took = start.elapsed();
            if mapped.is_some() {
                times.push(took.as_secs_f64() * 1e9);
            }
            *held = mapped;
        }
    }
}
