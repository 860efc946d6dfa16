//! The end of a case: everything was given back, or stays as the case says.

use std::collections::BTreeSet;

use coco_dma::addr::{PhysAddr, PhysRange};
use coco_dma::pool::Pool;
use coco_dma::state::{PoolLabel, PoolOrigin, State};
use coco_dma_sim::{GranuleState, SimEntry, StaleEntries};

use super::look::{look, truth, truths};
use super::stream::wide;
use super::world::World;
use super::{Failed, Witness};
use crate::case::Thing;

impl World<'_> {
    pub(super) fn end(&mut self) -> Result<(), Failed> {
        let end = &self.case.end;
        truths(self, &end.check, &end.place)?;
        self.heed.judge(look(self, &end.check, None, &end.place))?;
        self.heed.judge(self.end_of_records())?;
        if self.case.machine.plan_only {
            return Ok(());
        }
        self.heed.judge(self.end_of_metadata())?;
        self.end_of_memory()?;
        self.end_of_entries()?;
        self.end_of_secrets()
    }

    fn at_the_end(&self, witness: Witness, expected: &str, got: String) -> Result<(), Failed> {
        let expected = format!("at the end {expected}");
        Err(Failed { witness, place: self.case.end.place.clone(), expected, got })
    }

    fn nothing_lives(&self) -> bool {
        self.maps.is_empty() && self.lists.is_empty() && self.allocs.is_empty()
    }

    /// What lives is what the case says.
    fn end_of_records(&self) -> Result<(), Failed> {
        let said = &self.case.end.live;
        let live: Vec<&String> =
            { self.maps.keys().chain(self.lists.keys()).chain(self.allocs.keys()).collect() };
        let fail = |expected: &str, got| self.at_the_end(Witness::Layer, expected, got);
        if let Some(name) = live.iter().find(|name| !said.contains(name)) {
            return fail("that every map and allocation is ended", format!("'{name}' lives"));
        }
        match said.iter().find(|name| !live.contains(name)) {
            Some(name) => fail(&format!("that '{name}' lives"), "it does not".to_owned()),
            None => Ok(()),
        }
    }

    /// The layer holds nothing any more: no slot, no pin, no view, nothing in quarantine.
    fn end_of_metadata(&self) -> Result<(), Failed> {
        let end = &self.case.end;
        let fail = |expected: &str, got| self.at_the_end(Witness::Layer, expected, got);
        let nothing_lives = self.nothing_lives();
        for (index, pool) in self.ground.pools.iter().enumerate() {
            let said = end.check.used.iter().any(|(said, _)| *said == index);
            if nothing_lives && !said && pool.used() > 0 {
                let name = self.case.pools.get(index).map_or("", |pool| &pool.name);
                return fail("no slot in use", format!("{} of '{name}'", pool.used()));
            }
        }
        let quarantine = self.ground.dma.ledger().quarantined();
        if end.check.quarantine.is_none() && quarantine > 0 {
            return fail("nothing in quarantine", format!("{quarantine:#x} bytes"));
        }
        let open =
            |pool: &&&Pool<'_>| pool.is_open() && pool.origin() == PoolOrigin::ConvertedAtAttach;
        let views = self.ground.pools.iter().filter(open).count();
        let found = self.ground.machine.open_views();
        if nothing_lives && found != views {
            let got = format!("{found} views, {views} of them of pools");
            return fail("no view but those of pools", got);
        }
        for index in 0..self.buffers.len() {
            let told = end.check.pins.iter().any(|(memory, _)| *memory == index);
            let run = self.thing(Thing::Memory(index));
            let pins = run.map_or(0, |run| self.pins_of(run));
            if nothing_lives && !told && pins > 0 {
                let name = self.case.memories.get(index).map_or("", |memory| &memory.name);
                return fail("no pin", format!("{pins} on '{name}'"));
            }
        }
        Ok(())
    }

    /// Every granule is in the state in which it began; but for what the case says.
    fn end_of_memory(&self) -> Result<(), Failed> {
        let end = &self.case.end;
        let lost: Vec<PhysRange> = self.ground.dma.ledger().quarantine().collect();
        let granule = self.case.machine.regime.granule();
        let mut kept: BTreeSet<u64> = self.ground.pages.out().clone();
        kept.retain(|at| {
            let part = PhysRange::new(PhysAddr::new(*at), granule);
            part.is_some_and(|part| !lost.iter().any(|lost| lost.contains(part)))
        });
        let kept_pages = wide(kept.len());
        if self.nothing_lives() && kept_pages != end.kept_pages {
            let expected = format!("{} pages that did not come back", end.kept_pages);
            return self.at_the_end(Witness::Machine, &expected, format!("{kept_pages}"));
        }
        let said: Vec<PhysRange> =
            end.check.states.iter().filter_map(|(thing, _)| self.thing(*thing)).collect();
        for (at, began) in &self.began {
            let Some(part) = PhysRange::new(PhysAddr::new(*at), granule) else { continue };
            let known = said.iter().chain(&lost).any(|run| run.contains(part));
            if known || kept.contains(at) {
                continue;
            }
            let found = self.ground.machine.state(part.base());
            let wanted = self.of_pool(part).unwrap_or(*began);
            if found != Some(wanted) {
                let state = truth(wanted).describe();
                let expected = format!("that the granule at {at:#x} is {state}");
                let got = found.map_or_else(|| "no memory".to_owned(), |at| truth(at).describe());
                return self.at_the_end(Witness::Machine, &expected, got);
            }
        }
        Ok(())
    }

    /// The IOMMU was used as its contract says, and no entry is left.
    fn end_of_entries(&self) -> Result<(), Failed> {
        let (iommu, fail) = (self.ground.iommu, |expected: &str, got| {
            self.at_the_end(Witness::Machine, expected, got)
        });
        if let Some(mistake) = iommu.mistakes().first() {
            return fail("that the IOMMU was used as it is meant", format!("{mistake:?}"));
        }
        // What was only claimed to be gone is a violation.
        let stale = iommu.stale();
        let known = |entry: &SimEntry| {
            let at = |stale: &StaleEntries| entry.iova.raw().checked_sub(stale.iova.raw());
            !stale.iter().any(|stale| at(stale).is_some_and(|offset| offset < stale.len))
        };
        match iommu.entries().iter().find(|entry| known(entry)) {
            Some(entry) if self.nothing_lives() => {
                fail("no entry of the IOMMU", format!("one at {}", entry.iova))
            }
            _ => Ok(()),
        }
    }

    /// The host saw no secret, and the platform's contract was kept.
    fn end_of_secrets(&self) -> Result<(), Failed> {
        let machine = self.ground.machine;
        if let Some(leak) = machine.leaks().first() {
            let got = format!("it was clear at {} ({:?})", leak.at, leak.moment);
            return self.at_the_end(Witness::Host, "that the host never saw a secret", got);
        }
        let mut violations: Vec<String> =
            machine.violations().iter().map(ToString::to_string).collect();
        violations.extend(self.ground.iommu.stale().iter().map(ToString::to_string));
        if wide(violations.len()) != self.case.end.violations {
            let first = violations.first().cloned().unwrap_or_default();
            let expected =
                format!("{} violations of the platform's contract", self.case.end.violations);
            let got = format!("{}: {first}", violations.len());
            return self.at_the_end(Witness::Machine, &expected, got);
        }
        Ok(())
    }

    /// The state that a granule has because it is a convertible pool's.
    fn of_pool(&self, part: PhysRange) -> Option<GranuleState> {
        let pools = self.ground.pools.iter();
        let pool = pools.into_iter().find(|pool| pool.range().contains(part))?;
        let converts = pool.origin() == PoolOrigin::ConvertedAtAttach
            && pool.label() == PoolLabel::GuestShared;
        if !converts {
            return None;
        }
        let state = if pool.is_open() { State::SHARED } else { State::PRIVATE };
        Some(GranuleState::In(state))
    }
}
