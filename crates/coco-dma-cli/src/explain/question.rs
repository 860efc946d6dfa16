//! One question for `plan`, of any operation, and the story of its answer.

use coco_dma::addr::DmaAddr;
use coco_dma::addr::PhysAddr;
use coco_dma::addr::PhysRange;
use coco_dma::plan;
use coco_dma::plan::AllocKind;
use coco_dma::plan::AllocPlan;
use coco_dma::plan::AllocRequest;
use coco_dma::plan::Candidates;
use coco_dma::plan::MapFace;
use coco_dma::plan::MapRequest;
use coco_dma::plan::MmapRequest;
use coco_dma::plan::Moment;
use coco_dma::plan::OwnPages;
use coco_dma::plan::Place;
use coco_dma::plan::Plan;
use coco_dma::plan::Step;
use coco_dma::reason::Direct;
use coco_dma::reason::Refuse;
use coco_dma::state::Context;
use coco_dma::state::Memory;
use coco_dma::state::State;

use super::Answer;
use super::PAGE;
use super::StepText;
use super::pools::NamedPool;
use super::words::OPERATIONS;
use super::words::Operation;
use crate::number::Address;

/// What is asked.
pub(super) struct Question<'q, 'a> {
    pub(super) operation: Operation,
    pub(super) context: Context,
    pub(super) kind: AllocKind,
    /// The page and the alignment of an allocation, in bytes.
    pub(super) page: u64,
    pub(super) align: u64,
    /// Whether there is a source of pages.
    pub(super) pages: bool,
    /// Whether the device lives when a map is synced or ends.
    pub(super) alive: bool,
    /// What is mapped of an allocation: where it begins, and how long it is.
    pub(super) part: (u64, u64),
    pub(super) request: MapRequest<'q>,
    pub(super) pools: &'a [NamedPool],
}

/// The outcome, before it is words.
struct Outcome<'a> {
    word: &'static str,
    reason: &'static str,
    addr: Option<DmaAddr>,
    pool: Option<&'a str>,
}

