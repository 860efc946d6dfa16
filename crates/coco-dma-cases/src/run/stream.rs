//! Maps and allocations.
// UNSAFETY: raw maps and raw allocations are unsafe to make and to end.
#![expect(unsafe_code)]

use std::ops::Range;
use std::ptr::NonNull;

use coco_dma::addr::PhysRange;
use coco_dma::attrs::Attrs;
use coco_dma::device::Device;
use coco_dma::plan::{self, ListDevice, MapFace, Moment, Plan};
use coco_dma::platform::Platform as _;
use coco_dma::pool::Pool;
use coco_dma::state::Direction;
use coco_dma::stream::{ListError, ListFailed, UnmapListError, UnmapRawError};

use super::world::{LiveList, LiveMap, Platform, World};
use super::{Got, Heed, Path, Rules};
use crate::case::{Case, Op, Target};

/// A length or an offset of this process.
pub(super) fn size(bytes: u64) -> Result<usize, String> {
    usize::try_from(bytes).map_err(|_| "more bytes than this process can count".to_owned())
}

/// The story of a list ends with the element that has so many rules.
const MOST_RULES: usize = 1000;

/// A length in addresses.
pub(super) fn wide(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

/// The entries that a step lends a list.
pub(super) fn entries_of(case: &Case, op: &Op) -> usize {
    match op {
        Op::MapList { device, memories, .. } => entries_for(case, *device, memories),
        _ => 0,
    }
}

/// One for each memory, and one for each part of it that could be a segment.
fn entries_for(case: &Case, device: usize, memories: &[usize]) -> usize {
    let limits = case.devices.get(device).map(|device| device.limits).unwrap_or_default();
    let boundary = limits.boundary.map_or(u64::MAX, |boundary| boundary.bytes());
    let most = limits.segment.unwrap_or(u64::MAX).min(boundary).max(1);
    let memories = memories.iter().filter_map(|memory| case.memories.get(*memory));
    let entries = memories.map(|memory| memory.size.div_ceil(most / 2 + 1).saturating_add(2));
    entries.map(|count| usize::try_from(count.min(1 << 12)).unwrap_or(1)).sum()
}

impl<'w> World<'w> {
    pub(super) fn stream(&mut self, op: &Op) -> Result<Got, String> {
        match op {
            Op::Map { device, memory, offset, size: len, direction, attrs, name } => {
                let buffer = self.buffers.get(*memory).ok_or("no such memory")?;
                let part = buffer.part(size(*offset)?, size(*len)?).ok_or("no such part")?;
                let name = self.name(name.as_ref());
                self.map(*device, part, (*direction, *attrs), name)
            }
            Op::MapList { device, memories, direction, attrs, name } => {
                let name = self.name(name.as_ref());
                self.map_list(*device, memories, (*direction, *attrs), &name)
            }
            Op::Unmap { map, by, written } if self.lists.contains_key(map) => {
                self.unmap_list(map, *by, *written)
            }
            Op::Unmap { map, by, written } => self.unmap(map, *by, *written),
            Op::Sync { of: Target::Alloc(alloc), for_device, .. } => {
                self.sync_alloc(alloc, *for_device)
            }
            Op::Sync { of: Target::Map(map), for_device, offset, size: len } => {
                if let Some((live, whole)) = self.list_part(map) {
                    let device = self.device(live.device)?;
                    let start = whole.start.saturating_add(size(*offset)?).min(whole.end);
                    let len = len.map_or(Ok(usize::MAX), size)?;
                    let part = start..start.saturating_add(len).min(whole.end);
                    self.ground.machine.atomic(|| {
                        if *for_device {
                            // SAFETY: the buffers live as long as the case; devices act when told.
                            unsafe { device.sync_list_for_device(&live.list, part) };
                        } else {
                            // SAFETY: as above.
                            unsafe { device.sync_list_for_cpu(&live.list, part) };
                        }
                    });
                    return Ok(Got::new("done"));
                }
                let live = self.maps.get(map).ok_or_else(|| format!("no map '{map}' lives"))?;
                let device = self.device(live.device)?;
                let start = size(*offset)?;
                let end = match len {
                    Some(len) => start.saturating_add(size(*len)?),
                    None => live.mapping.len(),
                };
                let moment = if *for_device { Moment::SyncForDevice } else { Moment::SyncForCpu };
                let rules = self.carried(live, moment);
                self.ground.machine.atomic(|| {
                    if *for_device {
                        // SAFETY: the buffer lives as long as the case; devices act when told.
                        unsafe { device.sync_for_device(&live.mapping, start..end) };
                    } else {
                        // SAFETY: as above.
                        unsafe { device.sync_for_cpu(&live.mapping, start..end) };
                    }
                });
                Ok(Got::new("done").ruled(rules))
            }
            _ => Err("no step of a map".to_owned()),
        }
    }

    fn map(
        &mut self,
        index: usize,
        buffer: NonNull<[u8]>,
        (direction, attrs): (Direction, Attrs),
        name: String,
    ) -> Result<Got, String> {
        let device = self.device(index)?;
        let mut rules = Rules::default();
        let range = if buffer.is_empty() { None } else { self.ground.machine.locate(buffer) };
        let request = device.request(range, wide(buffer.len()), direction, attrs);
        // What it is decided to be; the layer decides by itself below.
        let (planned, reason, first) = match plan::map(&request, &mut rules) {
            Plan::Direct { reason, .. } => ("direct", reason.slug(), None),
            Plan::Bounce { reason, mut pools, .. } => {
                ("bounce", reason.slug(), pools.next().map(|candidate| candidate.index))
            }
            Plan::Refuse(reason) => ("refuse", reason.slug(), None),
        };
        let (used, bounces) = (self.used(), device.bounces());
        let by_handle = first.filter(|_| self.path == Path::Handle);
        let by_handle = by_handle.and_then(|first| self.pool_of(index, first));
        let mut handle = by_handle.and_then(|pool| pool.claim(self.ground.machine.cpu()));
        let made = self.ground.machine.atomic(|| match &mut handle {
            // SAFETY: the buffer lives as long as the case; the device acts when told.
            Some(handle) => unsafe { device.map_raw_with(handle, buffer, direction, attrs) },
            // SAFETY: as above.
            None => unsafe { device.map_raw(buffer, direction, attrs) },
        });
        let taken = self.path.taken(bounces, device.bounces(), handle.is_some());
        drop(handle);
        self.taken |= taken;
        let mapping = match made {
            Err(error) => {
                rules.refused(error.reason);
                return Ok(Got::refused(error.reason.slug()).ruled(rules));
            }
            Ok(mapping) => mapping,
        };
        let outcome = if mapping.is_bounced() { "bounce" } else { "direct" };
        let mut got = Got::new(outcome).because(reason).ruled(rules);
        got = got.number("address", mapping.addr().raw());
        if let Some(pool) = self.grown(&used) {
            got = got.word("pool", &pool);
        }
        self.maps.insert(name, LiveMap { device: index, mapping, attrs, range, by_handle });
        if outcome != planned && self.heed == Heed::All {
            return Err(format!("{outcome}, where plan says {planned} ({reason})"));
        }
        Ok(got)
    }

    fn map_list(
        &mut self,
        index: usize,
        memories: &[usize],
        (direction, attrs): (Direction, Attrs),
        name: &str,
    ) -> Result<Got, String> {
        let mut parts = Vec::new();
        for memory in memories {
            let buffer = self.buffers.get(*memory).ok_or("no such memory")?;
            parts.push(buffer.part(0, buffer.len).ok_or("no such part")?);
        }
        let all = std::mem::take(&mut self.entries);
        let count = entries_for(self.case, index, memories).min(all.len());
        let (entries, rest) = all.split_at_mut(count);
        self.entries = rest;
        let device = self.device(index)?;
        let limits = device.info().limits;
        let mut rules = self.list_rules(device, &parts, direction, attrs);
        let bounces = device.bounces();
        // SAFETY: as for a map.
        let made = self
            .ground
            .machine
            .atomic(|| unsafe { device.map_list(&parts, direction, attrs, entries) });
        let taken = self.path.taken(bounces, device.bounces(), false);
        self.taken |= taken;
        let list = match made {
            Ok(list) => list,
            Err(ListFailed { error: ListError::Refused { element, error }, left }) => {
                rules.refused(error.reason);
                let mut got = Got::refused(error.reason.slug()).ruled(rules);
                if let Some(element) = element {
                    got = got.number("segment", wide(element));
                }
                if let Some(list) = left {
                    let live = LiveList { device: index, list, attrs, parts };
                    self.lists.insert(name.to_owned(), live);
                }
                return Ok(got);
            }
            Err(failed) => return Err(failed.to_string()),
        };
        let segments: Vec<_> = list.segments().collect();
        let _ = plan::segments_fit(&limits, segments.len(), &mut rules);
        let mut got = Got::new("done").number("segments", wide(segments.len())).ruled(rules);
        if let Some(first) = segments.first() {
            got = got.number("address", first.addr.raw());
        }
        self.lists.insert(name.to_owned(), LiveList { device: index, list, attrs, parts });
        Ok(got)
    }

    /// The rules of a list, piece by piece as the layer plans them.
    fn list_rules(
        &self,
        device: &Device<'_, Platform>,
        parts: &[NonNull<[u8]>],
        direction: Direction,
        attrs: Attrs,
    ) -> Rules {
        let mut rules = Rules::default();
        let info = device.info();
        let page = if info.attachment.is_translated() { self.case.machine.iommu.page } else { 1 };
        let planned = ListDevice::new(info, page);
        let ranges: Vec<Option<PhysRange>> =
            parts.iter().map(|part| self.ground.machine.locate(*part)).collect();
        for (element, part) in parts.iter().enumerate() {
            let range = ranges.get(element).copied().flatten();
            let next = ranges.get(element + 1).copied().flatten();
            let ends = range.is_some_and(|run| (run.last().raw() + 1).is_multiple_of(page));
            let joins = ends && next.is_some_and(|run| run.base().raw().is_multiple_of(page));
            let (mut offset, len) = (0, wide(part.len()));
            loop {
                let left = len - offset;
                let rest = range.and_then(|range| range.slice(offset, left));
                let request = device.request(rest, left, direction, attrs);
                let piece = planned.first_piece(&request, joins);
                let refused = matches!(plan::map(&piece, &mut rules), Plan::Refuse(_));
                offset += piece.len;
                if refused || offset >= len || rules.0.len() > MOST_RULES {
                    break;
                }
            }
        }
        rules
    }

    fn unmap_list(
        &mut self,
        name: &str,
        by: Option<usize>,
        written: Option<u64>,
    ) -> Result<Got, String> {
        let live = self.lists.remove(name).ok_or_else(|| format!("no map '{name}' lives"))?;
        let written =
            written.map_or(usize::MAX, |bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
        let LiveList { device: index, list, attrs, parts } = live;
        let device = self.device(by.unwrap_or(index))?;
        // SAFETY: the device acts when told, and is not told to any more.
        let ended = self.ground.machine.atomic(|| unsafe { device.unmap_list(list, written) });
        match ended {
            Ok(()) => Ok(Got::new("done")),
            Err(error) => {
                let outcome = match &error {
                    UnmapListError::NotThisDevice(_) => "not-this-device",
                    UnmapListError::StillMapped(..) => "still-mapped",
                };
                let list = error.into_list();
                self.lists.insert(name.to_owned(), LiveList { device: index, list, attrs, parts });
                Ok(Got::new(outcome))
            }
        }
    }

    /// The list that a name is of, and the bytes of it that it names: `NAME` is all, and `NAME.0` its
    /// first element.
    pub(super) fn list_part(&self, name: &str) -> Option<(&LiveList<'_>, Range<usize>)> {
        if let Some(live) = self.lists.get(name) {
            return Some((live, 0..live.list.len()));
        }
        let (list, element) = name.rsplit_once('.')?;
        let (live, element) = (self.lists.get(list)?, element.parse::<usize>().ok()?);
        let start = live.parts.get(..element)?.iter().map(|part| part.len()).sum();
        Some((live, start..start + live.parts.get(element)?.len()))
    }

    fn unmap(&mut self, map: &str, by: Option<usize>, written: Option<u64>) -> Result<Got, String> {
        let live = self.maps.remove(map).ok_or_else(|| format!("no map '{map}' lives"))?;
        let rules = self.carried(&live, Moment::Unmap);
        let written = match written {
            Some(written) => usize::try_from(written).unwrap_or(usize::MAX),
            None => live.mapping.len(),
        };
        let device = self.device(by.unwrap_or(live.device))?;
        let mut handle = live.by_handle.and_then(|pool| pool.claim(self.ground.machine.cpu()));
        let ended = self.ground.machine.atomic(|| match &mut handle {
            // SAFETY: the device acts when told, and is not told to any more.
            Some(handle) => unsafe { device.unmap_raw_with(handle, live.mapping, written) },
            // SAFETY: as above.
            None => unsafe { device.unmap_raw(live.mapping, written) },
        });
        drop(handle);
        match ended {
            Ok(()) => Ok(Got::new("done").ruled(rules)),
            Err(error) => {
                let outcome = match &error {
                    UnmapRawError::NotThisDevice(_) => "not-this-device",
                    UnmapRawError::StillMapped(..) => "still-mapped",
                };
                let mapping = error.into_mapping();
                self.maps.insert(map.to_owned(), LiveMap { mapping, ..live });
                Ok(Got::new(outcome))
            }
        }
    }

    /// The rules about the bytes of a map at a moment.
    fn carried(&self, live: &LiveMap<'_>, moment: Moment) -> Rules {
        let mut rules = Rules::default();
        let Ok(device) = self.device(live.device) else { return rules };
        let info = MapFace {
            direction: live.mapping.direction(),
            attrs: live.attrs,
            bounced: live.mapping.is_bounced(),
            coherent: device.info().coherent,
            alive: device.is_alive(),
        };
        let _ = plan::transfer(&info, moment, &mut rules);
        rules
    }

    /// The pool that a device has under this number: its own come first.
    fn pool_of(&self, device: usize, number: usize) -> Option<&'w Pool<'w>> {
        let own = self.ground.own.get(*self.described.get(device)?)?;
        let shared = self.ground.pools.iter().zip(&self.case.pools);
        let shared = shared.filter(|(_, spec)| !spec.of_devices).map(|(pool, _)| pool);
        own.iter().chain(shared).nth(number).copied()
    }

    /// Slots in use, by pool.
    pub(super) fn used(&self) -> Vec<usize> {
        self.ground.pools.iter().map(|pool| pool.used()).collect()
    }

    /// The pool of which more slots are in use than before.
    pub(super) fn grown(&self, before: &[usize]) -> Option<String> {
        let pools = self.ground.pools.iter().zip(&self.case.pools);
        let mut pools = pools.zip(before);
        pools
            .find(|((pool, _), before)| pool.used() > **before)
            .map(|((_, spec), _)| spec.name.clone())
    }
}
