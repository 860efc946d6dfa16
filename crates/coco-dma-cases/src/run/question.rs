//! Questions to `plan` alone: nothing is built, and nothing done.

use coco_dma::addr::{AddressLimit, BusRanges, DmaAddr, PhysAddr, PhysRange};
use coco_dma::plan::{
    self, AllocPlan, AllocRequest, Candidates, DeviceInfo, MapFace, MapRequest, MmapRequest,
    Moment, OwnPages, Place, Plan, PoolInfo, Reservoir, ViewRequest,
};
use coco_dma::reason::{Bounce, Direct, Refuse};
use coco_dma::state::{Context, Direction, State};

use super::ask::mapped;
use super::{Got, Rules};
use crate::case::{
    Alive, AllocOf, Case, DeviceSpec, Fact, MapOf, Op, Operation, PoolSpec, Question,
};

/// Allocations are made of whole pages of this many bytes.
pub(super) const PAGE: u64 = 4096;

/// What a question comes to.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The outcome: `direct`, `bounce`, `refuse`, `allocate` or `done`.
    pub outcome: &'static str,
    /// The slug of its reason.
    pub reason: String,
    /// The address that the device is given, where there is one.
    pub address: Option<u64>,
    /// The name of the pool, where it goes through one.
    pub pool: Option<String>,
    /// The rules that were applied, each with what it found.
    pub rules: Vec<(plan::Rule, String)>,
}

/// What the only step of a case comes to, if that is a `decide`. No machine is built for it.
pub fn answer(case: &Case) -> Option<Answer> {
    let [step] = case.steps.as_slice() else { return None };
    let Op::Decide(question) = &step.op else { return None };
    let got = ask(case, question).ok()?;
    let (mut address, mut pool) = (None, None);
    for (key, fact) in got.facts {
        match (key, fact) {
            ("address", Fact::Number(number)) => address = Some(number),
            ("pool", Fact::Word(name)) => pool = Some(name),
            _ => {}
        }
    }
    let reason = got.reason.unwrap_or_default();
    Some(Answer { outcome: got.outcome, reason, address, pool, rules: got.rules.0 })
}

/// What a question comes to.
pub(super) fn ask(case: &Case, question: &Question) -> Result<Got, String> {
    let spec = case.devices.get(question.device).ok_or("no such device")?;
    let machine = case.pools.iter().enumerate().filter(|(_, pool)| !pool.of_devices);
    let order: Vec<usize> =
        spec.pools.iter().copied().chain(machine.map(|(index, _)| index)).collect();
    let pools: Vec<&PoolSpec> = order.iter().filter_map(|index| case.pools.get(*index)).collect();
    let infos: Vec<PoolInfo> = pools.iter().map(|pool| pool.info()).collect();
    let device = device(spec);
    let page = if device.attachment.is_translated() { case.machine.iommu.page } else { PAGE };
    let asked = Asked { case, question, device, page: page.max(PAGE), pools, infos };
    let mut rules = Rules::default();
    let got = asked.answer(&mut rules);
    Ok(got.unwrap_or_else(|refused| {
        // Every refusal says the way out, wherever it was decided.
        rules.refused(refused);
        Got::refused(refused.slug())
    }))
    .map(|got| got.ruled(rules))
}

fn device(spec: &DeviceSpec) -> DeviceInfo<'_> {
    DeviceInfo {
        trust: spec.trust,
        limits: spec.limits,
        bus_limit: spec.bus_limit.map_or(AddressLimit::NONE, AddressLimit::last),
        bus: BusRanges::new(&spec.bus),
        attachment: spec.attachment,
        coherent: spec.coherent,
        external_facing: spec.external_facing,
        force_bounce: spec.force_bounce,
        node: spec.node,
    }
}

/// A question with all that it is about.
struct Asked<'c> {
    case: &'c Case,
    question: &'c Question,
    device: DeviceInfo<'c>,
    /// The machine's page, or that of the device's IOMMU where that is longer.
    page: u64,
    pools: Vec<&'c PoolSpec>,
    infos: Vec<PoolInfo>,
}

/// What an allocation is.
struct Allocated {
    got: Got,
    state: State,
    converted: bool,
    len: u64,
}

