//! The decision about one streaming map. The order of the tests is the order of the reasons in
//! [`crate::reason`]: where several apply, the first is the reason.

use super::pools;
use super::pools::Candidates;
use super::request::IOMMU_PAGE;
use super::request::MapRequest;
use super::request::Place;
use super::step::Known;
use super::step::Misfit;
use super::step::Step;
use super::step::Trace;
use crate::addr::DmaAddr;
use crate::addr::PhysRange;
use crate::attrs::Attrs;
use crate::reason::Bounce;
use crate::reason::Direct;
use crate::reason::Refuse;
use crate::regime::Regime;
use crate::state::Memory;
use crate::state::State;
use crate::state::Trust;

/// What is to be done about one map.
#[derive(Clone, Copy, Debug)]
#[must_use]
pub enum Plan<'a> {
    /// The device touches the memory where it lies.
    Direct {
        /// Why.
        reason: Direct,
        /// The address that the device is given; `None` where an IOMMU domain will give it.
        addr: Option<DmaAddr>,
        /// The state that the memory has to keep while it is mapped.
        state: State,
        /// Whether caches have to be cleaned and invalidated.
        cache_work: bool,
    },
    /// The bytes go through a pool.
    Bounce {
        /// Why.
        reason: Bounce,
        /// The pools that can take it, in the order in which to try them. At least one.
        pools: Candidates<'a>,
        /// Whether caches have to be cleaned and invalidated.
        cache_work: bool,
    },
    /// It is not done.
    Refuse(Refuse),
}

/// Decides about one streaming map, telling `trace` each rule it applies. Never panics, whatever
/// the numbers; takes time linear in the number of pools.
pub fn map<'a>(request: &MapRequest<'a>, trace: &mut impl Trace) -> Plan<'a> {
    let plan = decide(request, trace);
    match plan {
        Ok(Plan::Direct { reason, .. }) => trace.step(Step::Direct(reason)),
        Ok(_) => {}
        Err(reason) => trace.step(Step::Refuse(reason)),
    }
    plan.unwrap_or_else(Plan::Refuse)
}

/// The memory of a request after the first questions.
struct Source {
    range: Option<PhysRange>,
    state: State,
    mmio: bool,
}

fn decide<'a>(request: &MapRequest<'a>, trace: &mut impl Trace) -> Result<Plan<'a>, Refuse> {
    let device = request.device;
    let source = source(request, trace)?;
    let cache_work =
        !device.coherent && !source.mmio && !request.attrs.contains(Attrs::SKIP_CPU_SYNC);

    let (bounce, addr) = match reach(request, &source, trace) {
        Ok(addr) => (None, addr),
        Err(bounce) => (Some(bounce), None),
    };
    if bounce.is_some() && source.mmio {
        return Err(Refuse::MmioCannotBounce);
    }
    if let Some(reason) = bounce {
        trace.step(Step::Bounce(reason));
    }
    let pools = bounce.map(|reason| pools::candidates(request, reason, trace));
    if let (Some(Bounce::SharedUnreachable), Some(Err(why))) = (bounce, &pools) {
        // A pool that suits but is too small is told as such.
        if *why != Refuse::TooLarge {
            return Err(Refuse::SharedUnreachable);
        }
    }
    let needs_coherence = request.attrs.contains(Attrs::REQUIRE_COHERENT);
    if needs_coherence && (bounce.is_some() || !device.coherent) {
        return Err(Refuse::RequireCoherent);
    }
    match (bounce, pools) {
        (Some(reason), Some(pools)) => Ok(Plan::Bounce { reason, pools: pools?, cache_work }),
        _ => Ok(Plan::Direct {
            reason: match source.state {
                State::SHARED => Direct::AlreadyShared,
                _ => Direct::InReach,
            },
            addr,
            state: source.state,
            cache_work,
        }),
    }
}

