//! `plan::map` at every point of its finite core, against invariants that are written down here
//! and nowhere else: this file knows the form table by heart and asks no codec.
//!
//! In a release build all points are visited (`cargo xtask test` does that); a debug build visits
//! every 97th.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test stops where it fails")]

use coco_dma::addr::AddressLimit;
use coco_dma::addr::BusRanges;
use coco_dma::addr::PhysAddr;
use coco_dma::addr::PhysRange;
use coco_dma::attrs::Attrs;
use coco_dma::plan;
use coco_dma::plan::DeviceFace;
use coco_dma::plan::Limits;
use coco_dma::plan::MapRequest;
use coco_dma::plan::Place;
use coco_dma::plan::Plan;
use coco_dma::plan::PoolFace;
use coco_dma::reason::Bounce;
use coco_dma::reason::Direct;
use coco_dma::reason::Refuse;
use coco_dma::regime::Parameters;
use coco_dma::regime::PlatformName;
use coco_dma::state::Attachment;
use coco_dma::state::Direction;
use coco_dma::state::Memory;
use coco_dma::state::PoolLabel;
use coco_dma::state::PoolUse;
use coco_dma::state::State;
use coco_dma::state::Trust;

const MEMORIES: [Memory; 10] = [
    Memory::Known(State::PRIVATE),
    Memory::Known(State::SHARED),
    Memory::Known(State::ENCRYPTED),
    Memory::Known(State::PLAIN),
    Memory::Known(State::Ordinary),
    Memory::Untracked,
    Memory::Mixed,
    Memory::Mmio,
    Memory::Converting,
    Memory::Quarantined,
];

const ATTRS: [Attrs; 8] = [
    Attrs::NONE,
    Attrs::CC_SHARED,
    Attrs::MMIO,
    Attrs::MMIO.with(Attrs::CC_SHARED),
    Attrs::REQUIRE_COHERENT,
    Attrs::CC_SHARED.with(Attrs::REQUIRE_COHERENT),
    Attrs::SKIP_CPU_SYNC,
    Attrs::WRITE_COMBINE,
];

/// Where buffers lie: in the low pool, below and above 4 GiB, at the top of small spaces.
const PLACES: [u64; 4] = [0x1000_0800, 0x4000_0000, 0x1_4000_0000, 0x7f_ffff_f000];
const LEN: u64 = 4096;
const MASKS: [u32; 4] = [24, 32, 40, 64];
const NEAR: u64 = 0x1000_0000;
const FAR: u64 = 0x2_0000_0000;
const POOL: u64 = 0x10_0000;

/// Pools: none, each alone, each pair; near and far, restricted and not.
fn pool_sets() -> Vec<Vec<PoolFace>> {
    let mut single = Vec::new();
    for label in PoolLabel::ALL {
        for base in [NEAR, FAR] {
            for restricted in [false, true] {
                let range = PhysRange::new(PhysAddr::new(base), POOL).unwrap();
                single.push(PoolFace { label, range, restricted, purpose: PoolUse::All });
            }
        }
    }
    let mut sets = vec![Vec::new()];
    sets.extend(single.iter().map(|one| vec![*one]));
    for first in &single {
        sets.extend(single.iter().map(|second| vec![*first, *second]));
    }
    sets
}

/// What a device is given for bus address `p` by the specifications: `None` where nothing is.
fn form(platform: PlatformName, trust: Trust, state: State, p: u64) -> Option<u64> {
    use PlatformName::{Cca, Hyperv, Open, Pef, Pkvm, S390, Sev, Sme, Snp, SnpVtom, Tdx};
    match (platform, trust, state) {
        (Open, _, State::Ordinary) => Some(p),
        (Sme, _, State::Host(cipher)) => Some(match State::Host(cipher) {
            State::ENCRYPTED => p | 1 << 47,
            _ => p,
        }),
        (Sev | S390 | Pef, Trust::Accepted, _) => None,
        (_, Trust::Untrusted, State::PRIVATE) => None,
        (Cca, Trust::Untrusted, State::SHARED) => Some(p | 1 << 47),
        (
            Sev | Snp | SnpVtom | Tdx | Pkvm | Hyperv | S390 | Pef,
            Trust::Untrusted,
            State::SHARED,
        ) => Some(p),
        (Snp | SnpVtom | Tdx | Cca | Pkvm | Hyperv, Trust::Accepted, State::PRIVATE) => Some(p),
        (Snp | Hyperv, Trust::Accepted, State::SHARED) => None,
        (SnpVtom, Trust::Accepted, State::SHARED) => Some(p | 1 << 40),
        (Tdx, Trust::Accepted, State::SHARED) => Some(p | 1 << 51),
        (Cca, Trust::Accepted, State::SHARED) => Some(p | 1 << 47),
        (Pkvm, Trust::Accepted, State::SHARED) => Some(p),
        _ => None,
    }
}

