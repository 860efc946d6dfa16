//! Which pools can take a bounce, and in which order.

use super::reach::carries_c_bit;
use super::request::IOMMU_PAGE;
use super::request::MapRequest;
use super::request::Place;
use super::request::PoolInfo;
use super::step::Misfit;
use super::step::PoolVerdict;
use super::step::Step;
use super::step::Trace;
use crate::addr::AlignMask;
use crate::addr::Constraints;
use crate::addr::DmaAddr;
use crate::addr::PhysRange;
use crate::addr::Placements;
use crate::reason::Bounce;
use crate::reason::Refuse;
use crate::regime::Regime;
use crate::state::Context;
use crate::state::PoolLabel;
use crate::state::PoolUse;
use crate::state::State;
use crate::state::Trust;

/// The state of a pool's memory by its label; `None` where the label does not exist on this
/// machine.
#[inline]
pub(crate) const fn state_of(regime: &Regime, label: PoolLabel) -> Option<State> {
    match (regime, label) {
        (Regime::Open, PoolLabel::Ordinary) => Some(State::Ordinary),
        (Regime::Host(_), PoolLabel::Ordinary) => Some(State::ENCRYPTED),
        // sabotage: sme-plain-pool-encrypted
        (Regime::Host(_), PoolLabel::HostPlain) => Some(State::PLAIN),
        (Regime::Guest(_), PoolLabel::GuestShared) => Some(State::SHARED),
        (Regime::Guest(_), PoolLabel::GuestPrivate) => Some(State::PRIVATE),
        _ => None,
    }
}

/// The restricted pool that holds all of `range`.
pub(super) fn restricted_around(pools: &[PoolInfo], range: PhysRange) -> Option<&PoolInfo> {
    pools.iter().find(|pool| pool.restricted && pool.range.contains(range))
}

/// The pools that can take one bounce, in the order in which to try them. What decides first is what
/// a pool is for (in atomic context the reserve), then how well its label fits, then whether it is
/// the device's own, then whether it lies on the device's node or on none that is known; equals
/// stay in the order in which they were given. The order is found step by step: nothing is sorted.
#[derive(Clone, Copy, Debug)]
pub struct Candidates<'a> {
    request: MapRequest<'a>,
    terms: Terms,
    /// The order and the index of the last one.
    last: Option<(u8, usize)>,
    /// The order from which on they are left out.
    past: u8,
}

/// What holds for every pool of one request.
#[derive(Clone, Copy, Debug)]
struct Terms {
    /// The bounce is wanted for its own sake, not for want of an address.
    forced: bool,
    /// The device has a restricted pool.
    restricted: bool,
    /// The memory is for an allocation, aligned to so many bytes, from this context.
    allocation: Option<(u64, Context)>,
}

/// One pool that can take a bounce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its place in the request's pools.
    pub index: usize,
    /// The state of its memory.
    pub state: State,
    /// The address of its first byte as the device is given it; `None` where a domain gives it.
    pub base: Option<DmaAddr>,
    /// The places in it that suit the mapping, as offsets from its first byte. Behind a domain
    /// they are whole pages around the mapping, which nobody else has a part of.
    pub places: Placements,
    /// How far into a place the mapping begins, in bytes: behind a domain the low bits of the
    /// address that the device wants kept, else 0.
    pub pad: u64,
}

/// What a pool is for stands in these bits of its order: of an allocation the reservoir is first,
/// then the reserve, which is for atomic context alone, then pools for all uses.
const PURPOSE: u8 = 3;

impl Candidate {
    /// The address at which the device is given the lowest place; `None` where a domain gives it.
    #[must_use]
    pub fn lowest(&self) -> Option<DmaAddr> {
        self.base?.checked_add(self.places.lowest())
    }
}

impl Candidates<'_> {
    /// Tells the place that the first of them gives where it is empty.
    pub fn tell_first(mut self, trace: &mut impl Trace) {
        if !trace.listens() {
            return;
        }
        if let Some(first) = self.next()
            && let Some(pool) = self.request.pools.get(first.index)
        {
            let (label, range, addr) = (pool.label, pool.range, first.lowest());
            trace.step(Step::Slot { label, range, addr });
        }
    }

    /// The pools of an allocation in two: the reservoir, if it can take it, and the rest.
    pub(super) fn split(self) -> (Option<Self>, Self) {
        let reservoir = Self { past: 1 << PURPOSE, ..self };
        match { reservoir }.next() {
            Some(_) => {
                (Some(reservoir), Self { last: Some(((1 << PURPOSE) - 1, usize::MAX)), ..self })
            }
            None => (None, self),
        }
    }
}