/// What the memory is, and whether the request makes sense for it.
fn source(request: &MapRequest<'_>, trace: &mut impl Trace) -> Result<Source, Refuse> {
    let regime = request.regime;
    let attrs = request.attrs;
    if !attrs.without(Attrs::FOR_MAP).is_empty() {
        return Err(Refuse::BadAttribute);
    }
    if !attrs.is_empty() {
        trace.step(Step::Attributes(attrs));
    }
    let range = match request.place {
        Place::Unlocated if request.len == 0 => return Err(Refuse::InvalidRange),
        Place::Unlocated => {
            trace.step(Step::Unlocated);
            None
        }
        Place::At(base) => {
            let range = PhysRange::new(base, request.len).ok_or(Refuse::InvalidRange)?;
            if range.last().raw() > regime.memory_limit().raw() {
                return Err(Refuse::InvalidRange);
            }
            trace.step(Step::Range(range));
            Some(range)
        }
    };
    let shared_asserted = attrs.contains(Attrs::CC_SHARED);
    if shared_asserted && matches!(regime, Regime::Host(_)) {
        return Err(Refuse::GuestOnly);
    }
    // Outside of guests nothing but the attribute says what is registers on an open machine.
    let mmio = attrs.contains(Attrs::MMIO);
    let by_attrs = if shared_asserted { State::SHARED } else { State::PRIVATE };
    let restricted = range.and_then(|range| pools::restricted_around(request.pools, range));
    let (state, known) = match (regime, request.memory) {
        (Regime::Open, _) => (State::Ordinary, Known::Machine),
        (_, Memory::Mixed) => return Err(Refuse::MixedRun),
        (_, Memory::Unaccepted) => return Err(Refuse::Unaccepted),
        (_, Memory::Quarantined) => return Err(Refuse::Quarantined),
        (_, Memory::Converting) => return Err(Refuse::Busy),
        (_, Memory::Mmio) if !mmio => return Err(Refuse::AttributeContradictsLedger),
        (_, Memory::Known(_)) if mmio => return Err(Refuse::AttributeContradictsLedger),
        (Regime::Host(_), Memory::Mmio | Memory::Untracked) if mmio => {
            (State::PLAIN, Known::Machine)
        }
        (Regime::Guest(_), Memory::Mmio | Memory::Untracked) if mmio => {
            (by_attrs, Known::Attributes)
        }
        (regime, memory) => match (restricted, regime, memory) {
            (Some(pool), ..) => match pools::state_of(regime, pool.label) {
                Some(state) => (state, Known::Label),
                None => return Err(Refuse::PoolLabelMismatch),
            },
            (None, _, Memory::Known(state)) => (state, Known::Ledger),
            (None, Regime::Host(_), _) => (State::ENCRYPTED, Known::Attributes),
            (None, ..) => (by_attrs, Known::Attributes),
        },
    };
    if !regime.states().contains(&state) {
        // The caller's ledger speaks of another machine.
        return Err(Refuse::InvalidRange);
    }
    if regime.is_guest() && shared_asserted && state == State::PRIVATE {
        return Err(Refuse::AttributeContradictsLedger);
    }
    trace.step(Step::Memory { state, mmio, known });
    if request.device.trust == Trust::Accepted && !regime.has_accepted_devices() {
        return Err(Refuse::TrustLost);
    }
    if mmio && state == State::PRIVATE && request.device.trust == Trust::Untrusted {
        return Err(Refuse::PrivateMmio);
    }
    Ok(Source { range, state, mmio })
}

