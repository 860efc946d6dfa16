//! Calls that allocate, use and free memory of every kind.

use coco_dma::attrs::Attrs;
use coco_dma::coherent::AllocError;
use coco_dma::coherent::RawCoherent;
use coco_dma::device::Device;
use coco_dma::plan::AllocKind;
use coco_dma::platform::Platform;
use coco_dma::reason::Refuse;
use coco_dma::state::CacheMode;
use coco_dma::state::Context;
use coco_dma::state::Direction;
use coco_dma_sim::Outcome;

use super::calls::PRIVATE;
use super::calls::QUARANTINED;
use super::calls::SHARED;
use super::maps::pattern;
use super::model::SLOT;
use super::world::LiveMemory;
use super::world::MemoryPlace;
use super::world::World;
use crate::support::free;
use crate::support::ring;

/// How memory is asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct How {
    pub(crate) kind: AllocKind,
    pub(crate) attrs: Attrs,
}

impl How {
    /// Whether Linux takes the attribute for such an allocation.
    fn is_taken(self) -> bool {
        match (self.attrs, self.kind) {
            (Attrs::NONE | Attrs::NO_WARN, _) => true,
            (Attrs::ALLOC_SINGLE_PAGES, kind) => kind != AllocKind::Pages,
            (Attrs::WRITE_COMBINE, kind) => kind == AllocKind::Coherent,
            _ => false,
        }
    }

    fn alloc<P: Platform>(
        self,
        device: &Device<'_, P>,
        len: usize,
        context: Context,
    ) -> Result<RawCoherent, AllocError> {
        device.alloc_as(len, self.kind, context, self.attrs)
    }
}

