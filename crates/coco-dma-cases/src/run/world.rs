//! Everything that a case has while it runs.

use std::collections::BTreeMap;
use std::ptr::NonNull;

use coco_dma::Dma;
use coco_dma::addr::{PhysAddr, PhysRange};
use coco_dma::attrs::Attrs;
use coco_dma::coherent::Run;
use coco_dma::device::{BindError, Device};
use coco_dma::iommu::Domain;
use coco_dma::platform::Platform as _;
use coco_dma::pool::Pool;
use coco_dma::stream::{RawList, RawMapping};
use coco_dma_sim::{
    Call, ConvertFault, CpuMapping, Faulty, GranuleState, Machine, SimIommu, Traced,
};

use super::allocated::Allocated;
use super::build::endpoint;
use super::events::Events;
use super::memory::{Buffer, Pages};
use super::{Came, Failed, Got, Heed, Path, Told, Witness, compare, look};
use crate::case::{Bytes, CONTEXTS, Case, KINDS, Op, Question, Step, Target, word_of};

/// The platform that the layer stands on.
pub(super) type Platform = Traced<Faulty<Machine>>;

/// A map that is not finished.
#[derive(Debug)]
pub(super) struct LiveMap<'w> {
    pub(super) device: usize,
    pub(super) mapping: RawMapping,
    pub(super) attrs: Attrs,
    /// Where the buffer lies, if in one run.
    pub(super) range: Option<PhysRange>,
    /// The pool of the handle that it was made by.
    pub(super) by_handle: Option<&'w Pool<'w>>,
}

/// A list that is not unmapped.
#[derive(Debug)]
pub(super) struct LiveList<'w> {
    pub(super) device: usize,
    pub(super) list: RawList<'w>,
    pub(super) attrs: Attrs,
    /// The elements.
    pub(super) parts: Vec<NonNull<[u8]>>,
}

/// An allocation that is not freed.
#[derive(Debug)]
pub(super) struct LiveAlloc<'w> {
    pub(super) device: usize,
    pub(super) memory: Allocated<'w>,
}

/// Everything that a world stands on.
pub(super) struct Ground<'w> {
    pub(super) machine: &'w Machine,
    pub(super) dma: &'w Dma<'w, Platform>,
    pub(super) events: &'w Events,
    pub(super) pages: &'w Pages,
    /// The pools, by number.
    pub(super) pools: Vec<&'w Pool<'w>>,
    /// The pools of each device, by number.
    pub(super) own: &'w [Vec<&'w Pool<'w>>],
    /// The domain of the devices behind an IOMMU.
    pub(super) domain: &'w Domain<'w>,
    /// The IOMMU itself.
    pub(super) iommu: &'w SimIommu,
}

/// A case that runs.
pub(super) struct World<'w> {
    pub(super) case: &'w Case,
    pub(super) ground: Ground<'w>,
    pub(super) devices: Vec<Option<Device<'w, Platform>>>,
    /// The description that each device has now, by number.
    pub(super) described: Vec<usize>,
    pub(super) buffers: Vec<Buffer>,
    pub(super) maps: BTreeMap<String, LiveMap<'w>>,
    pub(super) lists: BTreeMap<String, LiveList<'w>>,
    pub(super) allocs: BTreeMap<String, LiveAlloc<'w>>,
    /// What drivers mapped of them for the CPU.
    pub(super) mappings: BTreeMap<String, CpuMapping>,
    /// The state of every granule before the first step.
    pub(super) began: BTreeMap<u64, GranuleState>,
    counter: usize,
    /// What the platform was asked for in all.
    pub(super) asked: look::Asked,
    /// Room for the runs of scattered allocations; what one had is not given out again.
    pub(super) room: &'w mut [Option<Run>],
    /// Entries for lists; those that one had are not lent again.
    pub(super) entries: &'w mut [Option<RawMapping>],
    pub(super) heed: Heed,
    pub(super) path: Path,
    /// Whether a bounce took the path.
    pub(super) taken: bool,
}

