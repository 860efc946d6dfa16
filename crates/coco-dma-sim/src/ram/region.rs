//! One run of RAM: its bytes, the state of its granules, and which of its pages are given out.

use std::ptr::NonNull;

use coco_dma::addr::PhysAddr;
use coco_dma::addr::PhysRange;
use coco_dma::state::State;

use super::GranuleState;
use crate::backing::Backing;
use crate::number;

/// One run of RAM, made of whole granules.
#[derive(Debug)]
pub(crate) struct Region {
    range: PhysRange,
    backing: Backing,
    states: Vec<GranuleState>,
    taken: Vec<bool>,
}

impl Region {
    /// The RAM at `range`, all of it in one state; `None` where this process cannot have it.
    pub(crate) fn new(range: PhysRange, granule: u64, state: State) -> Option<Self> {
        let backing = Backing::new(usize::try_from(range.len()).ok()?)?;
        let count = number::size(range.len() / granule);
        let states = vec![GranuleState::In(state); count];
        Some(Self { range, backing, states, taken: vec![false; count] })
    }

    pub(crate) fn range(&self) -> PhysRange {
        self.range
    }

    pub(super) fn backing(&self) -> &Backing {
        &self.backing
    }

    /// How far into the region the run lies, where all of it does.
    pub(super) fn offset(&self, run: PhysRange) -> Option<usize> {
        let offset = run.base().offset_from(self.range.base())?;
        self.range.contains(run).then(|| number::size(offset))
    }

    pub(super) fn pointer(&self, run: PhysRange) -> Option<NonNull<u8>> {
        self.backing.pointer(self.offset(run)?, number::size(run.len()))
    }

    pub(super) fn locate(&self, address: usize, len: usize) -> Option<PhysRange> {
        let offset = self.backing.offset_of(address, len)?;
        self.range.slice(number::wide(offset), number::wide(len))
    }

    pub(super) fn state(&self, granule: u64, at: PhysAddr) -> Option<GranuleState> {
        self.states.get(self.index(granule, at)?).copied()
    }

    pub(super) fn set_state(&mut self, granule: u64, at: PhysAddr, state: GranuleState) {
        if let Some(index) = self.index(granule, at)
            && let Some(entry) = self.states.get_mut(index)
        {
            *entry = state;
        }
    }

    /// Every granule with its state.
    pub(super) fn granules(
        &self,
        granule: u64,
    ) -> impl Iterator<Item = (PhysRange, GranuleState)> + '_ {
        number::granules(self.range, granule).zip(self.states.iter().copied())
    }

    /// Gives out the lowest free run of `count` granules in which all are in `state`.
    pub(crate) fn take(&mut self, granule: u64, count: usize, state: State) -> Option<PhysRange> {
        let free =
            |(taken, found): (&bool, &GranuleState)| !taken && *found == GranuleState::In(state);
        let mut length = 0;
        let end = self.taken.iter().zip(&self.states).position(|pair| {
            length = if free(pair) { length + 1 } else { 0 };
            length == count
        })?;
        let first = number::wide(end + 1 - count);
        let run = self.range.slice(first * granule, number::wide(count) * granule)?;
        self.mark(granule, run, true);
        Some(run)
    }

    /// Whether a granule of `run` is given out.
    pub(crate) fn any_taken(&self, granule: u64, run: PhysRange) -> bool {
        number::granules(run, granule).any(|part| {
            self.index(granule, part.base()).and_then(|index| self.taken.get(index)) == Some(&true)
        })
    }

    /// Gives `run` out, or takes it back.
    pub(crate) fn mark(&mut self, granule: u64, run: PhysRange, taken: bool) {
        for part in number::granules(run, granule) {
            if let Some(index) = self.index(granule, part.base())
                && let Some(entry) = self.taken.get_mut(index)
            {
                *entry = taken;
            }
        }
    }

    fn index(&self, granule: u64, at: PhysAddr) -> Option<usize> {
        Some(number::size(at.offset_from(self.range.base())? / granule))
    }
}