fn is_guest(platform: PlatformName) -> bool {
    !matches!(platform, PlatformName::Open | PlatformName::Sme)
}

fn accepts(platform: PlatformName) -> bool {
    form(platform, Trust::Accepted, State::PRIVATE, 0).is_some()
}

/// The state of a pool's memory.
fn pool_state(platform: PlatformName, label: PoolLabel) -> Option<State> {
    match (platform, label) {
        (PlatformName::Open, PoolLabel::Ordinary) => Some(State::Ordinary),
        (PlatformName::Sme, PoolLabel::Ordinary) => Some(State::ENCRYPTED),
        (PlatformName::Sme, PoolLabel::HostPlain) => Some(State::PLAIN),
        (PlatformName::Open | PlatformName::Sme, _) => None,
        (_, PoolLabel::GuestShared) => Some(State::SHARED),
        (_, PoolLabel::GuestPrivate) => Some(State::PRIVATE),
        _ => None,
    }
}

/// Checks one answer. The text says which invariant it breaks.
fn judge(platform: PlatformName, request: &MapRequest<'_>, plan: &Plan<'_>) -> Result<(), String> {
    let device = request.device;
    let Place::At(base) = request.place else { return Err("placed".to_owned()) };
    let (p, last_off) = (base.raw(), request.len - 1);
    let limit = device.limits.mask.raw().min(device.bus_limit.raw());
    let translated = device.attachment == Attachment::Translated;
    let attr = |attr| request.attrs.contains(attr);
    let restricted = request.pools.iter().any(|pool| pool.restricted);
    let run = PhysRange::new(base, request.len).unwrap();
    let around = request.pools.iter().find(|pool| pool.restricted && pool.range.contains(run));
    let inside = around.is_some();
    // The label of the restricted pool around it outranks what else is known of memory.
    let by_label = around.map(|pool| pool_state(platform, pool.label));
    let ensure = |holds: bool, what: &str| if holds { Ok(()) } else { Err(what.to_owned()) };
    match plan {
        Plan::Direct { reason, addr, state, cache_work } => {
            ensure(
                *state != State::PRIVATE || device.trust == Trust::Accepted,
                "an untrusted device is given private memory",
            )?;
            ensure(!device.force_bounce, "direct although forced")?;
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
                *cache_work
                    == (!device.coherent && !attr(Attrs::MMIO) && !attr(Attrs::SKIP_CPU_SYNC)),
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
            ensure(!attr(Attrs::MMIO), "registers are bounced")?;
            ensure(!attr(Attrs::REQUIRE_COHERENT), "bounced although coherence is required")?;
            let mut count = 0;
            for candidate in *pools {
                count += 1;
                let pool = request.pools[candidate.index];
                ensure(pool.restricted || !restricted, "past the restricted pool")?;
                let state = pool_state(platform, pool.label).ok_or("a label of another machine")?;
                ensure(candidate.state == state, "the slot has another state")?;
                let fits = match device.trust {
                    _ if !is_guest(platform) => true,
                    Trust::Untrusted => pool.label == PoolLabel::GuestShared,
                    Trust::Accepted => pool.label == PoolLabel::GuestPrivate,
                };
                ensure(fits, "a pool that this trust must not use")?;
                if platform == PlatformName::Sme && pool.label == PoolLabel::HostPlain {
                    let short = !translated && limit < 1 << 47;
                    let forced = matches!(reason, Bounce::Forced | Bounce::RestrictedPool);
                    ensure(short || forced, "the cipher was given up for nothing")?;
                }
                match candidate.base {
                    None => ensure(translated, "no address")?,
                    Some(addr) => {
                        let wanted = form(platform, device.trust, state, pool.range.base().raw());
                        ensure(!translated && Some(addr.raw()) == wanted, "the slot's form")?;
                        ensure(addr.raw() + (POOL - 1) <= limit, "a pool out of reach")?;
                    }
                }
            }
            ensure(count > 0, "a bounce without a pool")?;
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
                Refuse::BadAttribute => attr(Attrs::WRITE_COMBINE),
                Refuse::InvalidRange => {
                    let limit = match platform {
                        PlatformName::SnpVtom | PlatformName::Hyperv => 1 << 40,
                        PlatformName::Sme | PlatformName::Cca => 1 << 47,
                        PlatformName::Tdx | PlatformName::Sev | PlatformName::Snp => 1 << 51,
                        _ => u64::MAX,
                    };
                    let alien = match request.memory {
                        Memory::Known(state) => match platform {
                            PlatformName::Open => false,
                            PlatformName::Sme => !matches!(state, State::Host(_)),
                            _ => !matches!(state, State::Guest(_)),
                        },
                        _ => false,
                    };
                    p + last_off >= limit || alien
                }
                Refuse::GuestOnly => platform == PlatformName::Sme && attr(Attrs::CC_SHARED),
                Refuse::MixedRun => request.memory == Memory::Mixed,
                Refuse::Busy => request.memory == Memory::Converting,
                Refuse::Quarantined => request.memory == Memory::Quarantined,
                Refuse::AttributeContradictsLedger => {
                    let mmio = attr(Attrs::MMIO);
                    (mmio && matches!(request.memory, Memory::Known(_)))
                        || (!mmio && request.memory == Memory::Mmio)
                        || attr(Attrs::CC_SHARED)
                }
                Refuse::PrivateMmio => {
                    attr(Attrs::MMIO) && !attr(Attrs::CC_SHARED) && device.trust == Trust::Untrusted
                }
                Refuse::MmioCannotBounce => attr(Attrs::MMIO),
                Refuse::SharedUnreachable => {
                    device.trust == Trust::Accepted
                        && form(platform, device.trust, State::SHARED, p).is_none()
                }
                Refuse::RequireCoherent => attr(Attrs::REQUIRE_COHERENT),
                Refuse::NoPool => request.pools.is_empty(),
                Refuse::NoPrivatePool => {
                    device.trust == Trust::Accepted
                        && request.pools.iter().any(|pool| pool.label == PoolLabel::GuestShared)
                }
                Refuse::PoolLabelMismatch => !request.pools.is_empty(),
                Refuse::NoReachablePool => !translated && !request.pools.is_empty(),
                Refuse::TooLarge => device.limits.boundary.is_some_and(|b| b.bytes() < request.len),
                Refuse::TrustLost => device.trust == Trust::Accepted && !accepts(platform),
                _ => false,
            };
            ensure(true_of_it, "the refusal is not true")
        }
    }
}

