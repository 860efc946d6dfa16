//! Calls that convert, allocate and end devices, each with what the model says that it comes to.
//! Where the platform fails, the answer says what became of the memory, and the model takes that
//! for its word: the checks then hold it against the machine.

use std::ops::Range;

use coco_dma::addr::PhysRange;
use coco_dma::convert::ConvertFailed;
use coco_dma::convert::GrowFailed;
use coco_dma::convert::ShrinkFailed;
use coco_dma::ledger::GranuleState;
use coco_dma::plan::Limits;
use coco_dma::platform::ConvertError;
use coco_dma::platform::Platform;
use coco_dma::reason::Refuse;
use coco_dma::state::Context;
use coco_dma::state::PoolLabel;
use coco_dma::state::PoolUse;
use coco_dma_sim::ConvertFault;
use coco_dma_sim::Outcome;
use coco_dma_sim::Really;

use super::call::Call;
use super::call::Lie;
use super::call::Place;
use super::maps::pattern;
use super::world::LOST;
use super::world::LiveMemory;
use super::world::MemoryPlace;
use super::world::World;
use super::world::endpoint;
use crate::support::alloc;
use crate::support::free;
use crate::support::reclaim;
use crate::support::revoke;
use crate::support::ring;
use crate::support::share;

const PRIVATE: GranuleState = GranuleState::Private;
const SHARED: GranuleState = GranuleState::Shared;
const QUARANTINED: GranuleState = GranuleState::Quarantined;

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
            Call::Finish { map, written } => self.finish(map, written),
            Call::Alloc { device: number, len, context } => {
                self.alloc(device(number), len, context)
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

    fn fault(&self, skip: u64, done: u64, doubt: u64, half: bool, lie: Lie) {
        if self.host.waiting() >= 3 {
            return;
        }
        let granule = self.model.granule;
        let more = if half { granule / 2 } else { 0 };
        let error = ConvertError { done: done * granule + more, doubt: doubt * granule, code: 7 };
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
    fn failing<T>(&mut self, work: impl FnOnce(&mut Self) -> T) -> (T, bool) {
        let waiting = self.host.waiting();
        let answer = work(self);
        (answer, self.host.waiting() < waiting || self.wild)
    }

    fn kept(&self, granule: usize) -> GranuleState {
        let range = self.part(granule..granule + 1);
        self.dma.ledger().granule(range.base()).unwrap().state
    }

    /// Takes over what a failure made of some granules, where it may have.
    fn absorb(&mut self, granules: Range<usize>, allowed: &[(GranuleState, GranuleState)]) -> u64 {
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

    /// What a reclaim that failed said of its run, from its first granule on.
    fn settle_reclaim(&mut self, granules: Range<usize>, failed: &ConvertFailed) {
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
    fn wiped(&self, granules: Range<usize>) {
        for number in granules.filter(|number| self.model.granules[*number].0 != QUARANTINED) {
            let range = self.part(number..number + 1);
            let mut bytes = vec![1; usize::try_from(range.len()).unwrap()];
            self.machine.guest_read(range.base(), &mut bytes);
            assert!(self.wild || bytes.iter().all(|byte| *byte == 0), "{number}; {}", self.now);
        }
    }

    /// What the heap holds where a conversion was: nobody needs it any more.
    fn look_at_heap(&mut self, granules: Range<usize>) {
        let granule = usize::try_from(self.model.granule).unwrap();
        for number in granules {
            let at = (number - self.heap().start) * granule;
            let base = self.part(number..number + 1).base();
            self.machine.guest_read(base, &mut self.model.heap[at..at + granule]);
        }
    }

    /// Whether `len` bytes more, all in doubt, would be too much.
    fn quarantine_full(&self, len: u64) -> bool {
        self.model.in_quarantine() + len > LOST * self.model.granule
    }

    fn convert_heap(&mut self, place: Place, odd: bool, to: GranuleState) {
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

    fn trespass(&mut self, which: usize) {
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

    fn grow(&mut self, pool: usize) {
        let (target, dma) = (self.pools[pool], self.dma);
        let (answer, faulted) = self.failing(|_| dma.grow(target));
        self.grown(pool, answer, faulted);
    }

    fn grown(&mut self, pool: usize, answer: Result<(), GrowFailed>, faulted: bool) {
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

    fn refill(&mut self) {
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

    fn shrink(&mut self, pool: usize) {
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
    fn fetch_rest(&mut self, granules: Range<usize>) {
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

    fn retry(&mut self, tries: usize) {
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

    fn alloc(&mut self, device: usize, len: usize, context: Context) {
        let model = &self.model.devices[device];
        let convert = !model.accepted;
        let stopped = model.stopped;
        let unit = if convert { usize::try_from(self.model.granule).unwrap() } else { 4096 };
        let pages = len.next_multiple_of(unit);
        let may = stopped.is_none() && model.restricted.is_none();
        let may = may
            && (!convert || (context == Context::Blocking && !self.quarantine_full(pages as u64)));
        let room = may && self.arena.has_room(pages, unit);
        let (machine, waiting) = (self.machine.clone(), self.host.waiting());
        let answer = match context {
            Context::Atomic => machine.atomic(|| alloc(&self.devices[device], len, context)),
            Context::Blocking => alloc(&self.devices[device], len, context),
        };
        let faulted = self.host.waiting() < waiting || self.wild;
        let place = answer.as_ref().ok().map(|memory| machine.locate(memory.bytes()).unwrap());
        let in_arena = place.is_some_and(|place| self.arena.run().contains(place));
        assert!(if in_arena { room } else { !room || faulted }, "pages: {room}; {}", self.now);
        // A conversion for it that failed may have cost pages.
        let arena = self.arena_granules();
        if !in_arena {
            self.absorb(arena, &[(PRIVATE, QUARANTINED)]);
        }
        let slots = match (in_arena, stopped) {
            (true, _) => None,
            (false, Some(reason)) => Some(Err(reason)),
            (false, None) => {
                Some(self.model.take(device, len.next_multiple_of(4096), Some(context)))
            }
        };
        match (answer, slots) {
            (Ok(memory), None) => {
                let place = place.unwrap();
                let offset = place.base().raw() - self.part(0..1).base().raw();
                let end = (offset + place.len()).div_ceil(self.model.granule);
                let granules = usize::try_from(offset / self.model.granule).unwrap()
                    ..usize::try_from(end).unwrap();
                assert_eq!(memory.converts_on_free(), convert, "{}", self.now);
                if convert {
                    self.model.put(granules.clone(), SHARED);
                }
                self.model.pin(granules.clone());
                self.model.pages += pages / 4096;
                self.met(if convert { "shared pages" } else { "private pages" });
                let place = MemoryPlace::Pages(granules, pages / 4096);
                self.allocated(LiveMemory { device, memory, place, bytes: vec![0; pages] });
            }
            (Ok(memory), Some(Ok(id))) => {
                assert!(!memory.converts_on_free(), "{}", self.now);
                let reserve = self.model.pools[self.model.holds[&id].pool].purpose;
                self.met(format!("allocated from {reserve:?}"));
                if room {
                    self.met("pages failed, slots served");
                }
                let bytes = vec![0; len.next_multiple_of(4096)];
                self.allocated(LiveMemory { device, memory, place: MemoryPlace::Slots(id), bytes });
            }
            (Err(error), Some(Err(reason))) => {
                assert_eq!(error.reason, reason, "{}", self.now);
                self.model.devices[device].counters.refused += 1;
                self.met(format!("allocation: {reason}"));
            }
            (is, should) => panic!("{is:?}, not {should:?}; {}", self.now),
        }
    }

    fn allocated(&mut self, memory: LiveMemory) {
        assert_eq!(memory.memory.bytes().len(), memory.bytes.len(), "{}", self.now);
        assert_eq!(memory.memory.addr().raw() % 4096, 0, "{}", self.now);
        assert_eq!(ring(&memory.memory, &[]), memory.bytes, "zeroed; {}", self.now);
        self.model.devices[memory.device].counters.allocated += 1;
        self.memories.push(memory);
    }

    /// Driver and device write into an allocation, and both see it.
    fn ring(&mut self, memory: usize, seed: u8) {
        let Some(index) = memory.checked_rem(self.memories.len()) else { return };
        let memory = &mut self.memories[index];
        let half = memory.bytes.len() / 2;
        memory.bytes[..half].copy_from_slice(&pattern(seed, half));
        ring(&memory.memory, &memory.bytes[..half]);
        if !self.wild && self.model.devices[memory.device].stopped.is_none() {
            let addr = memory.memory.addr().raw() + u64::try_from(half).unwrap();
            memory.bytes[half..].copy_from_slice(&pattern(!seed, half));
            let outcome = self.nics[memory.device].write(addr, &memory.bytes[half..]);
            assert_eq!(outcome, Outcome::Clear, "{}", self.now);
        }
        assert_eq!(ring(&memory.memory, &[]), memory.bytes, "{}", self.now);
    }

    fn free(&mut self, memory: usize) {
        let Some(index) = memory.checked_rem(self.memories.len()) else { return };
        let LiveMemory { device, memory, place, .. } = self.memories.swap_remove(index);
        let ((), faulted) = self.failing(|world| free(&world.devices[device], memory));
        self.model.devices[device].counters.freed += 1;
        match place {
            MemoryPlace::Slots(id) => self.model.give(id),
            MemoryPlace::Pages(granules, pages) => {
                self.model.unpin(granules.clone());
                self.model.pages -= pages;
                let allowed = [(SHARED, PRIVATE), (SHARED, QUARANTINED)];
                self.absorb(granules.clone(), &allowed);
                let state = self.model.granules[granules.clone()].iter();
                let left = state.filter(|(state, _)| *state != PRIVATE).count();
                assert!(left == 0 || faulted, "{}", self.now);
                self.met(if left > 0 { "free lost some" } else { "pages freed" });
                let none = self.model.granules[granules.clone()].iter().all(|(s, _)| *s != SHARED);
                assert!(none, "lost without a trace; {}", self.now);
                if self.model.devices[device].accepted {
                    return;
                }
                self.wiped(granules);
            }
        }
    }

    fn revoke(&mut self, device: usize) {
        let freed = revoke(&self.devices[device]);
        assert_eq!(freed, self.model.revoke(device), "{}", self.now);
        self.met(if freed > 0 { "revoked maps" } else { "revoked" });
        self.model.devices[device].stopped = Some(Refuse::Revoked);
    }

    fn lose_trust(&mut self, device: usize) {
        self.devices[device].lose_trust().unwrap();
        self.model.devices[device].stopped.get_or_insert(Refuse::TrustLost);
    }

    fn rebind(&mut self, device: usize) {
        let model = &mut self.model.devices[device];
        let used = self.model.holds.values().any(|hold| hold.device == device);
        let idle = model.counters.live() == 0 && model.counters.allocations() == 0 && !used;
        let taken = self.devices.swap_remove(device);
        let again = match taken.rebind(endpoint(model, self.own), Limits::NONE) {
            Ok(bound) => {
                assert!(idle, "{}", self.now);
                (model.counters, model.stopped) = (Default::default(), None);
                bound
            }
            Err((same, _)) => {
                assert!(!idle, "{}", self.now);
                same
            }
        };
        self.met(if idle { "rebound" } else { "not rebound" });
        self.devices.push(again);
        let last = self.devices.len() - 1;
        self.devices.swap(device, last);
    }

    /// Everything ends, and everything comes back.
    pub(crate) fn end(&mut self) {
        self.now = format!("{}, the end", self.machine.name());
        self.host.heal();
        while !self.maps.is_empty() {
            self.finish(0, 0);
        }
        while !self.memories.is_empty() {
            self.free(0);
        }
        (2..5).for_each(|pool| self.shrink(pool));
        (2..5)
            .filter(|pool| !self.model.pools[*pool].open)
            .collect::<Vec<_>>()
            .into_iter()
            .for_each(|pool| self.fetch_rest(self.model.pools[pool].granules.clone()));
        self.retry(usize::MAX);
        self.check();
        assert_eq!(self.arena.taken(), 0, "{}", self.now);
        let lost: usize = self.model.devices.iter().map(|device| device.counters.lost).sum();
        let held = !self.model.holds.is_empty();
        assert!(!held || lost > 0, "{}", self.now);
        if !self.wild {
            assert_eq!(self.model.in_quarantine(), 0, "{}", self.now);
        }
    }
}
