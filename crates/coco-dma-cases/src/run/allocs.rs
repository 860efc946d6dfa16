//! Allocations, and what the CPU maps of them.

use coco_dma::addr::PhysRange;
use coco_dma::attrs::Attrs;
use coco_dma::coherent::{AllocSize, NotFreed};
use coco_dma::plan::{self, AllocKind};
use coco_dma::platform::Platform as _;
use coco_dma::state::{CacheMode, Context};

use super::allocated::Allocated;
use super::ask::mapped;
use super::stream::wide;
use super::world::{LiveAlloc, World};
use super::{Got, Rules};
use crate::case::Op;

/// The most runs that an allocation has.
const MOST_RUNS: usize = 256;

impl World<'_> {
    pub(super) fn coherent(&mut self, op: &Op) -> Result<Got, String> {
        match op {
            Op::Alloc { device, size, kind, attrs, context, align, name } => {
                let name = self.name(name.as_ref());
                self.alloc(*device, (*size, *align), (*kind, *context, *attrs), name)
            }
            Op::Free { alloc, by, context } => self.free(alloc, *by, *context),
            Op::Mmap { alloc, offset, size, mark, cache, name } => {
                let name = self.name(name.as_ref());
                self.mmap(alloc, (*offset, *size), (*mark, *cache), name)
            }
            _ => Err("no step of an allocation".to_owned()),
        }
    }

    fn alloc(
        &mut self,
        index: usize,
        (len, align): (u64, u64),
        (kind, context, attrs): (AllocKind, Context, Attrs),
        name: String,
    ) -> Result<Got, String> {
        let number = |bytes| usize::try_from(bytes).unwrap_or(usize::MAX);
        let size = AllocSize::of(number(len)).aligned(number(align));
        let all = std::mem::take(&mut self.room);
        let most = if kind == AllocKind::NonContiguous {
            number(len).div_ceil(4096).min(MOST_RUNS)
        } else {
            0
        };
        let (room, rest) = all.split_at_mut(most.min(all.len()));
        self.room = rest;
        let device = self.device(index)?;
        let mut rules = self.alloc_rules(device, (len, align), (kind, context, attrs));
        let used = self.used();
        let work = move || match kind {
            AllocKind::NonContiguous => {
                let room = room;
                let made = device.alloc_scattered(size, context, attrs, room);
                made.map(Allocated::Scattered).map_err(|failed| failed.error)
            }
            _ => device.alloc_as(size, kind, context, attrs).map(Allocated::Whole),
        };
        let made = match context {
            Context::Atomic => self.ground.machine.atomic(work),
            Context::Blocking => work(),
        };
        let memory = match made {
            Err(error) => {
                rules.refused(error.reason);
                return Ok(Got::refused(error.reason.slug()).ruled(rules));
            }
            Ok(memory) => memory,
        };
        let mut got = Got::new("allocate").ruled(rules);
        got = got.number("address", memory.addr());
        got = got.number("length", wide(memory.len()));
        got = match self.grown(&used) {
            Some(pool) => got.word("pool", &pool).word("from", "pool"),
            None => got.word("from", "pages"),
        };
        self.allocs.insert(name, LiveAlloc { device: index, memory });
        Ok(got)
    }

    fn free(&mut self, alloc: &str, by: Option<usize>, context: Context) -> Result<Got, String> {
        let gone = || format!("no allocation '{alloc}' lives");
        let live = self.allocs.get(alloc).ok_or_else(gone)?;
        let by = by.unwrap_or(live.device);
        let mut rules = Rules::default();
        // Whose it is comes before how it is freed.
        if by == live.device
            && let Err(reason) = plan::free(live.memory.converts_on_free(), context, &mut rules)
        {
            return Ok(Got::refused(reason.slug()).ruled(rules));
        }
        let live = self.allocs.remove(alloc).ok_or_else(gone)?;
        let device = self.device(by)?;
        let work = || live.memory.free(device);
        let freed = match context {
            Context::Atomic => self.ground.machine.atomic(work),
            Context::Blocking => work(),
        };
        match freed {
            Ok(()) => Ok(Got::new("done").ruled(rules)),
            Err((reason, memory)) => {
                let outcome = match reason {
                    NotFreed::StillMapped(_) => "still-mapped",
                    NotFreed::NotThisDevice => "not-this-device",
                    _ => return Err(reason.to_string()),
                };
                self.allocs.insert(alloc.to_owned(), LiveAlloc { memory, ..live });
                Ok(Got::new(outcome))
            }
        }
    }

    /// Maps a part of an allocation for the CPU: as the layer says, or with a mark or a memory type
    /// of the driver's own.
    fn mmap(
        &mut self,
        alloc: &str,
        (offset, size): (u64, Option<u64>),
        (mark, cache): (Option<u64>, Option<CacheMode>),
        name: String,
    ) -> Result<Got, String> {
        let live = self.allocs.get(alloc).ok_or("it was freed")?;
        let len = wide(live.memory.len());
        let part = size.unwrap_or_else(|| len.saturating_sub(offset));
        let mut rules = Rules::default();
        let answer = live.memory.mmap(self.device(live.device)?, offset, part, &mut rules);
        if let Ok(protection) = answer {
            let runs = self.parts_of(&live.memory, offset, part);
            let runs = runs.ok_or("the layer maps what is not there")?;
            let mark = mark.unwrap_or(protection.mark);
            let cache = cache.unwrap_or(protection.cache);
            let mapping = self.ground.machine.map_for_cpu(runs, mark, cache);
            self.mappings.insert(name, mapping);
        }
        Ok(mapped(answer).ruled(rules))
    }

    /// Where a part of an allocation lies, run by run.
    fn parts_of(&self, memory: &Allocated<'_>, offset: u64, part: u64) -> Option<Vec<PhysRange>> {
        let (mut skip, mut left, mut parts) = (offset, part, Vec::new());
        for bytes in memory.runs() {
            let run = self.ground.machine.locate(bytes)?;
            let len = run.len().saturating_sub(skip).min(left);
            if len > 0 {
                parts.push(run.slice(skip, len)?);
            }
            (skip, left) = (skip.saturating_sub(run.len()), left - len);
        }
        (left == 0).then_some(parts)
    }

    pub(super) fn sync_alloc(&self, alloc: &str, for_device: bool) -> Result<Got, String> {
        let live =
            self.allocs.get(alloc).ok_or_else(|| format!("no allocation '{alloc}' lives"))?;
        let device = self.device(live.device)?;
        self.ground.machine.atomic(|| {
            live.memory.sync(device, for_device);
        });
        Ok(Got::new("done"))
    }
}
