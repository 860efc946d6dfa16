//! The decision about one streaming map. The order of the tests is the order of the reasons in
//! [`crate::reason`]: where several apply, the first is the reason.

use super::pools;
use super::pools::Candidates;
use super::reach::reach;
use super::request::MapRequest;
use super::request::Place;
use super::step::Known;
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
pub(super) struct Source {
    pub(super) range: Option<PhysRange>,
    pub(super) state: State,
    pub(super) mmio: bool,
}

/// The decision itself: `map` and `attach` tell the trace what came of it.
pub(super) fn decide<'a>(
    request: &MapRequest<'a>,
    trace: &mut impl Trace,
) -> Result<Plan<'a>, Refuse> {
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
    let pools = bounce.map(|reason| match pools::too_long(request) {
        // No pool is a way out, whatever pools there are.
        Some(misfit) => {
            trace.step(Step::TooLong(misfit));
            Err(Refuse::TooLarge)
        }
        None => pools::candidates(request, reason, trace),
    });
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
    let alien = attrs.without(Attrs::FOR_MAP);
    if !alien.is_empty() {
        trace.step(Step::NotTaken(alien));
        return Err(Refuse::BadAttribute);
    }
    if !attrs.is_empty() {
        trace.step(Step::Attributes(attrs));
    }
    let len_align = request.device.limits.len_align;
    if !len_align.divides(request.len) {
        trace.step(Step::Length(len_align));
        return Err(Refuse::InvalidRange);
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
    // What is known to be registers is registers, whoever says so. Of a peer's, confidential machines
    // want the caller to say it, an open one as little as its drivers do.
    let registers =
        matches!((regime, request.memory), (_, Memory::Mmio) | (Regime::Open, Memory::Peer));
    let mmio = registers || attrs.contains(Attrs::MMIO);
    let by_attrs = if shared_asserted { State::SHARED } else { State::PRIVATE };
    let restricted = range.and_then(|range| pools::restricted_around(request.pools, range));
    let (state, known) = match (regime, request.memory) {
        (Regime::Open, _) => (State::Ordinary, Known::Machine),
        (_, Memory::Mixed) => return Err(Refuse::MixedRun), // sabotage: mixed-in-place
        (_, Memory::Unaccepted) => return Err(Refuse::Unaccepted),
        (_, Memory::Quarantined) => return Err(Refuse::Quarantined),
        (_, Memory::Converting) => return Err(Refuse::Busy),
        (_, Memory::Peer) if !mmio => return Err(Refuse::AttributeContradictsLedger),
        (_, Memory::Known(_)) if mmio => return Err(Refuse::AttributeContradictsLedger),
        // Whether private or shared: nobody in the guest knows whether the two reach each other.
        (Regime::Guest(_), Memory::Peer) => {
            trace.step(Step::Peer);
            return Err(Refuse::PeerToPeer); // sabotage: peer-in-guest
        }
        (Regime::Host(_), Memory::Mmio | Memory::Peer | Memory::Untracked) if mmio => {
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
    if shared_asserted && state == State::PRIVATE {
        return Err(Refuse::AttributeContradictsLedger);
    }
    trace.step(Step::Memory { state, mmio, known });
    if request.device.trust == Trust::Accepted && !regime.has_accepted_devices() {
        return Err(Refuse::TrustLost);
    }
    // sabotage: untrusted-private-mmio
    if mmio && state == State::PRIVATE && request.device.trust == Trust::Untrusted {
        return Err(Refuse::PrivateMmio);
    }
    Ok(Source { range, state, mmio })
}
