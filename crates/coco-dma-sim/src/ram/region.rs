//! One run of RAM: its bytes, the state of its granules, and which of its pages are given out.

use std::ptr::NonNull;

use coco_dma::addr::PhysAddr;
use coco_dma::addr::PhysRange;
use coco_dma::state::CacheMode;
use coco_dma::state::State;

use super::GranuleState;
use super::access::Path;
use super::caches::Caches;
use crate::backing::Backing;
use crate::number;

/// One run of RAM, made of whole granules.
#[derive(Debug)]
pub(crate) struct Region {
    range: PhysRange,
    backing: Backing,
    /// What is past the CPU's caches, on a machine where that is something else.
    caches: Option<Caches>,
    states: Vec<GranuleState>,
    taken: Vec<bool>,
}

impl Region {
    /// The RAM at `range`, all of it in one state, with or without caches above it; `None` where this
    /// process cannot have it.
    pub(crate) fn new(range: PhysRange, granule: u64, state: State, cached: bool) -> Option<Self> {
        let len = usize::try_from(range.len()).ok()?;
        let backing = Backing::new(len)?;
        let caches = if cached { Some(Caches::new(len)?) } else { None };
        let count = number::size(range.len() / granule);
        let states = vec![GranuleState::In(state); count];
        Some(Self { range, backing, caches, states, taken: vec![false; count] })
    }

    pub(crate) fn range(&self) -> PhysRange {
        self.range
    }

    pub(super) fn has_caches(&self) -> bool {
        self.caches.is_some()
    }

    /// Copies from `offset` on, as whoever comes this way sees it.
    pub(super) fn read(&self, way: Path, offset: usize, into: &mut [u8]) -> bool {
        match (way, &self.caches) {
            (Path::Cpu, _) | (_, None) => self.backing.read(offset, into),
            (Path::Coherent, Some(caches)) => caches.read(&self.backing, offset, into),
            (Path::Memory, Some(caches)) => caches.memory().read(offset, into),
        }
    }

    /// Copies to `offset` and on.
    pub(super) fn write(&self, way: Path, offset: usize, from: &[u8]) -> bool {
        match (way, &self.caches) {
            (Path::Cpu, _) | (_, None) => self.backing.write(offset, from),
            (Path::Coherent, Some(caches)) => caches.write(&self.backing, offset, from),
            (Path::Memory, Some(caches)) => caches.memory().write(offset, from),
        }
    }

    /// Cleans the lines of `run`, and drops them where `forget` says so.
    pub(super) fn write_back(&self, run: PhysRange, forget: bool) {
        if let (Some(caches), Some(offset)) = (&self.caches, self.offset(run)) {
            let len = number::size(run.len());
            match forget {
                true => caches.drop_lines(&self.backing, offset, len),
                false => caches.clean(&self.backing, offset, len),
            }
        }
    }

    /// How far into the region the run lies, where all of it does.
    pub(super) fn offset(&self, run: PhysRange) -> Option<usize> {
        let offset = run.base().offset_from(self.range.base())?;
        self.range.contains(run).then(|| number::size(offset))
    }

    /// A pointer into the caches, or past them.
    pub(super) fn pointer(&self, run: PhysRange, cache: CacheMode) -> Option<NonNull<u8>> {
        let past = self.caches.as_ref().filter(|_| cache != CacheMode::WriteBack);
        let bytes = past.map_or(&self.backing, Caches::memory);
        bytes.pointer(self.offset(run)?, number::size(run.len()))
    }

    /// The run behind a pointer into the caches; past them where `past` says so.
    pub(super) fn locate(&self, past: bool, address: usize, len: usize) -> Option<PhysRange> {
        let bytes = match past {
            true => self.caches.as_ref()?.memory(),
            false => &self.backing,
        };
        let offset = bytes.offset_of(address, len)?;
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

    /// Gives out the lowest free run of `count` granules that fits, all of which are in `state`.
    pub(crate) fn take(
        &mut self,
        granule: u64,
        count: usize,
        state: State,
        fits: &impl Fn(PhysRange) -> bool,
    ) -> Option<PhysRange> {
        let free =
            |(taken, found): (&bool, &GranuleState)| !taken && *found == GranuleState::In(state);
        let mut length = 0;
        let run = self.taken.iter().zip(&self.states).enumerate().find_map(|(end, pair)| {
            length = if free(pair) { length + 1 } else { 0 };
            let first = number::wide((end + 1).checked_sub(count).filter(|_| length >= count)?);
            let run = self.range.slice(first * granule, number::wide(count) * granule);
            run.filter(|run| fits(*run))
        })?;
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
