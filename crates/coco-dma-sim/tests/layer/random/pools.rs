//! Calls that grow and shrink pools.

use std::ops::Range;

use coco_dma::convert::GrowFailed;
use coco_dma::convert::ShrinkFailed;
use coco_dma::state::PoolLabel;
use coco_dma::state::PoolUse;

use super::calls::PRIVATE;
use super::calls::QUARANTINED;
use super::calls::SHARED;
use super::world::World;
use crate::support::reclaim;

impl World<'_> {
    pub(super) fn grow(&mut self, pool: usize) {
        let (target, dma) = (self.pools[pool], self.dma);
        let (answer, faulted) = self.failing(|_| dma.grow(target));
        self.grown(pool, answer, faulted);
    }

    pub(super) fn grown(&mut self, pool: usize, answer: Result<(), GrowFailed>, faulted: bool) {
        let model = &self.model.pools[pool];
        let (granules, shared) = (model.granules.clone(), model.label == PoolLabel::GuestShared);
        if model.open {
            return assert_eq!(answer, Err(GrowFailed::Open), "{}", self.now);
        }
        let could = self.model.state(granules.clone()) == Some(PRIVATE)
            && !(shared && self.quarantine_full(granules.len() as u64 * self.model.granule));
        match answer {
            Ok(()) => {
                assert!(could, "{}", self.now);
                self.model.put(granules.clone(), if shared { SHARED } else { PRIVATE });
                self.model.pin(granules.clone());
                self.model.pools[pool].open = true;
                self.wiped(granules);
                self.met("grow");
            }
            Err(failed) => {
                assert!(faulted || !could, "{failed}; {}", self.now);
                assert!(could || matches!(failed, GrowFailed::Convert(_)), "{}", self.now);
                let lost = self.absorb(granules, &[(PRIVATE, QUARANTINED)]);
                self.met(if lost > 0 { "grow lost some" } else { "grow failed" });
                // Its owner asks for what an earlier shrink left there.
                self.fetch_rest(self.model.pools[pool].granules.clone());
            }
        }
    }

    pub(super) fn refill(&mut self) {
        let reserve = self.model.pools.iter().position(|pool| pool.purpose == PoolUse::Reserve);
        let reserve = reserve.unwrap();
        let dma = self.dma;
        let (answer, faulted) = self.failing(|_| dma.refill());
        if self.model.pools[reserve].open {
            return assert_eq!(answer, Ok(None), "{}", self.now);
        }
        if let Ok(run) = answer {
            let region = self.part(self.model.pools[reserve].granules.clone());
            assert_eq!(run, Some(region), "{}", self.now);
        }
        self.grown(reserve, answer.map(drop), faulted);
    }

    pub(super) fn shrink(&mut self, pool: usize) {
        let (target, dma) = (self.pools[pool], self.dma);
        let (answer, faulted) = self.failing(|_| dma.shrink(target));
        let model = &self.model.pools[pool];
        let granules = model.granules.clone();
        if !model.open {
            assert_eq!(answer, Err(ShrinkFailed::Closed), "{}", self.now);
            return self.fetch_rest(granules);
        }
        if model.slots.iter().any(|id| *id != 0) {
            let slots = model.slots.iter().filter(|id| **id != 0).count();
            assert_eq!(answer, Err(ShrinkFailed::InUse { slots }), "{}", self.now);
            return self.met("shrink in use");
        }
        self.model.pools[pool].open = false;
        self.model.unpin(granules.clone());
        match answer {
            Ok(()) => {
                self.model.put(granules.clone(), PRIVATE);
                self.wiped(granules);
                self.met("shrink");
            }
            Err(ShrinkFailed::Convert(failed)) => {
                self.met("shrink failed");
                assert!(faulted, "{failed}; {}", self.now);
                self.settle_reclaim(granules, &failed);
            }
            Err(other) => panic!("{other}; {}", self.now),
        }
    }

    /// What a pool's region has left that is shared, after a shrink that failed: its owner asks
    /// for it again.
    pub(super) fn fetch_rest(&mut self, granules: Range<usize>) {
        for number in granules {
            if self.model.granules[number].0 != SHARED {
                continue;
            }
            let (run, dma) = (self.part(number..number + 1), self.dma);
            let (answer, faulted) = self.failing(|_| reclaim(dma, run));
            match answer {
                Ok(()) => {
                    self.model.put(number..number + 1, PRIVATE);
                    self.met("rest fetched");
                }
                Err(failed) => {
                    assert!(faulted, "{failed}; {}", self.now);
                    self.settle_reclaim(number..number + 1, &failed);
                }
            }
        }
    }
}