impl Iterator for Candidates<'_> {
    type Item = Candidate;

    fn next(&mut self) -> Option<Candidate> {
        loop {
            let (request, terms, last) = (&self.request, self.terms, self.last);
            let all = request.pools.iter().enumerate();
            let ranked = all.filter_map(|(index, pool)| {
                let at = (order(request, terms, pool).ok()?, index);
                (at.0 < self.past && last.is_none_or(|last| at > last)).then_some((at, pool))
            });
            let (at, pool) = ranked.min_by_key(|(at, _)| *at)?;
            self.last = Some(at);
            if let Ok(found) = judge(&self.request, self.terms, at.1, pool) {
                return Some(found);
            }
        }
    }
}

/// The pools for a bounce that is due for `reason`, or why there is none.
pub(super) fn candidates<'a>(
    request: &MapRequest<'a>,
    reason: Bounce,
    trace: &mut impl Trace,
) -> Result<Candidates<'a>, Refuse> {
    let terms = Terms {
        forced: matches!(reason, Bounce::Forced | Bounce::RestrictedPool),
        restricted: request.pools.iter().any(|pool| pool.restricted),
        allocation: None,
    };
    choose(request, terms, trace)
}

/// The pools for an allocation aligned to `align`, asked for as a map of memory that lies nowhere; or
/// why there is none.
pub(super) fn for_allocation<'a>(
    request: &MapRequest<'a>,
    align: u64,
    context: Context,
    trace: &mut impl Trace,
) -> Result<Candidates<'a>, Refuse> {
    let restricted = request.pools.iter().any(|pool| pool.restricted);
    let allocation = Some((align, context));
    choose(request, Terms { forced: true, restricted, allocation }, trace)
}

fn choose<'a>(
    request: &MapRequest<'a>,
    terms: Terms,
    trace: &mut impl Trace,
) -> Result<Candidates<'a>, Refuse> {
    let (mut reachable, mut labelled, mut other_than_shared) = (false, false, false);
    let (mut offered, mut usable) = (false, false);
    for (index, pool) in request.pools.iter().enumerate() {
        let verdict = judge(request, terms, index, pool).err().unwrap_or(PoolVerdict::Suits);
        trace.step(Step::Pool { label: pool.label, range: pool.range, verdict });
        if matches!(verdict, PoolVerdict::NotRestricted | PoolVerdict::Purpose) {
            continue;
        }
        offered = true;
        other_than_shared |= pool.label != PoolLabel::GuestShared;
        labelled |= verdict != PoolVerdict::Label;
        reachable |= matches!(verdict, PoolVerdict::Suits | PoolVerdict::Size);
        usable |= verdict == PoolVerdict::Suits;
    }
    if usable {
        let found = Candidates { request: *request, terms, last: None, past: u8::MAX };
        if trace.listens() && found.count() > 1 {
            for (place, candidate) in found.enumerate() {
                let Some(pool) = request.pools.get(candidate.index) else { continue };
                let (own, far) = (pool.own, pool.is_far(request.device));
                trace.step(Step::Order { place, label: pool.label, range: pool.range, own, far });
            }
        }
        Ok(found)
    } else if !offered {
        Err(Refuse::NoPool)
    } else if request.device.trust == Trust::Accepted && !other_than_shared {
        Err(Refuse::NoPrivatePool)
    } else if !labelled {
        Err(Refuse::PoolLabelMismatch)
    } else if !reachable {
        Err(Refuse::NoReachablePool)
    } else {
        Err(Refuse::TooLarge)
    }
}

/// Where a pool stands among those of one request (0 is first), or why it does not.
fn order(request: &MapRequest<'_>, terms: Terms, pool: &PoolInfo) -> Result<u8, PoolVerdict> {
    // sabotage: restricted-slots-of-others
    if terms.restricted && !pool.restricted {
        return Err(PoolVerdict::NotRestricted);
    }
    let purpose = match (pool.purpose, terms.allocation) {
        (PoolUse::Coherent, Some(_)) => 0,
        (PoolUse::Reserve, Some((_, Context::Atomic))) => 1, // sabotage: reserve-waiters
        (PoolUse::All, Some(_)) => 2,
        (PoolUse::All | PoolUse::Streaming, None) => 0, // sabotage: reserve-maps
        _ => return Err(PoolVerdict::Purpose),
    };
    let label = rank(request, terms.forced, pool.label).ok_or(PoolVerdict::Label)?;
    // sabotage: machine-pools-first, far-pools-first
    let (machines, far) = (u8::from(!pool.own), u8::from(pool.is_far(request.device)));
    Ok(purpose << PURPOSE | label << 2 | machines << 1 | far)
}

/// The limit of the device that the request breaks in every pool.
pub(super) fn too_long(request: &MapRequest<'_>) -> Option<Misfit> {
    let limits = &request.device.limits;
    let kept = original(request) & limits.min_align.raw();
    match (limits.segment, limits.boundary) {
        (Some(segment), _) if request.len > segment => Some(Misfit::Segment(segment)),
        (_, Some(boundary)) if boundary.crossed_by(kept, request.len) => Some(Misfit::Boundary),
        _ => None,
    }
}

