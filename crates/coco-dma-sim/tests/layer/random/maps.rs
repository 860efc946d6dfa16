//! Calls that map: each with what the model says that it comes to.

use std::ops::Range;

use coco_dma::attrs::Attrs;
use coco_dma::reason::Refuse;
use coco_dma::regime::PlatformName;
use coco_dma::state::Direction;
use coco_dma::stream::RawMapping;
use coco_dma_sim::Outcome;

use super::call::Place;
use super::model::Model;
use super::model::Way;
use super::world::LiveMap;
use super::world::World;
use crate::support::map;
use crate::support::sync_cpu;
use crate::support::sync_device;

/// The cache line of a device that says nothing of it, in bytes.
const LINE: usize = 64;

/// Bytes that are nobody's secret.
pub(crate) fn pattern(seed: u8, len: usize) -> Vec<u8> {
    (0..len).map(|at| (at % 251) as u8 ^ seed).collect()
}

impl World<'_> {
    /// Whether an accepted device has an address for shared memory here.
    pub(super) fn reaches_shared(&self) -> bool {
        !matches!(self.machine.name(), PlatformName::Snp | PlatformName::Hyperv)
    }

    /// Notes slots that are not of the device's node.
    pub(super) fn met_node(&mut self, device: usize, hold: Option<usize>) {
        let pool = hold.map(|id| self.model.holds[&id].pool);
        let far = |pool| self.model.is_far(pool, &self.model.devices[device]);
        if pool.is_some_and(far) {
            self.met("slots of another node");
        }
    }

    /// Where a place lies in the heap.
    pub(super) fn spot(&self, place: Place) -> (usize, usize) {
        let len = usize::try_from(place.len).unwrap();
        (usize::try_from(place.at).unwrap() % (self.model.heap.len() - len), len)
    }

    /// Whether a driver may map this now: nobody else uses the bytes, but to let them be read.
    pub(super) fn may_map(&self, at: usize, len: usize, direction: Direction) -> bool {
        self.maps.iter().all(|other| {
            let apart = other.at >= at + len || at >= other.at + other.len;
            let reads = |direction| direction == Direction::ToDevice;
            apart || (reads(direction) && reads(other.direction))
        })
    }

    /// The driver puts into the buffer what it gives to the device; what only comes from the
    /// device is left as it is, secrets and all.
    pub(super) fn prepare(&mut self, at: usize, len: usize, direction: Direction, seed: u8) {
        let granules = self.touched(at, len);
        let lost = coco_dma::ledger::GranuleState::Quarantined;
        let lies_still =
            self.maps.iter().all(|other| other.at >= at + len || at >= other.at + other.len);
        let usable = self.model.granules[granules].iter().all(|(state, _)| *state != lost);
        if direction.to_device() && usable && lies_still {
            self.driver_writes(at, &pattern(seed, len));
        }
    }

    /// Whether what lies there may go out: the driver wrote all of it, or another map shows it.
    pub(super) fn given(&self, at: usize, len: usize, direction: Direction) -> bool {
        let twice = self.secret.repeat(2);
        let secret = |window: &[u8]| twice.windows(16).any(|part| part == window);
        let heap = &self.model.heap[at..at + len];
        !direction.to_device() || !heap.chunks_exact(16).any(secret)
    }

    /// Maps what lies in the heap, given or not, and keeps it.
    pub(crate) fn map_as_it_is(
        &self,
        device: usize,
        at: usize,
        len: usize,
        direction: Direction,
    ) -> RawMapping {
        map(&self.devices[device], self.heap_bytes(at, len), direction, Attrs::NONE).unwrap()
    }

    pub(crate) fn map(&mut self, device: usize, place: Place, direction: Direction, attrs: u8) {
        let (at, len) = self.spot(place);
        if !self.may_map(at, len, direction) {
            return;
        }
        self.prepare(at, len, direction, attrs ^ 0x5a);
        if !self.given(at, len, direction) {
            return;
        }
        let attrs = match attrs {
            6 => Attrs::CC_SHARED,
            7 => Attrs::SKIP_CPU_SYNC,
            _ => Attrs::NONE,
        };
        let (granules, reaches) = (self.touched(at, len), self.reaches_shared());
        let asserted = attrs == Attrs::CC_SHARED;
        let wanted = predict(
            &mut self.model,
            device,
            (granules.clone(), at, len),
            direction,
            asserted,
            reaches,
        );
        let buffer = self.heap_bytes(at, len);
        let pool = wanted.ok().flatten().map(|id| self.model.holds[&id].pool);
        match (self.map_by(device, buffer, direction, attrs, pool), wanted) {
            (Ok(mapping), Ok(hold)) => {
                assert_eq!(mapping.is_bounced(), hold.is_some(), "{}", self.now);
                self.met(if hold.is_some() { "bounced" } else { "in place" });
                self.met_node(device, hold);
                let apart = self.model.way(device, Some(granules), asserted, false, reaches);
                if hold.is_some() && apart == Way::InPlace {
                    self.met("bounced for a cache line");
                }
                assert_eq!((mapping.len(), mapping.direction()), (len, direction));
                let by_hand = attrs == Attrs::SKIP_CPU_SYNC;
                self.keep(device, mapping, (at, len), hold, by_hand);
            }
            (Err(error), Err(reason)) => {
                assert_eq!(error.reason, reason, "{}", self.now);
                self.met(reason);
            }
            (is, should) => panic!("{is:?}, not {should:?}; {}", self.now),
        }
    }

    /// Remembers a map that was made.
    fn keep(
        &mut self,
        device: usize,
        mapping: RawMapping,
        (at, len): (usize, usize),
        hold: Option<usize>,
        by_hand: bool,
    ) {
        let direction = mapping.direction();
        let shown = if direction.to_device() {
            self.model.heap[at..at + len].to_vec()
        } else {
            vec![0; len]
        };
        let bounced = hold.map(|id| (id, shown));
        self.maps.push(LiveMap { device, mapping, at, len, direction, by_hand, bounced });
    }

    /// A map has ended.
    pub(super) fn let_go(&mut self, device: usize, granules: Range<usize>, hold: Option<usize>) {
        match hold {
            Some(id) => self.model.free(id),
            None => self.model.unpin(granules),
        }
        self.model.devices[device].counters.finished += 1;
    }

    /// The part of map number `map` that `at` and `len` name.
    fn part_of(&self, map: usize, at: usize, len: usize) -> Option<(usize, Range<usize>)> {
        let index = map.checked_rem(self.maps.len())?;
        let size = self.maps[index].len;
        let start = at % size;
        Some((index, start..(start + len).min(size)))
    }

    fn alive(&self, device: usize) -> bool {
        self.model.devices[device].stopped.is_none()
    }

    pub(crate) fn device_writes(&mut self, map: usize, at: usize, len: usize, seed: u8) {
        let Some((index, part)) = self.part_of(map, at, len) else { return };
        let map = &mut self.maps[index];
        let alive = self.model.devices[map.device].stopped.is_none();
        if self.wild || !map.direction.from_device() || !alive {
            return;
        }
        let bytes = pattern(seed, part.len());
        let addr = map.mapping.addr().raw() + u64::try_from(part.start).unwrap();
        assert_eq!(self.nics[map.device].write(addr, &bytes), Outcome::Clear, "{}", self.now);
        match &mut map.bounced {
            Some((_, slots)) => slots[part].copy_from_slice(&bytes),
            None => self.model.heap[map.at + part.start..map.at + part.end].copy_from_slice(&bytes),
        }
    }

    pub(crate) fn driver_syncs(&mut self, map: usize, at: usize, len: usize, seed: u8) {
        let Some((index, part)) = self.part_of(map, at, len) else { return };
        let (at, device) = (self.maps[index].at + part.start, self.maps[index].device);
        let alone = self.maps.iter().enumerate().all(|(other, map)| {
            other == index || map.at >= at + part.len() || at >= map.at + map.len
        });
        if !alone || !self.maps[index].direction.to_device() {
            return;
        }
        let bytes = pattern(seed, part.len());
        self.driver_writes(at, &bytes);
        let alive = self.alive(device);
        let map = &mut self.maps[index];
        sync_device(&self.devices[device], &map.mapping, part.end);
        if let Some((_, slots)) = &mut map.bounced
            && alive
        {
            slots[..part.end].copy_from_slice(&self.model.heap[map.at..map.at + part.end]);
        }
    }

    pub(crate) fn sync_for_cpu(&mut self, map: usize, at: usize, len: usize) {
        let Some((index, part)) = self.part_of(map, at, len) else { return };
        let map = &self.maps[index];
        sync_cpu(&self.devices[map.device], &map.mapping, part.end);
        if let Some((_, slots)) = &map.bounced
            && map.direction.from_device()
            && self.alive(map.device)
        {
            self.model.heap[map.at..map.at + part.end].copy_from_slice(&slots[..part.end]);
        }
    }

    pub(crate) fn finish(&mut self, map: usize, written: usize) {
        let Some(index) = map.checked_rem(self.maps.len()) else { return };
        let map = self.maps.swap_remove(index);
        if !self.alive(map.device) {
            self.met("finished after its device");
        }
        let hold = map.bounced.as_ref().and_then(|(id, _)| self.model.holds.get(id));
        let pool = hold.map(|hold| hold.pool);
        self.finish_by(&self.devices[map.device], map.mapping, written, pool);
        if let Some((_, slots)) = &map.bounced
            && map.direction.from_device()
            && !map.by_hand
            && self.alive(map.device)
        {
            let arrived = written.min(map.len);
            self.model.heap[map.at..map.at + arrived].copy_from_slice(&slots[..arrived]);
        }
        let granules = self.touched(map.at, map.len);
        self.let_go(map.device, granules, map.bounced.map(|(id, _)| id));
    }
}

/// What a map should come to, with the model as it is then: the hold of its slots, or none where
/// the memory itself is pinned.
pub(super) fn predict(
    model: &mut Model,
    device: usize,
    (granules, at, len): (Range<usize>, usize, usize),
    direction: Direction,
    asserted: bool,
    reaches_shared: bool,
) -> Result<Option<usize>, Refuse> {
    let shares_line = direction.from_device() && !(at | len).is_multiple_of(LINE);
    let way = model.way(device, Some(granules.clone()), asserted, shares_line, reaches_shared);
    let outcome = match way {
        Way::InPlace => {
            model.pin(granules);
            Ok(None)
        }
        Way::Bounce => model.take(device, len, None).map(Some),
        Way::Refuse(reason) => Err(reason),
    };
    match outcome {
        Ok(Some(_)) => model.bounced(device),
        Ok(None) => model.devices[device].counters.direct += 1,
        Err(_) => model.refused(device),
    }
    outcome
}
