//! The memcpy floor: the copies of a run alone, in its order, to and from the same slots.
// UNSAFETY: bytes are copied between raw regions.
#![expect(unsafe_code)]

use core::ptr::NonNull;
use std::time::Duration;
use std::time::Instant;

use super::steady::DRAWN;
use crate::measure::Lane;
use crate::memory::Region;
use crate::memory::copy;
use crate::memory::zero;
use crate::terms::AtMap;
use crate::terms::Terms;

/// One pair as it was run, small, so that reading it costs little.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pair {
    /// The buffer's number.
    pub(crate) buffer: u32,
    /// Where the mapping lay that was ended.
    pub(crate) back: u32,
    /// Where the mapping lies that was made.
    pub(crate) to: u32,
}

impl Pair {
    /// No mapping at all. (Pools are shorter than this.)
    pub(crate) const NOWHERE: u32 = u32::MAX;

    /// An offset as it is written down.
    pub(crate) fn offset(at: Option<usize>) -> u32 {
        at.and_then(|at| u32::try_from(at).ok()).unwrap_or(Self::NOWHERE)
    }
}

/// Replays the copies of a trace, over and over.
pub(crate) struct Floor<'a> {
    turns: Vec<Pair>,
    buffers: Vec<NonNull<[u8]>>,
    region: &'a Region,
    terms: Terms,
    at: usize,
}

// SAFETY: the buffers are raw memory that nobody else uses while this lane runs.
unsafe impl Send for Floor<'_> {}

impl<'a> Floor<'a> {
    /// A trace that repeats itself is kept once.
    pub(crate) fn new(
        mut turns: Vec<Pair>,
        buffers: Vec<NonNull<[u8]>>,
        region: &'a Region,
        terms: Terms,
    ) -> Self {
        // The first ones fill an empty ring: they come once.
        let begun = buffers.len().min(turns.len());
        turns.drain(..begun);
        for period in [1, buffers.len(), DRAWN] {
            let again = turns.iter().skip(period);
            if period < turns.len() && turns.iter().zip(again).all(|(turn, next)| turn == next) {
                turns.truncate(period);
                break;
            }
        }
        Self { turns, buffers, region, terms, at: 0 }
    }

    #[inline]
    fn turn(&self, turn: Pair) -> Option<()> {
        let buffer = self.buffers.get(turn.buffer as usize)?;
        let (buffer, len) = (buffer.cast::<u8>(), buffer.len());
        if turn.back != Pair::NOWHERE && self.terms.copies_back() {
            // SAFETY: `at` answers for the slots, whoever made the lane for the buffer.
            unsafe { copy(self.region.at(turn.back as usize, len), buffer, len) };
        }
        if turn.to == Pair::NOWHERE {
            return Some(());
        }
        let slots = self.region.at(turn.to as usize, len);
        match self.terms.at_map() {
            AtMap::Nothing => {}
            // SAFETY: as above, the other way round.
            AtMap::Copy => unsafe { copy(buffer, slots, len) },
            // SAFETY: `at` answers for the slots.
            AtMap::Zero => unsafe { zero(slots, len) },
        }
        Some(())
    }
}

impl Lane for Floor<'_> {
    fn run(&mut self, pairs: usize) -> Option<Duration> {
        let start = Instant::now();
        for _ in 0..pairs {
            let turn = *self.turns.get(self.at)?;
            self.at = if self.at + 1 == self.turns.len() { 0 } else { self.at + 1 };
            self.turn(turn)?;
        }
        Some(start.elapsed())
    }
}