/// Whether the device can touch the memory where it lies: the address it is given (none where a
/// domain will give it), or why the bytes have to go through a pool.
fn reach(
    request: &MapRequest<'_>,
    source: &Source,
    trace: &mut impl Trace,
) -> Result<Option<DmaAddr>, Bounce> {
    let device = request.device;
    if request.pools.iter().any(|pool| pool.restricted) {
        let inside = source
            .range
            .is_some_and(|range| pools::restricted_around(request.pools, range).is_some());
        trace.step(Step::Restricted { inside });
        if !inside {
            return Err(Bounce::RestrictedPool);
        }
    }
    if device.force_bounce {
        trace.step(Step::Forced);
        return Err(Bounce::Forced);
    }
    let trust = device.trust;
    let translated = device.attachment.is_translated();
    let mark = match request.regime.dma_mark(trust, source.state) {
        // The entry of a domain carries any state, but never makes a private page reachable for
        // a device that the guest did not accept: the host may emulate the IOMMU.
        None if translated && source.state != State::PRIVATE => 0,
        None => {
            trace.step(Step::Reach { trust, state: source.state, reached: false });
            return Err(match source.state {
                State::PRIVATE => Bounce::PrivateMemory,
                _ => Bounce::SharedUnreachable,
            });
        }
        Some(mark) => mark,
    };
    if request.regime.is_guest() {
        trace.step(Step::Reach { trust, state: source.state, reached: true });
    }
    let Some(range) = source.range else { return Err(Bounce::Unlocated) };
    let addr = if translated {
        trace.step(Step::Translated(source.state));
        None
    } else {
        Some(bus_address(request, source.state, range, mark, trace)?)
    };
    if let Some(misfit) = misfit(request, source, range, addr) {
        trace.step(Step::Misaligned(misfit));
        return Err(Bounce::Alignment);
    }
    let page = request.align.max(IOMMU_PAGE);
    if translated && device.external_facing && !source.mmio && !range.is_aligned(page) {
        trace.step(Step::SharesPages);
        return Err(Bounce::ExternalFacing);
    }
    Ok(addr)
}

/// The address of `range` as the device would be given it, if that is within its reach.
fn bus_address(
    request: &MapRequest<'_>,
    state: State,
    range: PhysRange,
    mark: u64,
    trace: &mut impl Trace,
) -> Result<DmaAddr, Bounce> {
    let device = request.device;
    let form = device
        .bus
        .to_bus(range)
        .and_then(|bus| Some((bus, request.regime.dma_form(device.trust, state, bus)?)));
    let Some((bus, addr)) = form else {
        trace.step(Step::Unmapped(range));
        return Err(Bounce::UnmappedBusRange);
    };
    trace.step(Step::Form { bus, mark, addr });
    let last = addr.checked_add(range.len() - 1);
    let limit = device.limit();
    let by_bus = device.bus_limit < device.limits.mask;
    trace.step(Step::Limit { last, limit, by_bus });
    match last {
        Some(last) if last.raw() <= limit.raw() => Ok(addr),
        _ if by_bus => Err(Bounce::BeyondBusLimit),
        _ => Err(Bounce::BeyondMask),
    }
}

/// The limit that the place of the buffer breaks and a pool could keep.
fn misfit(
    request: &MapRequest<'_>,
    source: &Source,
    range: PhysRange,
    addr: Option<DmaAddr>,
) -> Option<Misfit> {
    let device = request.device;
    let limits = &device.limits;
    if let Some(segment) = limits.segment.filter(|segment| range.len() > *segment) {
        return Some(Misfit::Segment(segment));
    }
    if let Some(boundary) = limits.boundary {
        // A domain places the mapping at the start of a window if it must, but for the low bits
        // that it keeps.
        let kept = limits.min_align.raw() | (request.align.max(IOMMU_PAGE) - 1);
        let base = addr.map_or(range.base().raw() & kept, DmaAddr::raw);
        if boundary.crossed_by(base, range.len()) {
            return Some(Misfit::Boundary);
        }
    }
    // The device writes into memory while the cache holds the neighbour's bytes of the same line:
    // whichever is written back last wins. Nobody's syncs change that.
    let line = limits.cache_line.max(1);
    let shared = !device.coherent
        && !source.mmio
        && request.direction.from_device()
        && line.is_power_of_two()
        && !range.is_aligned(line);
    shared.then_some(Misfit::CacheLine(line))
}