impl World<'_> {
    pub(super) fn alloc(&mut self, device: usize, len: usize, context: Context, how: How) {
        let model = &self.model.devices[device];
        let convert = !model.accepted;
        let stopped = match model.stopped {
            None if !how.is_taken() => Some(Refuse::BadAttribute),
            stopped => stopped,
        };
        let unit = if convert { usize::try_from(self.model.granule).unwrap() } else { 4096 };
        let pages = len.next_multiple_of(unit);
        let may = stopped.is_none() && model.restricted.is_none();
        let asked = may && (!convert || context == Context::Blocking);
        let align = len.next_multiple_of(4096).next_power_of_two().max(unit);
        let has_room = self.arena.has_room(pages, align);
        let quota = model.quota.is_none_or(|quota| model.charged + pages / SLOT <= quota);
        let room = asked && quota && has_room && !(convert && self.quarantine_full(pages as u64));
        if how.kind == AllocKind::Coherent && !model.coherent {
            // Slots would have a view of their own, which no pool of the model fails by.
            self.host.heal();
        }
        let (machine, waiting) = (self.machine.clone(), self.host.waiting());
        let answer = match context {
            Context::Atomic => machine.atomic(|| how.alloc(&self.devices[device], len, context)),
            Context::Blocking => how.alloc(&self.devices[device], len, context),
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
                self.model.charge(device, pages / SLOT);
                self.met(if convert { "shared pages" } else { "private pages" });
                let place = MemoryPlace::Pages(granules, pages / 4096);
                self.allocated(
                    how,
                    LiveMemory { device, memory, kind: how.kind, place, bytes: vec![0; pages] },
                );
            }
            (Ok(memory), Some(Ok(id))) => {
                assert!(!memory.converts_on_free(), "{}", self.now);
                let reserve = self.model.pools[self.model.holds[&id].pool].purpose;
                self.met(format!("allocated from {reserve:?}"));
                if room {
                    self.met("pages failed, slots served");
                } else if asked && !quota {
                    self.met("pages past the quota, slots within it");
                }
                let bytes = vec![0; len.next_multiple_of(4096)];
                let place = MemoryPlace::Slots(id);
                self.met_node(device, Some(id));
                self.allocated(how, LiveMemory { device, memory, kind: how.kind, place, bytes });
            }
            (Err(error), Some(Err(reason))) => {
                // Where pages were asked for first, their failure is told.
                let reason = match (asked, reason) {
                    (false, _) | (_, Refuse::Quota) => reason,
                    (true, _) if !quota => Refuse::Quota,
                    // Pages that came, and that no view could be had of.
                    (true, _) if has_room && faulted && error.reason == Refuse::NoView => {
                        Refuse::NoView
                    }
                    (true, _) if convert && has_room => Refuse::ConversionFailed,
                    (true, _) => Refuse::OutOfPages,
                };
                assert_eq!(error.reason, reason, "{}", self.now);
                self.model.refused(device);
                if how.attrs == Attrs::NO_WARN {
                    self.model.told.1 -= 1;
                    self.met("refused without a word");
                }
                self.met(format!("allocation: {reason}"));
            }
            (is, should) => panic!("{is:?}, not {should:?}; {}", self.now),
        }
    }

    fn allocated(&mut self, how: How, memory: LiveMemory) {
        assert_eq!(memory.memory.bytes().len(), memory.bytes.len(), "{}", self.now);
        let align = memory.memory.bytes().len().next_power_of_two() as u64;
        assert_eq!(memory.memory.addr().raw() % align, 0, "{}", self.now);
        assert_eq!(ring(&memory.memory, &[]), memory.bytes, "zeroed; {}", self.now);
        let (device, bytes) = (&self.devices[memory.device], memory.bytes.len() as u64);
        // Only what CPU and device have to see alike without syncs goes without the caches.
        let cached = self.model.devices[memory.device].coherent || how.kind != AllocKind::Coherent;
        let wanted = match how.attrs {
            _ if cached => CacheMode::WriteBack,
            Attrs::WRITE_COMBINE => CacheMode::WriteCombine,
            _ => CacheMode::Uncached,
        };
        let protection = device.mmap(&memory.memory, 0, bytes, &mut ()).unwrap();
        assert_eq!(protection.cache, wanted, "{}", self.now);
        assert_eq!(device.mmap(&memory.memory, 1, bytes, &mut ()), Err(Refuse::OutOfBounds));
        self.met(format!("{wanted:?} {:?}", how.kind));
        self.model.devices[memory.device].counters.allocated += 1;
        self.memories.push(memory);
    }

    /// Driver and device write into an allocation, and both see it.
    pub(super) fn ring(&mut self, memory: usize, seed: u8) {
        let Some(index) = memory.checked_rem(self.memories.len()) else { return };
        let memory = &mut self.memories[index];
        let half = memory.bytes.len() / 2;
        memory.bytes[..half].copy_from_slice(&pattern(seed, half));
        ring(&memory.memory, &memory.bytes[..half]);
        let device = &self.devices[memory.device];
        let before = self.machine.counts();
        device.sync_alloc_for_device(&memory.memory, Direction::Both);
        device.sync_alloc_for_cpu(&memory.memory, Direction::Both);
        let after = self.machine.counts();
        let synced =
            memory.kind != AllocKind::Coherent && !self.model.devices[memory.device].coherent;
        let did = (after.hand_overs - before.hand_overs, after.take_backs - before.take_backs);
        assert_eq!(did, (u64::from(synced), u64::from(synced)), "{}", self.now);
        if synced {
            *self.met.entry("synced an allocation".into()).or_default() += 1;
        }
        if !self.wild && self.model.devices[memory.device].stopped.is_none() {
            let addr = memory.memory.addr().raw() + u64::try_from(half).unwrap();
            memory.bytes[half..].copy_from_slice(&pattern(!seed, half));
            let outcome = self.nics[memory.device].write(addr, &memory.bytes[half..]);
            assert_eq!(outcome, Outcome::Clear, "{}", self.now);
        }
        assert_eq!(ring(&memory.memory, &[]), memory.bytes, "{}", self.now);
    }

    pub(super) fn free(&mut self, memory: usize) {
        let Some(index) = memory.checked_rem(self.memories.len()) else { return };
        let LiveMemory { device, memory, place, .. } = self.memories.swap_remove(index);
        let ((), faulted) = self.failing(|world| free(&world.devices[device], memory));
        self.model.devices[device].counters.freed += 1;
        match place {
            MemoryPlace::Slots(id) => self.model.free(id),
            MemoryPlace::Pages(granules, pages) => {
                self.model.unpin(granules.clone());
                self.model.pages -= pages;
                self.model.discharge(device, pages * 4096 / SLOT);
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
}