impl<'w> World<'w> {
    pub(super) fn new(
        case: &'w Case,
        ground: Ground<'w>,
        buffers: Vec<Buffer>,
        (room, entries): (&'w mut [Option<Run>], &'w mut [Option<RawMapping>]),
        heed: Heed,
        path: Path,
    ) -> Self {
        let count = case.devices.len();
        Self {
            case,
            ground,
            devices: (0..count).map(|_| None).collect(),
            described: (0..count).collect(),
            buffers,
            maps: BTreeMap::new(),
            lists: BTreeMap::new(),
            allocs: BTreeMap::new(),
            mappings: BTreeMap::new(),
            began: BTreeMap::new(),
            counter: 0,
            asked: look::Asked::default(),
            room,
            entries,
            heed,
            path,
            taken: false,
        }
    }

    /// Binds a device as its description says.
    pub(super) fn bind(&mut self, index: usize) -> Result<(), BindError> {
        let case = self.case;
        let Some(spec) = case.devices.get(index) else { return Ok(()) };
        let pools = self.ground.own.get(index).map(Vec::as_slice).unwrap_or_default();
        let device = self
            .ground
            .dma
            .bind(endpoint(spec, pools, Some(self.ground.domain), self.path), spec.limits)?;
        if let Some(place) = self.devices.get_mut(index) {
            *place = Some(device);
        }
        Ok(())
    }

    /// Remembers how everything is before the first step.
    pub(super) fn begin(&mut self) {
        self.asked = self.asked.with(&self.ground.dma.platform().take_calls());
        let granule = self.case.machine.regime.granule();
        for ram in &self.case.machine.ram {
            for index in 0..ram.len() / granule {
                let at = ram.base().raw() + index * granule;
                if let Some(state) = self.ground.machine.state(PhysAddr::new(at)) {
                    self.began.insert(at, state);
                }
            }
        }
    }

    /// Does one step and compares; none where it cannot be done, and that counts for nothing.
    pub(super) fn step(&mut self, step: &Step) -> Result<(Option<Told>, Option<Came>), Failed> {
        self.ground.machine.set_cpu(step.cpu);
        self.ground.events.take();
        let got = match self.act(&step.op) {
            Ok(got) => got,
            Err(got) => {
                let (witness, place) = (Witness::Layer, step.place.clone());
                let expected = format!("that '{}' can be done", step.name);
                let failed = Failed { witness, place, expected, got };
                return self.heed.judge(Err(failed)).map(|()| (None, None));
            }
        };
        let calls = self.ground.dma.platform().take_calls();
        self.asked = self.asked.with(&calls);
        let asked = look::Asked::default().with(&calls);
        let cache_work = calls.iter().any(|call| {
            matches!(
                call,
                Call::HandOver { cache_work: true, .. } | Call::TakeBack { cache_work: true, .. }
            )
        });
        let events = self.ground.events.take();
        let (seen, check) = (look::StepTrace { asked, events, cache_work }, &step.expect.check);
        self.heed.judge(compare::outcome(step, &got))?;
        self.heed.judge(compare::bytes(self, step, &got))?;
        look::truths(self, check, &step.place)?;
        self.heed.judge(look::look(self, check, Some(&seen), &step.place))?;
        let outcome = compare::short(&got);
        let slots = self.ground.pools.iter().map(|pool| (pool.used(), pool.high_water()));
        let came = Came::new(step, &got, self.lowest_first(), slots.collect(), seen.events);
        let told = Told { step: self.tell(step), outcome, rules: got.rules.0 };
        Ok((Some(told), Some(came)))
    }

    /// Whether slots are taken lowest address first on every path: all from one word of the bitmap, by
    /// one CPU.
    fn lowest_first(&self) -> bool {
        let one_cpu = self.case.steps.iter().all(|step| step.cpu == 0);
        let word = usize::try_from(usize::BITS).unwrap_or(usize::MAX);
        one_cpu && self.ground.pools.iter().all(|pool| pool.capacity() <= word)
    }