#[test]
fn every_point_keeps_every_invariant() {
    let every = if cfg!(debug_assertions) { 97 } else { 1 };
    let sets = pool_sets();
    let (mut points, mut visited) = (0u64, 0u64);
    let [mut direct, mut bounced, mut refused] = [0u64; 3];
    for platform in PlatformName::ALL {
        let regime = platform.regime(&Parameters::default()).unwrap();
        for bits in 0..64u32 {
            let flag = |bit: u32| bits >> bit & 1 == 1;
            let attachment = match bits >> 4 {
                0 => Attachment::None,
                1 => Attachment::Passthrough,
                2 => Attachment::Translated,
                _ => continue,
            };
            for mask in MASKS {
                let device = DeviceFace {
                    trust: if flag(0) { Trust::Accepted } else { Trust::Untrusted },
                    limits: Limits::mask_bits(mask),
                    bus_limit: AddressLimit::NONE,
                    bus: BusRanges::IDENTITY,
                    attachment,
                    coherent: !flag(1),
                    external_facing: flag(2),
                    force_bounce: flag(3),
                };
                for memory in MEMORIES {
                    for attrs in ATTRS {
                        for pools in &sets {
                            for place in PLACES {
                                points += 1;
                                if points % every != 0 {
                                    continue;
                                }
                                visited += 1;
                                let request = MapRequest {
                                    regime: &regime,
                                    device: &device,
                                    place: Place::At(PhysAddr::new(place)),
                                    len: LEN,
                                    memory,
                                    direction: Direction::Both,
                                    attrs,
                                    align: 1,
                                    pools,
                                };
                                let plan = plan::map(&request, &mut ());
                                if let Err(broken) = judge(platform, &request, &plan) {
                                    panic!("{broken}: {platform} {request:#?} {plan:#?}");
                                }
                                match plan {
                                    Plan::Direct { .. } => direct += 1,
                                    Plan::Bounce { .. } => bounced += 1,
                                    Plan::Refuse(_) => refused += 1,
                                }
                            }
                        }
                    }
                }
            }
        }
    }
    println!("{visited} of {points} points: {direct} direct, {bounced} bounced, {refused} refused");
    assert!(direct > 0 && bounced > 0 && refused > 0);
}