/// The address whose low bits a bounce may have to keep.
pub(super) fn original(request: &MapRequest<'_>) -> u64 {
    match request.place {
        Place::At(base) => base.raw(),
        Place::Unlocated => 0,
    }
}

/// Whether one pool can take the bounce.
fn judge(
    request: &MapRequest<'_>,
    terms: Terms,
    index: usize,
    pool: &PoolInfo,
) -> Result<Candidate, PoolVerdict> {
    order(request, terms, pool)?;
    let state = state_of(request.regime, pool.label).ok_or(PoolVerdict::Label)?;
    // sabotage: pool-label-ignored
    let base = base(request, state, pool.range).ok_or(PoolVerdict::Reach)?;
    let limits = &request.device.limits;
    let (align, boundary) = match terms.allocation {
        // It crosses no boundary that it is not longer than, and has no segments.
        Some((align, _)) => (align, None),
        None => (request.align, limits.boundary), // sabotage: pool-boundary
    };
    if terms.allocation.is_none() && too_long(request).is_some() {
        return Err(PoolVerdict::Size);
    }
    let original = original(request);
    let constraints = Constraints {
        len: request.len,
        original,
        keep: limits.min_align, // sabotage: min-align-lost
        align,
        boundary,
    };
    let (seen_from, constraints, pad) = match base {
        Some(base) => {
            let align = constraints.align.max(limits.align.bytes());
            (base.raw(), Constraints { align, ..constraints }, 0) // sabotage: pool-limits-in-memory
        }
        // The domain aligns what it gives.
        None => {
            let page = request.align.max(IOMMU_PAGE);
            let (constraints, pad) = whole_pages(constraints, page).ok_or(PoolVerdict::Size)?;
            (pool.range.base().raw(), constraints, pad)
        }
    };
    let places =
        Placements::new(seen_from, pool.range.len(), &constraints).ok_or(PoolVerdict::Size)?;
    Ok(Candidate { index, state, base, places, pad })
}

/// What to ask for so that the pages of a domain, of `page` bytes, show no byte but the mapping's own, and how far
/// into them it begins. What the device sees of the address the domain chooses, boundary and all;
/// `None` where no address could be right.
fn whole_pages(constraints: Constraints, page: u64) -> Option<(Constraints, u64)> {
    if !page.is_power_of_two() {
        return None;
    }
    let align = constraints.align.max(page);
    let kept = constraints.original & constraints.keep.raw();
    if constraints.boundary.is_some_and(|boundary| boundary.crossed_by(kept, constraints.len)) {
        return None;
    }
    let pad = kept & (page - 1); // sabotage: iommu-page-offset
    let len = constraints.len.checked_add(pad)?.checked_next_multiple_of(page)?;
    Some((Constraints { len, original: 0, keep: AlignMask::NONE, align, boundary: None }, pad))
}

/// How well a label fits the device: 0 best, 1 the other, `None` not at all.
fn rank(request: &MapRequest<'_>, forced: bool, label: PoolLabel) -> Option<u8> {
    let device = request.device;
    match (request.regime, device.trust, label) {
        (Regime::Open, _, PoolLabel::Ordinary) => Some(0),
        (Regime::Host(_), _, PoolLabel::Ordinary) => Some(0),
        // Plain memory gives up the cipher: only for devices that cannot carry the C-bit, and
        // where a bounce is wanted for its own sake.
        (Regime::Host(_), _, PoolLabel::HostPlain) => {
            let carries = carries_c_bit(request.regime, device);
            (forced || !carries).then_some(1) // sabotage: sme-plain-for-want
        }
        (Regime::Guest(_), Trust::Untrusted, PoolLabel::GuestShared) => Some(0),
        // sabotage: accepted-shared-pool
        (Regime::Guest(_), Trust::Accepted, PoolLabel::GuestPrivate) => Some(0),
        _ => None,
    }
}

/// The first address of a pool as the device is given it (`Some(None)` behind a domain), where
/// it reaches all of the pool.
fn base(request: &MapRequest<'_>, state: State, pool: PhysRange) -> Option<Option<DmaAddr>> {
    if pool.last().raw() > request.regime.memory_limit().raw() {
        return None;
    }
    let device = request.device;
    if device.attachment.is_translated() {
        return Some(None);
    }
    let bus = device.bus.to_bus(pool)?;
    let base = request.regime.dma_form(device.trust, state, bus)?;
    let last = base.checked_add(pool.len() - 1)?;
    (last.raw() <= device.limit().raw()).then_some(Some(base)) // sabotage: pool-half-in-reach
}