impl<'a> Question<'_, 'a> {
    /// Asks, and keeps every step.
    pub(super) fn answer(&self, assumed: Vec<String>) -> Answer<'a> {
        let mut steps = Vec::new();
        let mut trace = |step: Step| {
            steps.push(StepText { rule: step.rule(), text: step.to_string() });
        };
        let answered = match self.operation {
            Operation::Map => self.map(&mut trace),
            Operation::Unmap => self.carry(&[Moment::Unmap], &mut trace),
            Operation::Sync => self.carry(self.syncs(), &mut trace),
            Operation::Alloc => self.alloc(&mut trace).map(|(outcome, _)| outcome),
            Operation::Free => self.free(&mut trace),
            Operation::Mmap => self.mmap(&mut trace),
            Operation::Attach => plan::attach(&self.request, &mut trace)
                .map(|done| Outcome::direct("direct", done.reason, done.addr)),
        };
        let Outcome { word, reason, addr, pool } = answered.unwrap_or_else(|refused| {
            // Every refusal says the way out, wherever it was decided.
            let told = Step::Refuse(refused);
            let (rule, text) = (told.rule(), told.to_string());
            if steps.last().is_none_or(|last| last.text != text) {
                steps.push(StepText { rule, text });
            }
            Outcome { word: "refuse", reason: refused.slug(), addr: None, pool: None }
        });
        if let Some(pool) = pool {
            let text = match addr {
                Some(addr) => format!("from {pool}; in an empty pool the device is given {addr}"),
                None => format!("from {pool}; the domain gives the address"),
            };
            // What happens to the bytes later on comes after their place.
            let at = steps.iter().position(|step| matches!(step.rule, "copy" | "ownership"));
            steps.insert(at.unwrap_or(steps.len()), StepText { rule: "slot", text });
        }
        let named = OPERATIONS.iter().find(|(_, operation)| *operation == self.operation);
        Answer {
            operation: named.map_or("map", |(name, _)| name),
            outcome: word,
            dma_addr: addr.map(|addr| Address(addr.raw())),
            pool,
            reason,
            steps,
            assumed,
        }
    }

    fn map(&self, trace: &mut impl FnMut(Step)) -> Result<Outcome<'a>, Refuse> {
        match plan::map(&self.request, trace) {
            Plan::Refuse(reason) => Err(reason),
            Plan::Direct { reason, addr, .. } => Ok(Outcome::direct("direct", reason, addr)),
            Plan::Bounce { reason, pools, .. } => Ok(self.pooled("bounce", reason.slug(), pools)),
        }
    }

    /// What happens to the bytes of the map later on.
    fn carry(
        &self,
        moments: &[Moment],
        trace: &mut impl FnMut(Step),
    ) -> Result<Outcome<'a>, Refuse> {
        let outcome = self.map(trace)?;
        for moment in moments {
            let info = MapFace {
                direction: self.request.direction,
                attrs: self.request.attrs,
                bounced: outcome.pool.is_some(),
                coherent: self.request.device.coherent,
                alive: self.alive,
            };
            let _ = plan::transfer(&info, *moment, trace);
        }
        Ok(Outcome { word: "done", ..outcome })
    }

    fn syncs(&self) -> &'static [Moment] {
        match (self.request.direction.to_device(), self.request.direction.from_device()) {
            (true, false) => &[Moment::SyncForDevice],
            (false, true) => &[Moment::SyncForCpu],
            _ => &[Moment::SyncForDevice, Moment::SyncForCpu],
        }
    }

    /// An allocation of pages, the first that suit from `--phys` on, or from a pool.
    fn alloc(&self, trace: &mut impl FnMut(Step)) -> Result<(Outcome<'a>, bool), Refuse> {
        let request = &self.request;
        let Place::At(base) = request.place else { return Err(Refuse::InvalidRange) };
        let asked = AllocRequest {
            kind: self.kind,
            regime: request.regime,
            device: request.device,
            len: request.len,
            page: self.page,
            align: self.align,
            attrs: request.attrs,
            context: self.context,
            pages: self.pages,
            pools: request.pools,
        };
        let AllocPlan { extent, reservoir, pages, pools, .. } = plan::alloc(&asked, trace)?;
        let _ = PhysRange::new(base, extent.len).ok_or(Refuse::InvalidRange)?;
        let restricted = request.pools.iter().any(|pool| pool.restricted);
        let reason = if restricted { "restricted-pool" } else { Direct::InReach.slug() };
        if let Some(reservoir) = reservoir {
            return Ok((self.pooled("allocate", reason, reservoir.pools), false));
        }
        if let Some(pages) = pages
            && let Some(run) = self.first_run(base, pages)
            && let Some(addr) = self.form(run, pages.state, trace)
        {
            return Ok((Outcome::direct("allocate", Direct::InReach, addr), pages.convert));
        }
        Ok((self.pooled("allocate", reason, pools?), false))
    }

    /// The first pages from `base` on that a source could be asked for; where there are none, those at
    /// `base`, for the story of why they do not do.
    fn first_run(&self, base: PhysAddr, pages: OwnPages) -> Option<PhysRange> {
        let (regime, device) = (self.request.regime, self.request.device);
        let mut queries = pages.queries(regime, device, self.context);
        let found = queries.find_map(|query| {
            let asked = query.constraints;
            let at = base.max(asked.first).raw().checked_next_multiple_of(asked.align)?;
            let run = PhysRange::new(PhysAddr::new(at), asked.len)?;
            Some(query.place(regime, device, run)?.0)
        });
        let at = base.raw().checked_next_multiple_of(pages.align)?;
        found.or_else(|| PhysRange::new(PhysAddr::new(at), pages.len))
    }

    /// The address of pages in a state (none where a domain gives it), if the device reaches all
    /// of them.
    fn form(
        &self,
        range: PhysRange,
        state: State,
        trace: &mut impl FnMut(Step),
    ) -> Option<Option<DmaAddr>> {
        let (device, regime) = (self.request.device, self.request.regime);
        if device.attachment.is_translated() {
            trace(Step::Translated(state));
            return Some(None);
        }
        let form = device
            .bus
            .to_bus(range)
            .and_then(|bus| Some((bus, regime.dma_form(device.trust, state, bus)?)));
        let Some((bus, addr)) = form else {
            trace(Step::Unmapped(range));
            return None;
        };
        let mark = regime.dma_mark(device.trust, state).unwrap_or(0);
        trace(Step::Form { bus, mark, addr });
        let (last, limit) = (addr.checked_add(range.len() - 1), device.limit());
        trace(Step::Limit { last, limit, by_bus: device.bus_limit < device.limits.mask });
        last.filter(|last| last.raw() <= limit.raw()).map(|_| Some(addr))
    }

    fn free(&self, trace: &mut impl FnMut(Step)) -> Result<Outcome<'a>, Refuse> {
        // What the record says was decided when the memory was allocated, from context that may
        // block.
        let made = Question { context: Context::Blocking, request: self.request, ..*self };
        let (outcome, converted) = made.alloc(trace)?;
        plan::free(converted, self.context, trace)?;
        Ok(Outcome { word: "done", ..outcome })
    }

    fn mmap(&self, trace: &mut impl FnMut(Step)) -> Result<Outcome<'a>, Refuse> {
        let request = &self.request;
        let state = match request.memory {
            Memory::Known(state) => state,
            Memory::Mixed => return Err(Refuse::MixedRun),
            _ => request.regime.states().first().copied().ok_or(Refuse::InvalidRange)?,
        };
        let (offset, part) = self.part;
        let asked = MmapRequest {
            regime: request.regime,
            kind: self.kind,
            state,
            coherent: request.device.coherent,
            attrs: request.attrs,
            // Whole pages, as they are allocated.
            len: request.len.checked_next_multiple_of(PAGE).unwrap_or(0),
            offset,
            part,
        };
        plan::mmap(&asked, trace)?;
        let reason = if state == State::SHARED { Direct::AlreadyShared } else { Direct::InReach };
        Ok(Outcome::direct("done", reason, None))
    }

    fn pooled(
        &self,
        word: &'static str,
        reason: &'static str,
        mut pools: Candidates<'_>,
    ) -> Outcome<'a> {
        let first = pools.next();
        let addr = first.and_then(|pool| pool.base?.checked_add(pool.places.lowest()));
        let pool = first.and_then(|pool| self.pools.get(pool.index));
        Outcome { word, reason, addr, pool: pool.map(|pool| pool.name.as_str()) }
    }
}

impl Outcome<'_> {
    fn direct(word: &'static str, reason: Direct, addr: Option<DmaAddr>) -> Self {
        Self { word, reason: reason.slug(), addr, pool: None }
    }
}
