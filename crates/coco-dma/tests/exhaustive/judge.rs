//! The invariants of a map, written down without a look at how it is decided.

use coco_dma::addr::PhysRange;
use coco_dma::attrs::Attrs;
use coco_dma::plan::MapRequest;
use coco_dma::plan::Place;
use coco_dma::plan::Plan;
use coco_dma::reason::Bounce;
use coco_dma::reason::Direct;
use coco_dma::reason::Refuse;
use coco_dma::regime::PlatformName;
use coco_dma::state::Attachment;
use coco_dma::state::Memory;
use coco_dma::state::PoolLabel;
use coco_dma::state::State;
use coco_dma::state::Trust;

use super::pools;
use super::table::accepts;
use super::table::form;
use super::table::is_guest;
use super::table::memory_last;
use super::table::pool_state;

/// What Linux 7.3 takes for a map.
fn taken(attrs: Attrs) -> bool {
    let bits = [1, 5, 8, 9, 10, 11, 12, 13].iter().fold(0u32, |all, bit| all | 1 << bit);
    attrs.bits() & !bits == 0
}

/// Checks one answer. The text says which invariant it breaks.
pub(crate) fn judge(
    platform: PlatformName,
    request: &MapRequest<'_>,
    plan: &Plan<'_>,
) -> Result<(), String> {
    let device = request.device;
    let Place::At(base) = request.place else { return Err("placed".to_owned()) };
    let (p, last_off) = (base.raw(), request.len - 1);
    let limit = device.limits.mask.raw().min(device.bus_limit.raw());
    let translated = device.attachment == Attachment::Translated;
    let attr = |attr| request.attrs.contains(attr);
    let registers = attr(Attrs::MMIO)
        || request.memory == Memory::Mmio
        || (platform == PlatformName::Open && request.memory == Memory::Peer);
    let restricted = request.pools.iter().any(|pool| pool.restricted);
    let run = PhysRange::new(base, request.len).unwrap();
    let around = request.pools.iter().find(|pool| pool.restricted && pool.range.contains(run));
    let inside = around.is_some();
    let forced = device.force_bounce || (restricted && !inside);
    let found = || pools::found(platform, request, forced);
    // The label of the restricted pool around it outranks what else is known of memory.
    let by_label = around.map(|pool| pool_state(platform, pool.label));
    let ensure = |holds: bool, what: &str| if holds { Ok(()) } else { Err(what.to_owned()) };
    ensure(
        taken(request.attrs) || matches!(plan, Plan::Refuse(Refuse::BadAttribute)),
        "an alien attribute is taken",
    )?;
    match plan {
        Plan::Direct { reason, addr, state, cache_work } => {
            ensure(
                *state != State::PRIVATE || device.trust == Trust::Accepted,
                "an untrusted device is given private memory",
            )?;
            ensure(!device.force_bounce, "direct although forced")?;
            ensure(
                !(is_guest(platform) && request.memory == Memory::Peer),
                "a device of a guest is given its peer's memory",
            )?;
            ensure(!restricted || inside, "direct outside of the restricted pool")?;
            ensure(!attr(Attrs::REQUIRE_COHERENT) || device.coherent, "not coherent")?;
            ensure(
                !matches!(request.memory, Memory::Mixed | Memory::Converting | Memory::Quarantined)
                    || platform == PlatformName::Open,
                "direct on memory in no certain state",
            )?;
            ensure(
                (*reason == Direct::AlreadyShared) == (*state == State::SHARED),
                "the reason names another state",
            )?;
            ensure(
                *cache_work == (!device.coherent && !registers && !attr(Attrs::SKIP_CPU_SYNC)),
                "cache work",
            )?;
            match (addr, translated) {
                (None, true) => Ok(()),
                (Some(addr), false) => {
                    let wanted = form(platform, device.trust, *state, p);
                    ensure(Some(addr.raw()) == wanted, "the form is not that of the state")?;
                    ensure(addr.raw() + last_off <= limit, "past the device's limit")
                }
                _ => {
                    Err("an address where a domain gives it, or none where nobody does".to_owned())
                }
            }
        }
        Plan::Bounce { reason, pools, .. } => {
            ensure(!registers, "registers are bounced")?;
            ensure(request.memory != Memory::Peer, "a peer's memory is bounced")?;
            ensure(!attr(Attrs::REQUIRE_COHERENT), "bounced although coherence is required")?;
            let wanted = matches!(reason, Bounce::Forced | Bounce::RestrictedPool);
            ensure(wanted == forced, "wanted for another reason than the device's")?;
            let given: Vec<usize> = pools.map(|candidate| candidate.index).collect();
            ensure(!given.is_empty(), "a bounce without a pool")?;
            ensure(given == found().suit, "other pools, or another order")?;
            for candidate in *pools {
                let pool = request.pools[candidate.index];
                let state = pool_state(platform, pool.label).ok_or("a label of another machine")?;
                ensure(candidate.state == state, "the slot has another state")?;
                ensure(
                    device.trust == Trust::Untrusted || state != State::SHARED,
                    "an accepted device is given a shared slot",
                )?;
                let wanted = form(platform, device.trust, state, pool.range.base().raw());
                let given = candidate.base.map(|base| base.raw());
                ensure(given == wanted.filter(|_| !translated), "the slot's form")?;
                let last = given.map(|base| base + (pool.range.len() - 1));
                ensure(last.is_none_or(|last| last <= limit), "a pool out of reach")?;
            }
            let private = match (by_label, request.memory) {
                (Some(state), _) => state == Some(State::PRIVATE),
                (None, Memory::Known(State::PRIVATE)) => true,
                (None, Memory::Untracked) => !attr(Attrs::CC_SHARED),
                _ => false,
            };
            let true_of_it = match reason {
                Bounce::RestrictedPool => restricted && !inside,
                Bounce::Forced => device.force_bounce,
                Bounce::PrivateMemory => {
                    is_guest(platform) && device.trust == Trust::Untrusted && private
                }
                Bounce::SharedUnreachable => {
                    device.trust == Trust::Accepted
                        && form(platform, device.trust, State::SHARED, p).is_none()
                }
                Bounce::BeyondMask => {
                    device.limits.mask.raw() <= device.bus_limit.raw() && !translated
                }
                Bounce::BeyondBusLimit => device.bus_limit < device.limits.mask && !translated,
                Bounce::Alignment => !device.coherent || device.limits.boundary.is_some(),
                Bounce::ExternalFacing => device.external_facing && translated,
                Bounce::UnmappedBusRange => !device.bus.is_identity(),
                _ => false,
            };
            ensure(true_of_it, "the reason is not true")
        }
        Plan::Refuse(reason) => {
            let true_of_it = match reason {
                Refuse::BadAttribute => !taken(request.attrs),
                Refuse::InvalidRange => {
                    let alien = match request.memory {
                        Memory::Known(state) => match platform {
                            PlatformName::Open => false,
                            PlatformName::Sme => !matches!(state, State::Host(_)),
                            _ => !matches!(state, State::Guest(_)),
                        },
                        _ => false,
                    };
                    p + last_off > memory_last(platform) || alien
                }
                Refuse::GuestOnly => platform == PlatformName::Sme && attr(Attrs::CC_SHARED),
                Refuse::MixedRun => request.memory == Memory::Mixed,
                Refuse::Busy => request.memory == Memory::Converting,
                Refuse::Quarantined => request.memory == Memory::Quarantined,
                Refuse::AttributeContradictsLedger => {
                    let mmio = attr(Attrs::MMIO);
                    (mmio && matches!(request.memory, Memory::Known(_)))
                        || (!mmio && request.memory == Memory::Peer && !is_guest(platform))
                        || attr(Attrs::CC_SHARED)
                }
                Refuse::PrivateMmio => {
                    registers && !attr(Attrs::CC_SHARED) && device.trust == Trust::Untrusted
                }
                Refuse::MmioCannotBounce => registers,
                Refuse::SharedUnreachable => {
                    device.trust == Trust::Accepted
                        && form(platform, device.trust, State::SHARED, p).is_none()
                        // No pool takes registers, which have no other reason then.
                        && (registers || found().suit.is_empty())
                }
                Refuse::RequireCoherent => attr(Attrs::REQUIRE_COHERENT),
                Refuse::NoPool => found().offered.is_empty(),
                Refuse::NoPrivatePool => {
                    let shared =
                        |index: &usize| request.pools[*index].label == PoolLabel::GuestShared;
                    device.trust == Trust::Accepted && found().offered.iter().all(shared)
                }
                Refuse::PoolLabelMismatch => by_label == Some(None) || found().labelled.is_empty(),
                Refuse::NoReachablePool => !translated && found().suit.is_empty(),
                Refuse::TooLarge => device.limits.boundary.is_some_and(|b| b.bytes() < request.len),
                Refuse::PeerToPeer => is_guest(platform) && request.memory == Memory::Peer,
                Refuse::TrustLost => device.trust == Trust::Accepted && !accepts(platform),
                _ => false,
            };
            ensure(true_of_it, "the refusal is not true")
        }
    }
}
