//! Each call to its method, and what the calls have in common: where the platform fails, the answer
//! says what became of the memory, and the model takes that for its word; the checks then hold it
//! against the machine.

use std::ops::Range;

use coco_dma::ledger::GranuleState;
use coco_dma::platform::ConvertError;
use coco_dma::platform::ConvertVerdict;
use coco_dma_sim::ConvertFault;
use coco_dma_sim::Really;

use super::build::LOST;
use super::call::Call;
use super::call::Lie;
use super::world::World;

pub(super) const PRIVATE: GranuleState = GranuleState::Private;
pub(super) const SHARED: GranuleState = GranuleState::Shared;
pub(super) const QUARANTINED: GranuleState = GranuleState::Quarantined;

impl World<'_> {
    pub(crate) fn call(&mut self, call: &Call) {
        let device = |device: usize| device % self.devices.len();
        match *call {
            Call::Map { device: number, place, direction, attrs } => {
                self.map(device(number), place, direction, attrs);
            }
            Call::MapList { device: number, ref places, direction, written } => {
                self.map_list(device(number), places, direction, written);
            }
            Call::Owned { device: number, len, direction, lost } => {
                self.owned(device(number), len, direction, lost);
            }
            Call::DeviceWrites { map, at, len, seed } => self.device_writes(map, at, len, seed),
            Call::DriverWrites { map, at, len, seed } => self.driver_syncs(map, at, len, seed),
            Call::SyncForCpu { map, at, len } => self.sync_for_cpu(map, at, len),
            Call::Unmap { map, written } => self.finish(map, written),
            Call::Alloc { device: number, len, context, how } => {
                self.alloc(device(number), len, context, how);
            }
            Call::Peer { device: number, place, direction, attrs } => {
                self.peer(device(number), place, direction, attrs);
            }
            Call::Ring { memory, seed } => self.ring(memory, seed),
            Call::Free { memory } => self.free(memory),
            Call::Share { run, odd } => self.convert_heap(run, odd, SHARED),
            Call::Reclaim { run, odd } => self.convert_heap(run, odd, PRIVATE),
            Call::Trespass { which } => self.trespass(which),
            Call::Grow { pool } => self.grow(2 + pool % 3),
            Call::Shrink { pool } => self.shrink(2 + pool % 3),
            Call::Refill => self.refill(),
            Call::Retry { tries } => self.retry(tries),
            Call::Revoke { device: number } => self.revoke(device(number)),
            Call::LoseTrust { device: number } => self.lose_trust(device(number)),
            Call::Rebind { device: number } => self.rebind(device(number)),
            Call::Room { device: number, ref places } => self.room(device(number), places),
            Call::Fault { skip, done, doubt, half, lie } => {
                self.fault(skip, done, doubt, half, lie)
            }
            Call::NoView { skip } if self.host.waiting() < 3 => self.host.fail_view(skip),
            Call::NoView { .. } => {}
            Call::Heal => self.host.heal(),
        }
    }

    pub(super) fn fault(&self, skip: u64, done: u64, doubt: u64, half: bool, lie: Lie) {
        if self.host.waiting() >= 3 {
            return;
        }
        let granule = self.model.granule;
        let more = if half { granule / 2 } else { 0 };
        let error = ConvertError {
            done: done * granule + more,
            doubt: doubt * granule,
            code: 7,
            verdict: ConvertVerdict::Retry,
        };
        let (says, really) = match lie {
            Lie::NoneOfDoubt => (Err(error), Really::Done),
            Lie::AllOfDoubt => (Err(error), Really::DoneAndDoubt),
            Lie::Claims if !self.honest => (Ok(()), Really::First(done)),
            Lie::Claims => (Err(error), Really::Done),
            Lie::Wild(mask) => (Err(error), Really::Mask(mask)),
        };
        self.host.fail_convert(skip, ConvertFault { says, really });
    }

    /// Runs `work`; says whether a scripted failure happened in it, or may have left its traces.
    pub(super) fn failing<T>(&mut self, work: impl FnOnce(&mut Self) -> T) -> (T, bool) {
        let waiting = self.host.waiting();
        let answer = work(self);
        (answer, self.host.waiting() < waiting || self.wild)
    }

    pub(super) fn kept(&self, granule: usize) -> GranuleState {
        let range = self.part(granule..granule + 1);
        self.dma.ledger().granule(range.base()).unwrap().state
    }

    /// Takes over what a failure made of some granules, where it may have.
    pub(super) fn absorb(
        &mut self,
        granules: Range<usize>,
        allowed: &[(GranuleState, GranuleState)],
    ) -> u64 {
        let mut lost = 0;
        for number in granules {
            let (was, is) = (self.model.granules[number].0, self.kept(number));
            if was != is {
                assert!(allowed.contains(&(was, is)), "{number} was {was}, is {is}; {}", self.now);
                self.model.granules[number].0 = is;
                lost += u64::from(is == QUARANTINED) * self.model.granule;
            }
        }
        self.model.lost += lost;
        lost
    }

    /// Whether `len` bytes more, all in doubt, would be too much.
    pub(super) fn quarantine_full(&self, len: u64) -> bool {
        self.model.in_quarantine() + len > LOST * self.model.granule
    }
}