impl Asked<'_> {
    fn answer(&self, rules: &mut Rules) -> Result<Got, Refuse> {
        let done = |got: Got| Got { outcome: "done", ..got };
        match self.question.operation {
            Operation::Map(map) => self.map(map, rules),
            Operation::Unmap(map, alive) => {
                let got = self.map(map, rules)?;
                Ok(done(self.transfer(got, map, alive, &[Moment::Unmap], rules)))
            }
            Operation::Sync(map, alive) => {
                let got = self.map(map, rules)?;
                let moments = syncs(map.direction);
                Ok(done(self.transfer(got, map, alive, moments, rules)))
            }
            Operation::Attach { direction, attrs } => {
                let request = self.request(MapOf { direction, attrs, align: 1 });
                let attached = plan::attach(&request, rules)?;
                let got = direct(attached.reason, attached.addr);
                Ok(got.flag("cache-work", attached.cache_work))
            }
            Operation::Alloc(alloc) => self.alloc(alloc, rules).map(|made| made.got),
            Operation::Free { context, converted } => {
                plan::free(converted, context, rules)?;
                Ok(Got::new("done"))
            }
            Operation::FreeOf(alloc) => {
                // Who frees in atomic context allocated where it may block.
                let made = AllocOf { context: Context::Blocking, ..alloc };
                let made = self.alloc(made, rules)?;
                plan::free(made.converted, alloc.context, rules)?;
                Ok(done(made.got))
            }
            Operation::MmapOf { alloc, offset, length } => {
                self.mmap(alloc, (offset, length), rules)
            }
            Operation::View(attrs) => {
                let request = self.request(MapOf { direction: Direction::Both, attrs, align: 1 });
                let MapRequest { regime, place, len, memory, .. } = request;
                let (trust, coherent) = (self.device.trust, self.device.coherent);
                let view = ViewRequest { regime, place, len, memory, trust, coherent, attrs };
                let view = plan::view(&view, rules)?;
                Ok(mapped(Ok(view.protection)).because(of_state(view.state).slug()))
            }
        }
    }

    fn request(&self, map: MapOf) -> MapRequest<'_> {
        let Question { at, size: len, memory, .. } = *self.question;
        let page = if self.page > PAGE { self.page } else { 1 };
        MapRequest {
            regime: &self.case.machine.regime,
            device: &self.device,
            place: at.map_or(Place::Unlocated, |at| Place::At(PhysAddr::new(at))),
            len,
            memory,
            direction: map.direction,
            attrs: map.attrs,
            align: map.align.max(page),
            pools: &self.infos,
        }
    }

    fn map(&self, map: MapOf, rules: &mut Rules) -> Result<Got, Refuse> {
        match plan::map(&self.request(map), rules) {
            Plan::Refuse(reason) => Err(reason),
            Plan::Direct { reason, addr, cache_work, .. } => {
                Ok(direct(reason, addr).flag("cache-work", cache_work))
            }
            Plan::Bounce { reason, pools, cache_work } => {
                let got = Got::new("bounce").because(reason.slug());
                Ok(self.pooled(got.flag("cache-work", cache_work), pools))
            }
        }
    }

    /// What happens to the bytes of a map later on, and to the caches.
    fn transfer(
        &self,
        got: Got,
        map: MapOf,
        alive: Alive,
        moments: &[Moment],
        rules: &mut Rules,
    ) -> Got {
        let info = MapFace {
            direction: map.direction,
            attrs: map.attrs,
            bounced: got.outcome == "bounce",
            coherent: self.device.coherent,
            alive: alive == Alive::Yes,
        };
        let works = moments.iter().map(|moment| plan::transfer(&info, *moment, rules).cache_work);
        let work = works.fold(false, |any, work| any | work);
        let mut got = got;
        got.facts.retain(|(key, _)| *key != "cache-work");
        got.flag("cache-work", work)
    }

    /// An allocation: from the pools kept for it, of pages (the first that do from `at` on, where that
    /// is said), or from other pools.
    fn alloc(&self, alloc: AllocOf, rules: &mut Rules) -> Result<Allocated, Refuse> {
        let request = AllocRequest {
            kind: alloc.kind,
            regime: &self.case.machine.regime,
            device: &self.device,
            len: self.question.size,
            page: self.page,
            align: alloc.align,
            attrs: alloc.attrs,
            context: alloc.context,
            pages: alloc.pages,
            pools: &self.infos,
        };
        let plan = plan::alloc(&request, rules)?;
        let AllocPlan { extent, reservoir, pages, pools, needs_sync, scattered, .. } = plan;
        let allocate = |from: &str, len: u64| {
            let got = Got::new("allocate").word("from", from).number("length", len);
            got.flag("needs-sync", needs_sync).flag("scattered", scattered)
        };
        let from_pools = |pools: Candidates<'_>| {
            let first = { pools }.next();
            let info = first.and_then(|first| self.infos.get(first.index));
            let reason = match info.is_some_and(|info| info.restricted) {
                true => Bounce::RestrictedPool.slug(),
                false => Direct::InReach.slug(),
            };
            let got = self.pooled(allocate("pool", extent.len).because(reason), pools);
            let state = first.map_or(State::Ordinary, |first| first.state);
            Allocated { got, state, converted: false, len: extent.len }
        };
        if let Some(Reservoir { pools, .. }) = reservoir {
            return Ok(from_pools(pools));
        }
        let Some(pages) = pages else { return pools.map(from_pools) };
        let address = match self.question.at {
            None => None,
            Some(at) => match self.first_run(PhysAddr::new(at), pages, alloc.context, rules) {
                Some(address) => address,
                None => {
                    let none = |why| plan::nothing_left(None, Some(Refuse::OutOfPages), why);
                    let pools = pools.map_err(none)?;
                    pools.tell_first(rules);
                    return Ok(from_pools(pools));
                }
            },
        };
        let got = allocate("pages", pages.len).because(Direct::InReach.slug());
        let got = addressed(got, address);
        Ok(Allocated { got, state: pages.state, converted: pages.convert, len: extent.len })
    }

    /// The address of the first pages from `base` on that a source could give as it is asked: none
    /// inside where a domain gives it.
    fn first_run(
        &self,
        base: PhysAddr,
        pages: OwnPages,
        context: Context,
        rules: &mut Rules,
    ) -> Option<Option<DmaAddr>> {
        let regime = &self.case.machine.regime;
        let mut queries = pages.queries(regime, &self.device, context);
        queries.find_map(|query| {
            let asked = query.constraints;
            let at = base.max(asked.first).raw().checked_next_multiple_of(asked.align)?;
            let run = PhysRange::new(PhysAddr::new(at), asked.len)?;
            query.place(regime, &self.device, run, rules).map(|(_, addr)| addr)
        })
    }

    /// A part of an allocation, which is in the state that the allocation was brought into.
    fn mmap(
        &self,
        alloc: AllocOf,
        (offset, length): (u64, Option<u64>),
        rules: &mut Rules,
    ) -> Result<Got, Refuse> {
        let Allocated { state, len, .. } = self.alloc(alloc, rules)?;
        let request = MmapRequest {
            regime: &self.case.machine.regime,
            kind: alloc.kind,
            state,
            coherent: self.device.coherent,
            attrs: alloc.attrs,
            len,
            offset,
            part: length.unwrap_or_else(|| len.saturating_sub(offset)),
        };
        let protection = plan::mmap(&request, rules)?;
        Ok(mapped(Ok(protection)).because(of_state(state).slug()))
    }

    /// The pools of an answer: the first, the address that it would give empty, and all names.
    fn pooled(&self, mut got: Got, pools: Candidates<'_>) -> Got {
        let mut names = Vec::new();
        for candidate in pools {
            let Some(spec) = self.pools.get(candidate.index) else { continue };
            if names.is_empty() {
                got = addressed(got.word("pool", &spec.name), candidate.lowest());
            }
            names.push(spec.name.clone());
        }
        got.facts.push(("pools", Fact::Words(names)));
        got
    }
}

/// The syncs that a map has use for.
fn syncs(direction: Direction) -> &'static [Moment] {
    match (direction.to_device(), direction.from_device()) {
        (true, false) => &[Moment::SyncForDevice],
        (false, true) => &[Moment::SyncForCpu],
        _ => &[Moment::SyncForDevice, Moment::SyncForCpu],
    }
}

/// Why memory in a state is seen as it is.
fn of_state(state: State) -> Direct {
    if state == State::SHARED { Direct::AlreadyShared } else { Direct::InReach }
}

fn direct(reason: Direct, addr: Option<DmaAddr>) -> Got {
    addressed(Got::new("direct").because(reason.slug()), addr)
}

fn addressed(got: Got, addr: Option<DmaAddr>) -> Got {
    match addr {
        Some(addr) => got.number("address", addr.raw()),
        None => got,
    }
}
