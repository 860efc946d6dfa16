//! Devices that come and go, what they answer, and questions to `plan` alone.
// UNSAFETY: revoking a device says that it does no DMA any more.
#![expect(unsafe_code)]

use coco_dma::addr::{AddressLimit, BusRanges, PhysAddr};
use coco_dma::attrs::Attrs;
use coco_dma::device::{BindError, Device};
use coco_dma::plan::{
    self, AllocKind, AllocRequest, Candidates, DeviceInfo, MapRequest, Place, Plan, PoolInfo,
    Protection,
};
use coco_dma::reason::{Direct, Refuse};
use coco_dma::state::{Context, Direction, Memory};

use super::build::endpoint;
use super::stream::wide;
use super::world::{Platform, World};
use super::{Got, Rules};
use crate::case::{CACHES, Fact, Op, Operation, Protected, Truth};

/// The page of allocations, in bytes, which is the IOMMU's, too.
const PAGE: u64 = 4096;

/// The slug of a bind that was refused.
fn bind_slug(error: BindError) -> &'static str {
    match error {
        BindError::NoAcceptedDevices => "no-accepted-devices",
        BindError::AcceptedWithSharedPool => "accepted-with-shared-pool",
        BindError::RestrictedLabel(_) => "restricted-label",
        BindError::InUse { .. } => "in-use",
        BindError::TooManyDevices => "too-many-devices",
        BindError::PoolConverts(_) => "pool-converts",
        BindError::TooManyPools => "too-many-pools",
        _ => "unknown",
    }
}

