//! Allocations, and what the CPU maps of them.
// UNSAFETY: raw allocations are unsafe to end.
#![expect(unsafe_code)]

use coco_dma::attrs::Attrs;
use coco_dma::coherent::NotFreed;
use coco_dma::plan::{self, AllocKind};
use coco_dma::state::{Cache, Context, Direction};

use super::ask::mapped;
use super::stream::wide;
use super::world::{LiveAlloc, World};
use super::{Got, Rules};
use crate::case::{Op, Target};

impl World<'_> {
    pub(super) fn coherent(&mut self, op: &Op) -> Result<Got, String> {
        match op {
            Op::Alloc { device, size: len, kind, attrs, context, name } => {
                let name = self.name(name.as_ref());
                let len = usize::try_from(*len).unwrap_or(usize::MAX);
                self.alloc(*device, len, (*kind, *context, *attrs), name)
            }
            Op::Free { alloc, context } => self.free(alloc, *context),
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
        len: usize,
        (kind, context, attrs): (AllocKind, Context, Attrs),
        name: String,
    ) -> Result<Got, String> {
        let device = self.device(index)?;
        let mut rules = self.alloc_rules(device, wide(len), kind, context, attrs);
        let used = self.used();
        let work = || device.alloc_as(len, kind, context, attrs);
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
        got = got.number("address", memory.addr().raw());
        got = got.number("length", wide(memory.bytes().len()));
        got = match self.grown(&used) {
            Some(pool) => got.word("pool", &pool).word("from", "pool"),
            None => got.word("from", "pages"),
        };
        self.allocs.insert(name, LiveAlloc { device: index, memory });
        Ok(got)
    }

    fn free(&mut self, alloc: &str, context: Context) -> Result<Got, String> {
        let gone = || format!("no allocation '{alloc}' lives");
        let live = self.allocs.get(alloc).ok_or_else(gone)?;
        let mut rules = Rules::default();
        if let Err(reason) = plan::free(live.memory.converts_on_free(), context, &mut rules) {
            return Ok(Got::refused(reason.slug()).ruled(rules));
        }
        let live = self.allocs.remove(alloc).ok_or_else(gone)?;
        let device = self.device(live.device)?;
        // SAFETY: the device acts when told, and is not told to any more.
        let work = || unsafe { device.free_raw(live.memory) };
        let freed = match context {
            Context::Atomic => self.ground.machine.atomic(work),
            Context::Blocking => work(),
        };
        match freed.map_err(|error| (error.reason, error.memory)) {
            Ok(()) => Ok(Got::new("done").ruled(rules)),
            Err((NotFreed::StillMapped(_), memory)) => {
                self.allocs.insert(alloc.to_owned(), LiveAlloc { memory, ..live });
                Ok(Got::new("still-mapped"))
            }
            Err((reason, _)) => Err(reason.to_string()),
        }
    }

    /// Maps a part of an allocation for the CPU: as the layer says, or with a mark or a memory type
    /// of the driver's own.
    fn mmap(
        &mut self,
        alloc: &str,
        (offset, size): (u64, Option<u64>),
        (mark, cache): (Option<u64>, Option<Cache>),
        name: String,
    ) -> Result<Got, String> {
        let live = self.allocs.get(alloc).ok_or("it was freed")?;
        let len = wide(live.memory.bytes().len());
        let part = size.unwrap_or_else(|| len.saturating_sub(offset));
        let mut rules = Rules::default();
        let answer = self.device(live.device)?.mmap(&live.memory, offset, part, &mut rules);
        if let Ok(protection) = answer {
            let run = self.run_of(&Target::Alloc(alloc.to_owned())).ok_or("it lies nowhere")?;
            let run = run.slice(offset, part).ok_or("the layer maps what is not there")?;
            let mark = mark.unwrap_or(protection.mark);
            let cache = cache.unwrap_or(protection.cache);
            let mapping = self.ground.machine.map_for_cpu(vec![run], mark, cache);
            self.mappings.insert(name, mapping);
        }
        Ok(mapped(answer).ruled(rules))
    }

    pub(super) fn sync_alloc(&self, alloc: &str, for_device: bool) -> Result<Got, String> {
        let live =
            self.allocs.get(alloc).ok_or_else(|| format!("no allocation '{alloc}' lives"))?;
        let device = self.device(live.device)?;
        self.ground.machine.atomic(|| {
            if for_device {
                device.sync_alloc_for_device(&live.memory, Direction::Both);
            } else {
                device.sync_alloc_for_cpu(&live.memory, Direction::Both);
            }
        });
        Ok(Got::new("done"))
    }
}
