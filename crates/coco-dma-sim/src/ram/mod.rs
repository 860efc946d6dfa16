//! RAM: bytes, and the true state of each granule. Guest and accepted devices see the bytes as the
//! guest means them; what everybody else sees follows from the state and the platform.

mod access;
mod caches;
mod region;

pub use access::Outcome;
pub(crate) use access::Path;

use std::ptr::NonNull;

use coco_dma::addr::PhysAddr;
use coco_dma::addr::PhysRange;
use coco_dma::state::CacheMode;
use coco_dma::state::State;

use crate::hardware::Effect;
use crate::hardware::Hardware;
use crate::hardware::OnPrivate;
use crate::noise::Cipher;
use crate::noise::Rng;
use crate::number;
pub(crate) use region::Region;

/// The true state of a granule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GranuleState {
    /// The guest has it, in this state.
    In(State),
    /// The guest never accepted it: it is the host's, and for the guest a fault.
    Unaccepted,
    /// The host destroyed it while it was private (s390): for the guest a fault, until it is
    /// converted.
    Lost,
}

/// The memory of one machine.
#[derive(Debug)]
pub(crate) struct Ram {
    regions: Vec<Region>,
    granule: u64,
    hardware: Hardware,
    cipher: Cipher,
    /// What the host leaves in pages that it gives.
    host: Rng,
}

impl Ram {
    pub(crate) fn new(regions: Vec<Region>, granule: u64, hardware: Hardware, seed: u64) -> Self {
        Self { regions, granule, hardware, cipher: Cipher::new(seed), host: Rng::new(seed) }
    }

    pub(crate) fn regions(&self) -> &[Region] {
        &self.regions
    }

    pub(crate) fn regions_mut(&mut self) -> &mut [Region] {
        &mut self.regions
    }

    /// Whether the caches may have something else than memory.
    pub(crate) fn has_caches(&self) -> bool {
        self.regions.iter().any(Region::has_caches)
    }

    /// Whether all of `run` is memory, in one region.
    pub(crate) fn has(&self, run: PhysRange) -> bool {
        self.regions.iter().any(|region| region.range().contains(run))
    }

    /// The state of the granule around `at`; `None` where no memory is.
    pub(crate) fn state(&self, at: PhysAddr) -> Option<GranuleState> {
        let region = self.region(at)?;
        region.state(self.granule, at)
    }

    /// Puts the granules of `run` into a state, without any effect on the bytes.
    pub(crate) fn set_state(&mut self, run: PhysRange, state: GranuleState) {
        let granule = self.granule;
        for part in number::granules(run, granule) {
            for region in &mut self.regions {
                region.set_state(granule, part.base(), state);
            }
        }
    }

    /// The first granule of `run` that is not in `state`, with what it is in.
    pub(crate) fn first_not(
        &self,
        run: PhysRange,
        state: State,
    ) -> Option<(PhysAddr, Option<GranuleState>)> {
        let mut at = run.base();
        loop {
            let found = self.state(at);
            if found != Some(GranuleState::In(state)) {
                return Some((at, found));
            }
            let next = (at.raw() & !(self.granule - 1)).checked_add(self.granule)?;
            if next > run.last().raw() {
                return None;
            }
            at = PhysAddr::new(next);
        }
    }

    /// The physical run behind memory of this process, where it is RAM of this machine.
    pub(crate) fn locate(&self, bytes: NonNull<[u8]>) -> Option<PhysRange> {
        self.cached(bytes).or_else(|| self.behind(true, bytes))
    }

    /// The same for what the CPU sees through its caches.
    pub(crate) fn cached(&self, bytes: NonNull<[u8]>) -> Option<PhysRange> {
        self.behind(false, bytes)
    }

    fn behind(&self, past: bool, bytes: NonNull<[u8]>) -> Option<PhysRange> {
        // Exposed: from now on the parties of the machine reach it by its address.
        let address = bytes.cast::<u8>().as_ptr().expose_provenance();
        self.regions.iter().find_map(|region| region.locate(past, address, bytes.len()))
    }

    /// A pointer to `run`, where it is memory.
    pub(crate) fn pointer(&self, run: PhysRange, cache: CacheMode) -> Option<NonNull<u8>> {
        self.region(run.base())?.pointer(run, cache)
    }

    /// Writes back what the caches have of `run`.
    pub(crate) fn clean(&self, run: PhysRange) {
        self.regions.iter().for_each(|region| region.write_back(run, false));
    }

    /// The same, and the caches have nothing of it any more.
    pub(crate) fn drop_lines(&self, run: PhysRange) {
        self.regions.iter().for_each(|region| region.write_back(run, true));
    }

    /// What a conversion makes of the bytes of one granule, which was in state `from` and is `lent`
    /// (shared, or plain) from now on, or not any more.
    pub(crate) fn take_effect(&mut self, part: PhysRange, from: GranuleState, lent: bool) {
        let effect = match (from, lent) {
            // The host's page stays, and is the host's page.
            (GranuleState::Unaccepted, true) => Effect::Keep,
            (GranuleState::Lost, _) => Effect::Replace,
            (_, true) => self.hardware.on_share,
            (_, false) => self.hardware.on_reclaim,
        };
        let mut bytes = vec![0; number::size(part.len())];
        match effect {
            Effect::Keep => return,
            Effect::Zero => {}
            Effect::Replace => self.host.fill(&mut bytes),
            Effect::Recipher => {
                self.bare_read(part.base().raw(), &mut bytes);
                self.cross(lent, part.base().raw(), &mut bytes);
            }
        }
        self.bare_write(part.base().raw(), &bytes);
    }

    /// The runs that the host sees in clear, each as long as can be.
    pub(crate) fn clear_runs(&self) -> Vec<PhysRange> {
        self.runs(Self::is_clear)
    }

    /// The runs in this state, each as long as can be.
    pub(crate) fn runs_in(&self, wanted: GranuleState) -> Vec<PhysRange> {
        self.runs(|_, state| state == wanted)
    }

    /// The runs of which the host reads something, in clear or not, each as long as can be.
    pub(crate) fn readable_runs(&self) -> Vec<PhysRange> {
        self.runs(|ram, state| ram.is_clear(state) || ram.hardware.on_private != OnPrivate::Fault)
    }

    fn is_clear(&self, state: GranuleState) -> bool {
        match state {
            GranuleState::In(state) => {
                matches!(state, State::Ordinary | State::SHARED | State::PLAIN)
            }
            GranuleState::Unaccepted => true,
            GranuleState::Lost => false,
        }
    }

    fn runs(&self, seen: impl Fn(&Self, GranuleState) -> bool) -> Vec<PhysRange> {
        let mut runs: Vec<PhysRange> = Vec::new();
        for region in &self.regions {
            for (part, state) in region.granules(self.granule) {
                if !seen(self, state) {
                    continue;
                }
                let grown = runs.last().and_then(|last| {
                    let next = last.base().checked_add(last.len())? == part.base();
                    PhysRange::new(last.base(), last.len() + part.len()).filter(|_| next)
                });
                match (grown, runs.last_mut()) {
                    (Some(grown), Some(last)) => *last = grown,
                    _ => runs.push(part),
                }
            }
        }
        runs
    }

    fn region(&self, at: PhysAddr) -> Option<&Region> {
        let byte = PhysRange::new(at, 1)?;
        self.regions.iter().find(|region| region.range().contains(byte))
    }
}