    fn act(&mut self, op: &Op) -> Result<Got, String> {
        let faulty = self.ground.dma.platform().inner();
        match op {
            Op::Map { .. } | Op::MapList { .. } | Op::Unmap { .. } | Op::Sync { .. } => {
                return self.stream(op);
            }
            Op::Alloc { .. } | Op::Free { .. } | Op::Mmap { .. } => return self.coherent(op),
            Op::Convert { .. }
            | Op::Plug { .. }
            | Op::Grow(_)
            | Op::Shrink(_)
            | Op::Refill
            | Op::Retry(_)
            | Op::ReclaimAll
            | Op::AllowSharing => return self.convert(op),
            Op::Bind(_) | Op::Rebind { .. } | Op::Revoke(_) | Op::LoseTrust(_) | Op::Ask(_) => {
                return self.devices(op);
            }
            Op::Protection { .. } | Op::Decide(_) => return self.decide(op),
            Op::DeviceAccess { .. } | Op::HostAccess { .. } | Op::DriverAccess { .. } => {
                return self.touch(op);
            }
            Op::FailConversion { skip, says, really } => {
                faulty.fail_convert(*skip, ConvertFault { says: *says, really: *really });
            }
            Op::RefuseConversions { to, how } => faulty.refuse(*to, *how),
            Op::FailView(skip) => faulty.fail_view(*skip),
            Op::FailUnmap { skip, claims: false } => self.ground.iommu.fail_unmap(*skip),
            Op::FailUnmap { skip, claims: true } => self.ground.iommu.claim_unmap(*skip),
            Op::FailMap(skip) => self.ground.iommu.fail_map(*skip),
            Op::Heal => {
                faulty.heal();
                self.ground.iommu.heal();
            }
            Op::Check => {}
        }
        Ok(Got::new("done"))
    }

    /// What a step does, in a line.
    fn tell(&self, step: &Step) -> String {
        let device =
            |index: &usize| self.case.devices.get(*index).map_or("", |device| &device.name);
        let memory =
            |index: &usize| self.case.memories.get(*index).map_or("", |memory| &memory.name);
        let what = match &step.op {
            Op::Map { device: d, memory: m, size, direction, attrs, .. } => {
                let with = if attrs.is_empty() { String::new() } else { format!(", {attrs}") };
                format!(" {size} bytes of {} for {} ({direction}{with})", memory(m), device(d))
            }
            Op::MapList { device: d, memories, .. } => {
                format!(" of {} memories for {}", memories.len(), device(d))
            }
            Op::Unmap { map: name, .. }
            | Op::Sync { of: Target::Map(name) | Target::Alloc(name), .. } => format!(" {name}"),
            Op::Alloc { device: d, size, kind, context, .. } => {
                let (kind, context) = (word_of(*kind, &KINDS), word_of(*context, &CONTEXTS));
                format!(" {size} bytes for {} ({kind}, {context})", device(d))
            }
            Op::Free { alloc, .. } | Op::Mmap { alloc, .. } => format!(" {alloc}"),
            Op::Convert { memory: m, size, .. } => format!(" {size:#x} bytes of {}", memory(m)),
            Op::Bind(d) | Op::Revoke(d) | Op::LoseTrust(d) | Op::Ask(d) => {
                format!(" {}", device(d))
            }
            Op::Rebind { device: d, to } => format!(" {} as {}", device(d), device(to)),
            Op::Decide(Question { device: d, operation, .. }) => {
                format!(" {operation} for {}", device(d))
            }
            _ => String::new(),
        };
        format!("{}{what}", step.name)
    }

    /// The device of this number, where it is bound.
    pub(super) fn device(&self, index: usize) -> Result<&Device<'w, Platform>, String> {
        let device = self.devices.get(index).and_then(Option::as_ref);
        device.ok_or_else(|| "a device that is not bound".to_owned())
    }

    /// A name for what was not given one.
    pub(super) fn name(&mut self, given: Option<&String>) -> String {
        self.counter += 1;
        given.cloned().unwrap_or_else(|| format!("unnamed-{}", self.counter))
    }

    /// `len` bytes of a pattern.
    pub(super) fn make(&self, bytes: &Bytes, len: usize) -> Vec<u8> {
        bytes.make(len, &|name| {
            let index = self.case.memories.iter().position(|memory| memory.name == name);
            let buffer = index.and_then(|index| self.buffers.get(index));
            let fill = buffer.map(|buffer| buffer.fill.clone()).unwrap_or_default();
            if fill.is_empty() { vec![0] } else { fill }
        })
    }

    /// Where a target lies in memory; what devices alone name lies nowhere.
    pub(super) fn run_of(&self, target: &Target) -> Option<PhysRange> {
        match target {
            Target::Memory(index) => self.buffers.get(*index)?.range,
            Target::Pool(index) => self.ground.pools.get(*index).map(|pool| pool.range()),
            Target::Alloc(name) => match self.allocs.get(name)?.memory.runs().as_slice() {
                [run] => self.ground.machine.locate(*run),
                _ => None,
            },
            Target::Map(_) | Target::Mapping(_) | Target::Address(_) => None,
        }
    }
}
