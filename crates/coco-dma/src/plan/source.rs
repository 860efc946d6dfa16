//! What memory is before anybody reaches for it: its place, its state, and whether a request makes
//! sense for it. Maps by devices and views of the CPU ask the same questions.

use super::pools;
use super::request::MapRequest;
use super::request::Place;
use super::request::PoolInfo;
use super::step::Known;
use super::step::Step;
use super::step::Trace;
use crate::addr::PhysRange;
use crate::attrs::Attrs;
use crate::reason::Refuse;
use crate::regime::Regime;
use crate::state::Memory;
use crate::state::State;
use crate::state::Trust;

/// The memory of a request after the first questions.
pub(super) struct Source {
    pub(super) range: Option<PhysRange>,
    pub(super) state: State,
    pub(super) mmio: bool,
}

/// What the memory of a map is, and whether the request makes sense for it.
pub(super) fn source(request: &MapRequest<'_>, trace: &mut impl Trace) -> Result<Source, Refuse> {
    let (regime, attrs) = (request.regime, request.attrs);
    let alien = attrs.without(Attrs::FOR_MAP);
    if !alien.is_empty() {
        trace.step(Step::NotTaken(alien));
        return Err(Refuse::BadAttribute);
    }
    if !attrs.is_empty() {
        trace.step(Step::Attributes(attrs));
    }
    let len_align = request.device.limits.len_align;
    // sabotage: length-alignment
    if !len_align.divides(request.len) {
        trace.step(Step::Length(len_align));
        return Err(Refuse::InvalidRange);
    }
    let range = range(regime, request.place, request.len, trace)?;
    let restricted = range.and_then(|range| pools::restricted_around(request.pools, range));
    let What { state, mmio, known } = what(regime, request.memory, attrs, restricted, trace)?;
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

/// Where it lies, if in one run of addresses that this machine can have.
pub(super) fn range(
    regime: &Regime,
    place: Place,
    len: u64,
    trace: &mut impl Trace,
) -> Result<Option<PhysRange>, Refuse> {
    match place {
        Place::Unlocated if len == 0 => Err(Refuse::InvalidRange),
        Place::Unlocated => {
            trace.step(Step::Unlocated);
            Ok(None)
        }
        Place::At(base) => {
            let range = PhysRange::new(base, len).ok_or(Refuse::InvalidRange)?;
            if range.last().raw() > regime.memory_limit().raw() {
                return Err(Refuse::InvalidRange);
            }
            trace.step(Step::Range(range));
            Ok(Some(range))
        }
    }
}

/// What memory is.
pub(super) struct What {
    pub(super) state: State,
    pub(super) mmio: bool,
    pub(super) known: Known,
}

/// The state of memory, by what is known of it, what the caller asserts, and the restricted pool that
/// it lies in.
pub(super) fn what(
    regime: &Regime,
    memory: Memory,
    attrs: Attrs,
    restricted: Option<&PoolInfo>,
    trace: &mut impl Trace,
) -> Result<What, Refuse> {
    let shared_asserted = attrs.contains(Attrs::CC_SHARED);
    if shared_asserted && matches!(regime, Regime::Host(_)) {
        return Err(Refuse::GuestOnly);
    }
    // What is known to be registers is registers, whoever says so. Of a peer's, an SME host wants the
    // caller to say it, an open machine as little as its drivers do.
    let registers = matches!((regime, memory), (_, Memory::Mmio) | (Regime::Open, Memory::Peer));
    let mmio = registers || attrs.contains(Attrs::MMIO);
    let by_attrs = if shared_asserted { State::SHARED } else { State::PRIVATE };
    let (state, known) = match (regime, memory) {
        (Regime::Open, _) => (State::Ordinary, Known::Machine),
        (_, Memory::Mixed) => return Err(Refuse::MixedRun), // sabotage: mixed-in-place
        (_, Memory::Unaccepted) => return Err(Refuse::Unaccepted),
        (_, Memory::Quarantined) => return Err(Refuse::Quarantined),
        (_, Memory::Converting) => return Err(Refuse::Busy),
        // Whatever the caller asserts, and whether private or shared: nobody in the guest knows
        // whether the two reach each other.
        (Regime::Guest(_), Memory::Peer) => {
            trace.step(Step::Peer);
            return Err(Refuse::PeerToPeer); // sabotage: peer-in-guest
        }
        (_, Memory::Peer) if !mmio => return Err(Refuse::AttributeContradictsLedger),
        (_, Memory::Known(_)) if mmio => return Err(Refuse::AttributeContradictsLedger),
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
    Ok(What { state, mmio, known })
}