impl World<'_> {
    pub(super) fn devices(&mut self, op: &Op) -> Result<Got, String> {
        let done = Got::new("done");
        match op {
            Op::Bind(index) => match self.bind(*index) {
                Ok(()) => Ok(done),
                Err(error) => Ok(Got::refused(bind_slug(error))),
            },
            Op::Rebind { device, to } => {
                let case = self.case;
                let spec = case.devices.get(*to).ok_or("no such device")?;
                let pools = self.ground.own.get(*to).map(Vec::as_slice).unwrap_or_default();
                let place = self.devices.get_mut(*device).ok_or("no such device")?;
                let old = place.take().ok_or("the device is not bound")?;
                match old
                    .rebind(endpoint(spec, pools, Some(self.ground.domain), self.path), spec.limits)
                {
                    Ok(new) => *place = Some(new),
                    Err((old, error)) => {
                        *place = Some(old);
                        return Ok(Got::refused(bind_slug(error)));
                    }
                }
                if let Some(described) = self.described.get_mut(*device) {
                    *described = *to;
                }
                Ok(done)
            }
            Op::Revoke(index) => {
                // SAFETY: a simulated device acts when told, and is not told meanwhile.
                let slots = unsafe { self.device(*index)?.revoke() };
                Ok(done.number("slots", wide(slots)))
            }
            Op::LoseTrust(index) => match self.device(*index)?.lose_trust() {
                Ok(()) => Ok(done),
                Err(_) => Ok(Got::new("still-mapped")),
            },
            Op::Ask(index) => {
                let device = self.device(*index)?;
                Ok(done
                    .number("max-mapping", device.max_mapping())
                    .number("opt-mapping", device.opt_mapping())
                    .number("required-mask", device.required_mask().raw())
                    .flag("addressing-limited", device.addressing_limited())
                    .flag("cannot-reach-memory", device.cannot_reach_memory())
                    .flag("needs-sync", device.needs_sync()))
            }
            _ => Err("no step of a device".to_owned()),
        }
    }

    /// The rules of an allocation.
    pub(super) fn alloc_rules(
        &self,
        device: &Device<'_, Platform>,
        (len, align): (u64, u64),
        (kind, context, attrs): (AllocKind, Context, Attrs),
    ) -> Rules {
        let mut rules = Rules::default();
        let request = device.request(None, 1, Direction::Both, Attrs::NONE);
        let asked = AllocRequest {
            kind,
            regime: request.regime,
            device: request.device,
            len,
            page: PAGE,
            align,
            attrs,
            context,
            pages: self.case.machine.pages,
            pools: request.pools,
        };
        let _ = plan::alloc(&asked, &mut rules);
        rules
    }

    pub(super) fn decide(&mut self, op: &Op) -> Result<Got, String> {
        match op {
            Op::Protection { of, device, attrs } => self.protection(of, *device, *attrs),
            Op::Decide { device, operation, at, size, memory } => {
                self.ask_plan(*device, *operation, *at, *size, *memory)
            }
            _ => Err("no question".to_owned()),
        }
    }

    fn protection(&self, of: &Protected, device: usize, attrs: Attrs) -> Result<Got, String> {
        let spec = self.case.devices.get(device).ok_or("no such device")?;
        let state = match of {
            Protected::State(state) => *state,
            Protected::Target(target) => {
                let run = self.run_of(target).ok_or("it lies in no single run of memory")?;
                match self.truth_of(run) {
                    Truth::In(state) => state,
                    _ => return Ok(Got::refused(Refuse::MixedRun.slug())),
                }
            }
        };
        let mut rules = Rules::default();
        let regime = &self.case.machine.regime;
        let answer = plan::protection(regime, state, spec.coherent, attrs, &mut rules);
        Ok(mapped(answer).ruled(rules))
    }

    fn ask_plan(
        &self,
        index: usize,
        operation: Operation,
        at: Option<u64>,
        len: u64,
        memory: Memory,
    ) -> Result<Got, String> {
        let spec = self.case.devices.get(index).ok_or("no such device")?;
        let device = DeviceInfo {
            trust: spec.trust,
            limits: spec.limits,
            bus_limit: spec.bus_limit.map_or(AddressLimit::NONE, AddressLimit::last),
            bus: BusRanges::new(&spec.bus),
            attachment: spec.attachment,
            coherent: spec.coherent,
            external_facing: spec.external_facing,
            force_bounce: spec.force_bounce,
            node: spec.node,
        };
        let machine = self.case.pools.iter().enumerate().filter(|(_, pool)| !pool.of_devices);
        let order: Vec<usize> =
            spec.pools.iter().copied().chain(machine.map(|(index, _)| index)).collect();
        let pools: Vec<PoolInfo> = order
            .iter()
            .filter_map(|index| self.case.pools.get(*index))
            .map(crate::case::PoolSpec::info)
            .collect();
        let (direction, attrs, align) = match operation {
            Operation::Map { direction, attrs, align } => (direction, attrs, align),
            Operation::Attach { direction, attrs } => (direction, attrs, 1),
            _ => (Direction::Both, Attrs::NONE, 1),
        };
        let request = MapRequest {
            regime: &self.case.machine.regime,
            device: &device,
            place: at.map_or(Place::Unlocated, |at| Place::At(PhysAddr::new(at))),
            len,
            memory,
            direction,
            attrs,
            align,
            pools: &pools,
        };
        let mut rules = Rules::default();
        let got = match operation {
            Operation::Map { .. } => match plan::map(&request, &mut rules) {
                Plan::Refuse(reason) => Got::refused(reason.slug()),
                Plan::Direct { reason, addr, cache_work, .. } => {
                    direct(reason, addr.map(|addr| addr.raw())).flag("cache-work", cache_work)
                }
                Plan::Bounce { reason, pools, cache_work } => {
                    let got = Got::new("bounce").because(reason.slug());
                    let got = got.flag("cache-work", cache_work);
                    self.pooled(got, pools, &order)
                }
            },
            Operation::Attach { .. } => match plan::attach(&request, &mut rules) {
                Ok(done) => direct(done.reason, done.addr.map(|addr| addr.raw()))
                    .flag("cache-work", done.cache_work),
                Err(reason) => Got::refused(reason.slug()),
            },
            Operation::Alloc { kind, context, attrs, align, pages } => {
                let asked = AllocRequest {
                    kind,
                    regime: request.regime,
                    device: &device,
                    len,
                    page: PAGE,
                    align,
                    attrs,
                    context,
                    pages,
                    pools: &pools,
                };
                match plan::alloc(&asked, &mut rules) {
                    Err(reason) => Got::refused(reason.slug()),
                    Ok(plan) => {
                        let pages = plan.reservoir.is_none() && plan.pages.is_some();
                        let from = if pages { "pages" } else { "pool" };
                        let got = Got::new("allocate").word("from", from);
                        let got = got.number(
                            "length",
                            plan.pages.map_or(plan.extent.len, |pages| pages.len),
                        );
                        let got = got.flag("needs-sync", plan.needs_sync);
                        let got = got.flag("scattered", plan.scattered);
                        match (plan.reservoir, plan.pages, plan.pools) {
                            (Some(coco_dma::plan::Reservoir { pools, .. }), ..)
                            | (None, None, Ok(pools)) => self.pooled(got, pools, &order),
                            _ => got,
                        }
                    }
                }
            }
            Operation::Free { context, converted } => {
                match plan::free(converted, context, &mut rules) {
                    Ok(()) => Got::new("done"),
                    Err(reason) => Got::refused(reason.slug()),
                }
            }
        };
        Ok(got.ruled(rules))
    }

    /// The pools of an answer: the first, the address that it would give empty, and all names.
    fn pooled(&self, mut got: Got, pools: Candidates<'_>, order: &[usize]) -> Got {
        let mut names = Vec::new();
        for candidate in pools {
            let spec = order.get(candidate.index).and_then(|index| self.case.pools.get(*index));
            let Some(spec) = spec else { continue };
            if names.is_empty() {
                got = got.word("pool", &spec.name);
                let addr =
                    candidate.base.and_then(|base| base.checked_add(candidate.places.lowest()));
                if let Some(addr) = addr {
                    got = got.number("address", addr.raw());
                }
            }
            names.push(spec.name.clone());
        }
        got.facts.push(("pools", Fact::Words(names)));
        got
    }
}

fn direct(reason: Direct, addr: Option<u64>) -> Got {
    let got = Got::new("direct").because(reason.slug());
    match addr {
        Some(addr) => got.number("address", addr),
        None => got,
    }
}

/// How the CPU maps memory.
pub(super) fn mapped(answer: Result<Protection, Refuse>) -> Got {
    let protection = match answer {
        Err(reason) => return Got::refused(reason.slug()),
        Ok(protection) => protection,
    };
    let word = CACHES.iter().find(|(_, cache)| *cache == protection.cache);
    let got = Got::new("done").number("mark", protection.mark);
    got.word("cache", word.map_or("", |(word, _)| word))
}
