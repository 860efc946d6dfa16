//! The decision about one allocation of coherent memory: which source, in which state, and
//! whether something has to be converted for it.

use super::pools;
use super::pools::Candidates;
use super::request::AllocRequest;
use super::request::MapRequest;
use super::request::Place;
use super::step::Step;
use super::step::Trace;
use crate::attrs::Attrs;
use crate::reason::Refuse;
use crate::regime::Regime;
use crate::state::Context;
use crate::state::Direction;
use crate::state::Memory;
use crate::state::State;
use crate::state::Trust;

/// What a host maps with one entry where it can, in bytes: the large page of x86 (Intel SDM volume 3,
/// 5.5.4; AMD APM volume 2, 5.3.4) and of Arm with pages of 4 KiB (Arm ARM, D8.2). To convert less
/// breaks one up.
pub const LARGE_PAGE: u64 = 2 << 20;

/// Where an allocation comes from. Sources are tried in this order; a source that has nothing
/// left is passed over.
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct AllocPlan<'a> {
    /// The pools kept for coherent memory, where they spare a conversion of less than a
    /// [`LARGE_PAGE`] or there are no pages. (Otherwise they stand first among `pools`: what needs
    /// no conversion leaves them to others.)
    pub reservoir: Option<Reservoir<'a>>,
    /// Pages of our own, if they may be used.
    pub pages: Option<OwnPages>,
    /// The pools that can take it, or why none can.
    pub pools: Result<Candidates<'a>, Refuse>,
}

/// Pools kept for coherent memory, that go first. Devices are neighbours in them: two may have
/// memory in one granule, as the host sees all of a shared one anyway. In one page of an IOMMU they
/// never do: a place is made of whole pages.
#[derive(Clone, Copy, Debug)]
pub struct Reservoir<'a> {
    /// The pools, in the order in which to try them.
    pub pools: Candidates<'a>,
    /// Whether a closed one may be grown where they have nothing left. Atomic context never
    /// converts.
    pub grow: bool,
}

/// What has to be done with pages of our own before the device is given them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnPages {
    /// The state that the device reaches.
    pub state: State,
    /// Whether the pages have to be converted for it; they are then converted back at the end.
    pub convert: bool,
}

/// Decides about one allocation, telling `trace` each rule it applies. Never panics; takes time
/// linear in the number of pools.
pub fn alloc<'a>(
    request: &AllocRequest<'a>,
    trace: &mut impl Trace,
) -> Result<AllocPlan<'a>, Refuse> {
    let plan = decide(request, trace);
    if let Err(reason) = plan {
        trace.step(Step::Refuse(reason));
    }
    plan
}

fn decide<'a>(request: &AllocRequest<'a>, trace: &mut impl Trace) -> Result<AllocPlan<'a>, Refuse> {
    let device = request.device;
    if !request.attrs.without(Attrs::FOR_ALLOC).is_empty() {
        return Err(Refuse::BadAttribute);
    }
    if request.len == 0 || !request.align.is_power_of_two() {
        return Err(Refuse::InvalidRange);
    }
    if device.trust == Trust::Accepted && !request.regime.has_accepted_devices() {
        return Err(Refuse::TrustLost);
    }
    let restricted = request.pools.iter().any(|pool| pool.restricted);
    let (pages, too_early) = match own_pages(request).filter(|_| !restricted) {
        Some(pages) if pages.convert && request.context == Context::Atomic => {
            trace.step(Step::Atomic);
            (None, true)
        }
        Some(pages) => {
            trace.step(Step::Pages { state: pages.state, convert: pages.convert });
            trace.step(Step::Allocate);
            (Some(pages), false)
        }
        None => (None, false),
    };
    // Memory that lies nowhere yet: the pools are judged as for a bounce of it.
    let lookup = MapRequest {
        regime: request.regime,
        device,
        place: Place::Unlocated,
        len: request.len,
        memory: Memory::Untracked,
        direction: Direction::Both,
        attrs: Attrs::NONE,
        align: request.align,
        pools: request.pools,
    };
    let pools = pools::for_allocation(&lookup, request.context, trace);
    let spares = pages.is_none_or(|pages| pages.convert && request.len < LARGE_PAGE);
    let (reservoir, pools) = match pools {
        Ok(pools) if spares => {
            let (reservoir, rest) = pools.split();
            (reservoir, Ok(rest))
        }
        pools => (None, pools),
    };
    let grow = request.context == Context::Blocking;
    let reservoir = reservoir.map(|pools| Reservoir { pools, grow });
    if reservoir.is_some() {
        trace.step(Step::Reservoir { grow });
    }
    match (pages, pools) {
        (None, Err(Refuse::NoPool)) if too_early => Err(Refuse::AtomicNeedsConversion),
        (None, Err(reason)) => Err(reason),
        (pages, pools) => Ok(AllocPlan { reservoir, pages, pools }),
    }
}

/// What pages of our own would have to become for this device; `None` where they cannot serve.
fn own_pages(request: &AllocRequest<'_>) -> Option<OwnPages> {
    let device = request.device;
    if !request.pages {
        return None;
    }
    // An entry of a domain carries any state: what is asked for is the address alone.
    let carries_mark = |mark| device.attachment.is_translated() || device.limit().raw() >= mark;
    match (request.regime, device.trust) {
        (Regime::Open, _) => Some(OwnPages { state: State::Ordinary, convert: false }),
        (Regime::Host(host), _) => carries_mark(host.mark())
            .then_some(OwnPages { state: State::ENCRYPTED, convert: false }),
        (Regime::Guest(_), Trust::Accepted) => {
            Some(OwnPages { state: State::PRIVATE, convert: false })
        }
        (Regime::Guest(_), Trust::Untrusted) => {
            Some(OwnPages { state: State::SHARED, convert: true })
        }
    }
}
