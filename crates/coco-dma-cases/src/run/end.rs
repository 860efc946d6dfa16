//! The end of a case: everything was given back, or stays as the case says.

use std::collections::BTreeSet;

use coco_dma::addr::{PhysAddr, PhysRange};
use coco_dma::state::{PoolLabel, PoolOrigin, State};
use coco_dma_sim::GranuleState;

use super::Failed;
use super::look::{look, truth};
use super::world::World;
use crate::case::Thing;

impl World<'_> {
    pub(super) fn end(&mut self) -> Result<(), Failed> {
        let end = &self.case.end;
        let fail = |expected: &str, got: String| {
            let expected = format!("at the end {expected}");
            Err(Failed { place: end.place.clone(), expected, got })
        };
        look(self, &end.check, None, &end.place)?;
        let live: Vec<&String> = self.maps.keys().chain(self.allocs.keys()).collect();
        if let Some(name) = live.iter().find(|name| !end.live.contains(name)) {
            return fail("that every map and allocation is ended", format!("'{name}' lives"));
        }
        if let Some(name) = end.live.iter().find(|name| !live.contains(name)) {
            return fail(&format!("that '{name}' lives"), "it does not".to_owned());
        }
        if self.case.machine.plan_only {
            return Ok(());
        }
        let nothing_lives = live.is_empty();
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
        self.end_of_memory(nothing_lives)?;
        let machine = self.ground.machine;
        let open = |pool: &&&coco_dma::pool::Pool<'_>| {
            pool.is_open() && pool.origin() == PoolOrigin::ConvertedAtAttach
        };
        let views = self.ground.pools.iter().filter(open).count();
        if nothing_lives && machine.open_views() != views {
            let got = format!("{} views, {views} of them of pools", machine.open_views());
            return fail("no view but those of pools", got);
        }
        if let Some(leak) = machine.leaks().first() {
            return fail(
                "that the host never saw a secret",
                format!("it was clear at {} ({:?})", leak.at, leak.moment),
            );
        }
        let violations = machine.violations();
        if super::stream::wide(violations.len()) != end.violations {
            let first = violations.first().map_or_else(String::new, ToString::to_string);
            return fail(
                &format!("{} violations of the platform's contract", end.violations),
                format!("{}: {first}", violations.len()),
            );
        }
        Ok(())
    }

    /// Every granule is in the state in which it began, and unpinned; but for what the case says.
    fn end_of_memory(&self, nothing_lives: bool) -> Result<(), Failed> {
        let end = &self.case.end;
        let fail =
            |expected: String, got: String| Err(Failed { place: end.place.clone(), expected, got });
        let lost: Vec<PhysRange> = self.ground.dma.ledger().quarantine().collect();
        let granule = self.case.machine.regime.granule();
        let mut kept: BTreeSet<u64> = self.ground.pages.out().clone();
        kept.retain(|at| {
            let part = PhysRange::new(PhysAddr::new(*at), granule);
            part.is_some_and(|part| !lost.iter().any(|lost| lost.contains(part)))
        });
        let kept_pages = super::stream::wide(kept.len());
        if nothing_lives && kept_pages != end.kept_pages {
            return fail(
                format!("at the end {} pages that did not come back", end.kept_pages),
                format!("{kept_pages}"),
            );
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
                return fail(
                    format!(
                        "at the end that the granule at {at:#x} is {}",
                        truth(wanted).describe()
                    ),
                    found.map_or_else(|| "no memory".to_owned(), |state| truth(state).describe()),
                );
            }
        }
        for index in 0..self.buffers.len() {
            let told = end.check.pins.iter().any(|(memory, _)| *memory == index);
            let run = self.thing(Thing::Memory(index));
            let pins = run.map_or(0, |run| self.pins_of(run));
            if nothing_lives && !told && pins > 0 {
                let name = self.case.memories.get(index).map_or("", |memory| &memory.name);
                return fail("at the end no pin".to_owned(), format!("{pins} on '{name}'"));
            }
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
