//! Calls that convert memory: the heap by hand, what somebody else has, and what is in quarantine.

use std::ops::Range;

use coco_dma::addr::PhysRange;
use coco_dma::convert::ConvertFailed;
use coco_dma::ledger::GranuleState;
use coco_dma::state::PoolUse;

use super::call::Place;
use super::calls::PRIVATE;
use super::calls::QUARANTINED;
use super::calls::SHARED;
use super::world::MemoryPlace;
use super::world::World;
use crate::support::reclaim;
use crate::support::share;

impl World<'_> {
    /// What a reclaim that failed said of its run, from its first granule on.
    pub(super) fn settle_reclaim(&mut self, granules: Range<usize>, failed: &ConvertFailed) {
        let count = |bytes: u64| {
            assert_eq!(bytes % self.model.granule, 0, "{}", self.now);
            usize::try_from(bytes / self.model.granule).unwrap()
        };
        let (done, lost) = (count(failed.converted), count(failed.quarantined));
        let middle = granules.start + done;
        assert!(middle + lost <= granules.end, "{}", self.now);
        self.model.put(granules.start..middle, PRIVATE);
        self.model.put(middle..middle + lost, QUARANTINED);
        self.model.lost += failed.quarantined;
    }

    /// Memory that came back is zero.
    pub(super) fn wiped(&self, granules: Range<usize>) {
        for number in granules.filter(|number| self.model.granules[*number].0 != QUARANTINED) {
            let range = self.part(number..number + 1);
            let mut bytes = vec![1; usize::try_from(range.len()).unwrap()];
            self.machine.guest_read(range.base(), &mut bytes);
            assert!(self.wild || bytes.iter().all(|byte| *byte == 0), "{number}; {}", self.now);
        }
    }

    /// What the heap holds where a conversion was: nobody needs it any more.
    pub(super) fn look_at_heap(&mut self, granules: Range<usize>) {
        let granule = usize::try_from(self.model.granule).unwrap();
        for number in granules {
            let at = (number - self.heap().start) * granule;
            let base = self.part(number..number + 1).base();
            self.machine.guest_read(base, &mut self.model.heap[at..at + granule]);
        }
    }

    pub(super) fn convert_heap(&mut self, place: Place, odd: bool, to: GranuleState) {
        let heap = self.heap();
        let pick = usize::try_from(place.at).unwrap();
        let shared: Vec<usize> =
            heap.clone().filter(|number| self.model.granules[*number].0 == SHARED).collect();
        // Most often something that can be reclaimed, if there is any.
        let first = match pick.checked_rem(shared.len()) {
            Some(index) if to == PRIVATE && pick % 4 > 0 => shared[index],
            _ => heap.start + pick % heap.len(),
        };
        let last = first + usize::try_from(place.len).unwrap().min(1 + pick % 5);
        let granules = first..last.min(heap.end);
        let whole = self.part(granules.clone());
        // Whoever converts memory has ended the maps of it that the ledger does not see.
        let bounced = self.maps.iter().any(|map| {
            let used = self.touched(map.at, map.len);
            map.bounced.is_some() && used.start < granules.end && granules.start < used.end
        });
        if bounced {
            return;
        }
        let from = if to == SHARED { PRIVATE } else { SHARED };
        let run = if odd { whole.slice(1, whole.len() - 1).unwrap() } else { whole };
        let refused = odd
            || self.model.state(granules.clone()) != Some(from)
            || self.model.pinned(granules.clone())
            || (to == SHARED && self.quarantine_full(run.len()));
        let (asked, dma) = (self.host.converts(), self.dma);
        let convert = |_: &mut Self| if to == SHARED { share(dma, run) } else { reclaim(dma, run) };
        let (answer, faulted) = self.failing(convert);
        if refused {
            assert!(answer.is_err(), "{}", self.now);
            assert_eq!(self.host.converts(), asked, "refused before anything was done");
            let pinned = self.model.pinned(granules);
            return self.met(if pinned { "conversion of what is pinned" } else { "no conversion" });
        }
        match answer {
            Ok(()) => {
                self.model.put(granules.clone(), to);
                self.wiped(granules.clone());
                self.met(if to == SHARED { "share" } else { "reclaim" });
            }
            Err(failed) => {
                assert!(faulted, "{failed}; {}", self.now);
                if to == SHARED {
                    let lost = self.absorb(granules.clone(), &[(PRIVATE, QUARANTINED)]);
                    assert_eq!((failed.converted, failed.quarantined), (0, lost), "{}", self.now);
                    self.met(if lost > 0 { "share lost some" } else { "share undone" });
                } else {
                    let some = failed.quarantined > 0;
                    self.met(if some { "reclaim lost some" } else { "reclaim stopped" });
                    self.settle_reclaim(granules.clone(), &failed);
                }
            }
        }
        self.look_at_heap(granules);
    }

    pub(super) fn trespass(&mut self, which: usize) {
        let asked = self.host.converts();
        let pools = self.model.pools.iter().filter(|pool| pool.open);
        // What was adopted as a device's own pool only its owner knows of.
        let regions: Vec<_> = pools.take_while(|pool| pool.purpose != PoolUse::Streaming).collect();
        let last = self.model.pools.len() - 1;
        let region = regions
            .get(which % regions.len())
            .filter(|pool| self.model.pools[last].granules != pool.granules)
            .map(|pool| pool.granules.clone());
        let pages = self.memories.iter().filter_map(|memory| match &memory.place {
            MemoryPlace::Pages(granules, _) => Some(granules.clone()),
            MemoryPlace::Slots(_) => None,
        });
        let used: Vec<_> = region.into_iter().chain(pages).collect();
        for granules in used {
            let run = self.part(granules);
            assert!(share(self.dma, run).is_err(), "{}", self.now);
            assert!(reclaim(self.dma, run).is_err(), "{}", self.now);
            self.met("trespass");
        }
        assert_eq!(self.host.converts(), asked, "{}", self.now);
    }

    pub(super) fn retry(&mut self, tries: usize) {
        let runs: Vec<PhysRange> = self.dma.ledger().quarantine().collect();
        let lost: u64 = runs.iter().map(|run| run.len()).sum();
        let mut back = Vec::new();
        let (arena, dma) = (self.arena, self.dma);
        let (retried, faulted) = self.failing(|_| {
            dma.retry_quarantine(tries, |run| {
                arena.recovered(run);
                back.push(run);
            })
        });
        let gained: u64 = back.iter().map(|run| run.len()).sum();
        let all = back.len() == tries || gained == lost;
        assert!(faulted || all, "{back:?} of {runs:?}; {}", self.now);
        for run in &back {
            assert!(runs.iter().any(|lost| lost.contains(*run)), "{}", self.now);
            let offset = run.base().raw() - self.part(0..1).base().raw();
            let first = usize::try_from(offset / self.model.granule).unwrap();
            let granules = first..first + usize::try_from(run.len() / self.model.granule).unwrap();
            self.model.put(granules.clone(), PRIVATE);
            self.wiped(granules.clone());
            let heap = self.heap();
            let mine = granules.filter(|number| heap.contains(number)).collect::<Vec<_>>();
            mine.into_iter().for_each(|number| self.look_at_heap(number..number + 1));
        }
        if !runs.is_empty() && tries > 0 {
            self.met(if back.is_empty() { "retry in vain" } else { "retry" });
        }
        self.model.recovered += gained;
        assert_eq!((retried.recovered, retried.held), (gained, self.model.in_quarantine()));
    }
}
