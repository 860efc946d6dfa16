//! Pools in use: mappings of many sizes, made from both processors, and churned.
// UNSAFETY: buffers are mapped raw.
#![expect(unsafe_code)]

use super::Random;
use crate::hand::Subject;
use crate::hand::Worker;
use crate::measure::stand_for;
use crate::memory::Buffers;

/// How many of a hundred mappings are of a size, up to so many bytes; exactly, from a page on.
pub(crate) type Mix = [(usize, usize)];

/// What a pool of a busy guest holds.
pub(crate) const MIXED: &Mix =
    &[(50, 2048), (20, 4096), (15, 16 << 10), (10, 64 << 10), (5, 128 << 10)];
/// Small mappings alone.
pub(crate) const SMALL: &Mix = &[(50, 2048), (30, 4096), (20, 16 << 10)];

/// Times that an eighth of the mappings is exchanged after a pool was filled.
const CHURNS: usize = 8;
/// Refusals in a row after which a pool is as full as it gets.
const PATIENCE: usize = 64;

/// What fills a pool: records of the hands of one subject.
pub(crate) struct Filling<H: Worker> {
    hands: Vec<H>,
    held: Vec<H::Record>,
    mix: &'static Mix,
    random: Random,
}

impl<H: Worker> Filling<H> {
    /// Nothing yet, made by these hands in turn.
    pub(crate) fn new(hands: Vec<H>, mix: &'static Mix) -> Self {
        Self { hands, held: Vec::new(), mix, random: Random::new(0x2545_f491_4f6c_dd1d) }
    }

    /// Maps until `slots` are in use, or as many as go in.
    pub(crate) fn up_to<'s, S>(&mut self, subject: &'s S, slots: usize, buffers: &Buffers)
    where
        S: Subject<Worker<'s> = H>,
    {
        let mut refused = 0;
        while subject.used() < slots && refused < PATIENCE {
            let turn = self.held.len() % self.hands.len().max(1);
            let left = (slots - subject.used()) * crate::reference::SLOT;
            let len = self.draw().min(left);
            stand_for(turn);
            let Some(hand) = self.hands.get_mut(turn) else { return };
            // SAFETY: the scratch buffer is there as long as the pool is.
            let mut record = unsafe { hand.map(buffers.scratch(len)) };
            if record.is_none() {
                // SAFETY: as above.
                record = unsafe { hand.map(buffers.scratch(len.min(64))) };
            }
            match record {
                Some(record) => self.held.push(record),
                None => refused += 1,
            }
        }
    }

    /// Exchanges a random eighth of the mappings, so many times over.
    pub(crate) fn churn<'s, S>(
        &mut self,
        subject: &'s S,
        slots: usize,
        buffers: &Buffers,
        times: usize,
    ) where
        S: Subject<Worker<'s> = H>,
    {
        for _ in 0..times {
            for _ in 0..self.held.len() / 8 {
                let place = self.random.below(self.held.len());
                let record = self.held.swap_remove(place);
                let turn = self.held.len() % self.hands.len().max(1);
                stand_for(turn);
                let Some(hand) = self.hands.get_mut(turn) else { return };
                // SAFETY: the scratch buffer is there as long as the pool is; the record is of
                // this subject.
                unsafe { hand.unmap(record) };
            }
            self.up_to(subject, slots, buffers);
        }
    }

    /// The first of the hands.
    pub(crate) fn worker(&mut self) -> Option<&mut H> {
        self.hands.first_mut()
    }

    /// What it holds, to be kept, without the hands.
    pub(crate) fn into_held(self) -> Vec<H::Record> {
        self.held
    }

    fn draw(&mut self) -> usize {
        let mut ticket = self.random.below(100);
        for (share, len) in self.mix {
            if ticket < *share {
                return if *len < 4096 { 1 + self.random.below(*len) } else { *len };
            }
            ticket -= share;
        }
        64
    }
}

/// Fills a pool to `percent` of its slots from both processors, and churns it. Somewhere in its
/// middle room for `kept` mappings of a size is kept free: what is measured then can be had.
pub(crate) fn fill<'s, S: Subject>(
    subject: &'s S,
    percent: usize,
    capacity: usize,
    buffers: &Buffers,
    (kept, size): (usize, usize),
) -> Vec<<S::Worker<'s> as Worker>::Record> {
    let hands = (0..2).filter_map(|cpu| subject.worker(cpu)).collect();
    let slots = capacity * percent / 100;
    let mut filling = Filling::new(hands, MIXED);
    filling.up_to(subject, slots / 2, buffers);
    let mut room = Vec::new();
    if let Some(hand) = filling.worker() {
        // SAFETY: the scratch buffer is there as long as the pool is.
        room.extend((0..kept).filter_map(|_| unsafe { hand.map(buffers.scratch(size)) }));
    }
    let all = subject.used() + slots - slots / 2;
    let all = all.min(capacity);
    filling.up_to(subject, all, buffers);
    filling.churn(subject, all, buffers, CHURNS);
    if let Some(hand) = filling.worker() {
        for record in room {
            // SAFETY: as above; the record is of this subject.
            unsafe { hand.unmap(record) };
        }
    }
    filling.into_held()
}
