//! Calls that map several buffers at once, buffers of the driver's own, and those that only ask.

use std::ptr::NonNull;

use coco_dma::attrs::Attrs;
use coco_dma::state::Direction;
use coco_dma::stream::RawList;
use coco_dma::stream::RawMapping;
use coco_dma_sim::Outcome;

use super::call::Place;
use super::maps::pattern;
use super::maps::predict;
use super::model::Way;
use super::world::World;
use crate::support::map_list;
use crate::support::unmap_list;

impl World<'_> {
    pub(crate) fn map_list(
        &mut self,
        device: usize,
        places: &[Place],
        direction: Direction,
        written: usize,
    ) {
        let spots: Vec<_> = places.iter().map(|place| self.spot(*place)).collect();
        let apart = |(index, (at, len)): (usize, &(usize, usize))| {
            spots[..index].iter().all(|(other, size)| at + len <= *other || other + size <= *at)
        };
        let fine = spots.iter().all(|(at, len)| self.may_map(*at, *len, direction));
        if !fine || !spots.iter().enumerate().all(apart) {
            return;
        }
        for (at, len) in &spots {
            self.prepare(*at, *len, direction, 0x33);
        }
        if !spots.iter().all(|(at, len)| self.given(*at, *len, direction)) {
            return;
        }
        let (mut holds, reaches) = (Vec::new(), self.reaches_shared());
        // What no room would help is told before anything is lent.
        let mut refused = spots.iter().any(|(at, len)| {
            let (granules, mut alone) = (self.touched(*at, *len), self.model.emptied());
            let place = (granules, *at, *len);
            predict(&mut alone, device, place, direction, false, reaches).is_err()
        });
        if refused {
            self.model.refused(device);
        } else {
            for (at, len) in &spots {
                let place = (self.touched(*at, *len), *at, *len);
                match predict(&mut self.model, device, place, direction, false, reaches) {
                    Ok(hold) => holds.push(hold),
                    Err(_) => {
                        refused = true;
                        break;
                    }
                }
            }
        }
        let buffers: Vec<NonNull<[u8]>> =
            spots.iter().map(|(at, len)| self.heap_bytes(*at, *len)).collect();
        let mut records: Vec<Option<RawMapping>> = spots.iter().map(|_| None).collect();
        let mapped = map_list(&self.devices[device], &buffers, direction, &mut records);
        assert_eq!(mapped.is_some(), !refused, "{}", self.now);
        self.met(if mapped.is_some() { "list" } else { "list refused" });
        if let Some(list) = mapped {
            self.list_comes_back(device, &spots, &holds, direction, written, &list);
            unmap_list(&self.devices[device], list, written);
        }
        assert!(records.iter().all(Option::is_none), "{}", self.now);
        for ((at, len), hold) in spots.iter().zip(&holds) {
            self.let_go(device, self.touched(*at, *len), *hold);
        }
    }

    /// The device writes all of a list, of which the first `written` bytes come back.
    fn list_comes_back(
        &mut self,
        device: usize,
        spots: &[(usize, usize)],
        holds: &[Option<usize>],
        direction: Direction,
        written: usize,
        list: &RawList<'_>,
    ) {
        let mut before = 0;
        for (((at, len), hold), record) in spots.iter().zip(holds).zip(list.views()) {
            let addr = record.addr().raw();
            let given = if direction.to_device() || hold.is_none() {
                self.model.heap[*at..at + len].to_vec()
            } else {
                vec![0; *len]
            };
            let mut left = given.clone();
            if !self.wild {
                assert_eq!(self.nics[device].fetch(addr, *len), Ok(given), "{}", self.now);
                if direction.from_device() {
                    left = pattern(0x77, *len);
                    assert_eq!(self.nics[device].write(addr, &left), Outcome::Clear);
                }
            }
            if direction.from_device() {
                let arrived = match hold {
                    Some(_) => written.saturating_sub(before).min(*len),
                    None => *len,
                };
                self.model.heap[*at..at + arrived].copy_from_slice(&left[..arrived]);
            }
            before += len;
        }
    }

    pub(crate) fn owned(&mut self, device: usize, len: usize, direction: Direction, lost: bool) {
        let given = pattern(0x11, len);
        let wanted = match self.model.way(device, None, false, false, true) {
            Way::Refuse(reason) => Err(reason),
            _ => self.model.take(device, len, None),
        };
        let buffer = given.clone().into_boxed_slice();
        match (self.devices[device].map(buffer, direction, Attrs::NONE), wanted) {
            (Ok(mapping), Ok(id)) => {
                self.model.bounced(device);
                let addr = mapping.addr().raw();
                let shown = if direction.to_device() { given.clone() } else { vec![0; len] };
                let mut back = shown.clone();
                if !self.wild {
                    assert_eq!(self.nics[device].fetch(addr, len), Ok(shown), "{}", self.now);
                    if direction.from_device() {
                        back = pattern(0x99, len);
                        assert_eq!(self.nics[device].write(addr, &back), Outcome::Clear);
                    }
                }
                if lost {
                    drop(mapping);
                    self.model.devices[device].counters.lost += 1;
                    *self.met.entry("lost".into()).or_default() += 1;
                    return;
                }
                let half = if direction.from_device() { len / 2 } else { 0 };
                let buffer = mapping.unmap(len / 2).unwrap();
                assert_eq!((&buffer[..half], &buffer[half..]), (&back[..half], &given[half..]));
                self.model.devices[device].counters.finished += 1;
                self.model.free(id);
                *self.met.entry("owned".into()).or_default() += 1;
            }
            (Err(failed), Err(reason)) => {
                self.model.refused(device);
                assert_eq!(failed.error().reason, reason, "{}", self.now);
                assert_eq!(*failed.into_buffer(), *given);
            }
            (is, should) => panic!("{is:?}, not {should:?}; {}", self.now),
        }
    }

    pub(crate) fn room(&mut self, device: usize, places: &[Place]) {
        let spots: Vec<_> = places.iter().map(|place| self.spot(*place)).collect();
        let (mut trial, reaches) = (self.model.clone(), self.reaches_shared());
        let wanted = spots.iter().try_for_each(|(at, len)| {
            let granules = self.touched(*at, *len);
            predict(&mut trial, device, (granules, *at, *len), Direction::Both, false, reaches)
                .map(drop)
        });
        let wanted = match self.model.devices[device].stopped {
            Some(reason) => Err(reason),
            None => wanted,
        };
        let buffers: Vec<_> = spots.iter().map(|(at, len)| self.heap_bytes(*at, *len)).collect();
        assert_eq!(self.devices[device].capacity_for(&buffers), wanted, "{}", self.now);
        self.met(if wanted.is_ok() { "room" } else { "no room" });
    }
}
