//! Devices that come and go, what they answer, and questions to `plan` alone.
// UNSAFETY: revoking a device says that it does no DMA any more.
#![expect(unsafe_code)]

use coco_dma::addr::PhysRange;
use coco_dma::attrs::Attrs;
use coco_dma::device::{BindError, Device};
use coco_dma::plan::{self, AllocKind, AllocRequest, Place, Protection, ViewRequest};
use coco_dma::reason::Refuse;
use coco_dma::state::{Context, Direction, Memory};

use super::build::endpoint;
use super::question::{self, PAGE};
use super::stream::wide;
use super::world::{Platform, World};
use super::{Got, Rules};
use crate::case::{CACHES, MemoryState, Op, Protected, Target, Truth, known};

/// The slug of a bind that was refused.
fn bind_slug(error: BindError) -> &'static str {
    match error {
        BindError::Alignment(_) => "alignment",
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
            Op::Decide(question) => question::ask(self.case, question),
            _ => Err("no question".to_owned()),
        }
    }

    fn protection(&self, of: &Protected, index: usize, attrs: Attrs) -> Result<Got, String> {
        let spec = self.case.devices.get(index).ok_or("no such device")?;
        let regime = &self.case.machine.regime;
        let (coherent, trust) = (spec.coherent, spec.trust);
        let mut rules = Rules::default();
        let target = match of {
            Protected::State(state) => {
                let answer = plan::protection(regime, *state, coherent, attrs, &mut rules);
                return Ok(mapped(answer).ruled(rules));
            }
            Protected::Target(target) => target,
        };
        let run = self.run_of(target);
        let (place, len, memory) = match (target, run) {
            (_, Some(run)) => (Place::At(run.base()), run.len(), self.known(target, run)),
            (Target::Memory(memory), None) => {
                let memory = self.case.memories.get(*memory).ok_or("no such memory")?;
                (Place::Unlocated, memory.size, Memory::Untracked)
            }
            _ => return Err("it lies in no single run of memory".to_owned()),
        };
        let request = ViewRequest { regime, place, len, memory, trust, coherent, attrs };
        let answer = plan::view(&request, &mut rules).map(|view| view.protection);
        Ok(mapped(answer).ruled(rules))
    }

    /// What is known of a run: that it is registers, or what the ledger has of it. Pools and
    /// allocations that are not in it are what they really are.
    fn known(&self, target: &Target, run: PhysRange) -> Memory {
        if let Target::Memory(index) = target
            && let Some(spec) = self.case.memories.get(*index)
            && matches!(spec.state, MemoryState::Mmio | MemoryState::Peer)
        {
            return known(&self.case.machine.regime, spec.state);
        }
        let known = self.ground.dma.ledger().peek(run).memory();
        match (known, target, self.truth_of(run)) {
            (Memory::Untracked, Target::Memory(_), _) => known,
            (Memory::Untracked, _, Truth::In(state)) => Memory::Known(state),
            (Memory::Untracked, _, Truth::Mixed) => Memory::Mixed,
            _ => known,
        }
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
