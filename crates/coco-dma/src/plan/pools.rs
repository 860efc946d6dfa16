//! Which pools can take a bounce, and in which order.

use super::request::IOMMU_PAGE;
use super::request::MapRequest;
use super::request::PoolFace;
use super::step::PoolVerdict;
use super::step::Step;
use super::step::Trace;
use crate::addr::AlignMask;
use crate::addr::DmaAddr;
use crate::addr::PhysRange;
use crate::addr::Places;
use crate::addr::Wish;
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
        (Regime::Host(_), PoolLabel::HostPlain) => Some(State::PLAIN),
        (Regime::Guest(_), PoolLabel::GuestShared) => Some(State::SHARED),
        (Regime::Guest(_), PoolLabel::GuestPrivate) => Some(State::PRIVATE),
        _ => None,
    }
}

/// The restricted pool that holds all of `range`.
pub(super) fn restricted_around(pools: &[PoolFace], range: PhysRange) -> Option<&PoolFace> {
    pools.iter().find(|pool| pool.restricted && pool.range.contains(range))
}

/// The pools that can take one bounce, in the order in which to try them: those whose label fits
/// best first, and among equals in the order in which they were given.
#[derive(Clone, Copy, Debug)]
pub struct Candidates<'a> {
    request: MapRequest<'a>,
    terms: Terms,
    rank: u8,
    last: u8,
    next: usize,
}

/// What holds for every pool of one request.
#[derive(Clone, Copy, Debug)]
struct Terms {
    /// The bounce is wanted for its own sake, not for want of an address.
    forced: bool,
    /// The device has a restricted pool.
    restricted: bool,
    /// The memory is for an allocation, from this context.
    allocation: Option<Context>,
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
    pub places: Places,
    /// How far into a place the mapping begins, in bytes: behind a domain the low bits of the
    /// address that the device wants kept, else 0.
    pub pad: u64,
}

/// The ranks of labels; 0 is the best.
const LABEL_RANKS: u8 = 2;
/// Of an allocation the reservoir's ranks come first, those from here on are the reserve's, which
/// is for atomic context alone, and the last are those of pools for all uses.
const RESERVE: u8 = LABEL_RANKS;
const ALL: u8 = 2 * LABEL_RANKS;

impl Candidates<'_> {
    /// The pools of an allocation in two: the reservoir, if it can take it, and the rest.
    pub(super) fn split(self) -> (Option<Self>, Self) {
        let reservoir = Self { last: RESERVE - 1, ..self };
        match { reservoir }.next() {
            Some(_) => (Some(reservoir), Self { rank: RESERVE, ..self }),
            None => (None, self),
        }
    }
}

impl Iterator for Candidates<'_> {
    type Item = Candidate;

    fn next(&mut self) -> Option<Candidate> {
        while self.rank <= self.last {
            while let Some(pool) = self.request.pools.get(self.next) {
                let index = self.next;
                self.next += 1;
                if let Ok(found) = judge(&self.request, self.terms, index, pool)
                    && found.rank == self.rank
                {
                    return Some(found.candidate);
                }
            }
            self.next = 0;
            self.rank += 1;
        }
        None
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

/// The pools for an allocation, asked for as a map of memory that lies nowhere; or why there is
/// none.
pub(super) fn for_allocation<'a>(
    request: &MapRequest<'a>,
    context: Context,
    trace: &mut impl Trace,
) -> Result<Candidates<'a>, Refuse> {
    let restricted = request.pools.iter().any(|pool| pool.restricted);
    choose(request, Terms { forced: true, restricted, allocation: Some(context) }, trace)
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
        let purposes = if terms.allocation.is_some() { ALL } else { 0 };
        Ok(Candidates {
            request: *request,
            terms,
            rank: 0,
            last: purposes + LABEL_RANKS - 1,
            next: 0,
        })
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

struct Ranked {
    rank: u8,
    candidate: Candidate,
}

/// Whether one pool can take the bounce.
fn judge(
    request: &MapRequest<'_>,
    terms: Terms,
    index: usize,
    pool: &PoolFace,
) -> Result<Ranked, PoolVerdict> {
    if terms.restricted && !pool.restricted {
        return Err(PoolVerdict::NotRestricted);
    }
    let purpose = match (pool.purpose, terms.allocation) {
        (PoolUse::Coherent, Some(_)) => 0,
        (PoolUse::Reserve, Some(Context::Atomic)) => RESERVE,
        (PoolUse::All, Some(_)) => ALL,
        (PoolUse::All | PoolUse::Streaming, None) => 0,
        _ => return Err(PoolVerdict::Purpose),
    };
    let rank = purpose + rank(request, terms.forced, pool.label).ok_or(PoolVerdict::Label)?;
    let state = state_of(request.regime, pool.label).ok_or(PoolVerdict::Label)?;
    let base = base(request, state, pool.range).ok_or(PoolVerdict::Reach)?;
    let limits = &request.device.limits;
    if limits.segment.is_some_and(|segment| request.len > segment) {
        return Err(PoolVerdict::Size);
    }
    let original = match request.place {
        super::Place::At(base) => base.raw(),
        super::Place::Unlocated => 0,
    };
    let wish = Wish {
        len: request.len,
        original,
        keep: limits.min_align,
        align: request.align,
        boundary: limits.boundary,
    };
    let (seen_from, wish, pad) = match base {
        Some(base) => (base.raw(), wish, 0),
        None => {
            let (wish, pad) = whole_pages(wish).ok_or(PoolVerdict::Size)?;
            (pool.range.base().raw(), wish, pad)
        }
    };
    let places = Places::new(seen_from, pool.range.len(), &wish).ok_or(PoolVerdict::Size)?;
    Ok(Ranked { rank, candidate: Candidate { index, state, base, places, pad } })
}

/// What to wish for so that the pages of a domain show no byte but the mapping's own, and how far
/// into them it begins. What the device sees of the address the domain chooses, boundary and all;
/// `None` where no address could be right.
fn whole_pages(wish: Wish) -> Option<(Wish, u64)> {
    if !wish.align.is_power_of_two() {
        return None;
    }
    let page = wish.align.max(IOMMU_PAGE);
    let kept = wish.original & wish.keep.raw();
    if wish.boundary.is_some_and(|boundary| boundary.crossed_by(kept, wish.len)) {
        return None;
    }
    let pad = kept & (page - 1);
    let len = wish.len.checked_add(pad)?.checked_next_multiple_of(page)?;
    Some((Wish { len, original: 0, keep: AlignMask::NONE, align: page, boundary: None }, pad))
}

/// How well a label fits the device: 0 best, `None` not at all.
fn rank(request: &MapRequest<'_>, forced: bool, label: PoolLabel) -> Option<u8> {
    let device = request.device;
    match (request.regime, device.trust, label) {
        (Regime::Open, _, PoolLabel::Ordinary) => Some(0),
        (Regime::Host(_), _, PoolLabel::Ordinary) => Some(0),
        // Plain memory gives up the cipher: only for devices that cannot carry the C-bit, and
        // where a bounce is wanted for its own sake.
        (Regime::Host(host), _, PoolLabel::HostPlain) => {
            let carries_mark =
                device.attachment.is_translated() || device.limit().raw() >= host.mark();
            (forced || !carries_mark).then_some(1)
        }
        (Regime::Guest(_), Trust::Untrusted, PoolLabel::GuestShared) => Some(0),
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
    (last.raw() <= device.limit().raw()).then_some(Some(base))
}
