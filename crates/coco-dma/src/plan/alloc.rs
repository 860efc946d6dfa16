//! The decision about one allocation: which source, in which state, how much of it, whether
//! something has to be converted for it, and what is left to do for the driver.

use super::memory;
use super::pages::OwnPages;
use super::pages::own_pages;
use super::pools;
use super::pools::Candidates;
use super::request::AllocKind;
use super::request::AllocRequest;
use super::request::MapRequest;
use super::request::Place;
use super::step::Misfit;
use super::step::Source;
use super::step::Step;
use super::step::Trace;
use crate::attrs::Attrs;
use crate::reason::Refuse;
use crate::state::CacheMode;
use crate::state::Context;
use crate::state::Direction;
use crate::state::Memory;
use crate::state::Trust;

/// What a host maps with one entry where it can, in bytes: the large page of x86 (Intel SDM volume 3,
/// 5.5.4; AMD APM volume 2, 5.3.4) and of Arm with pages of 4 KiB (Arm ARM, D8.2). To convert less
/// breaks one up.
pub const LARGE_PAGE: u64 = 2 << 20;

/// How much memory an allocation is, and aligned to what: two numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Bytes, in whole pages.
    pub len: u64,
    /// What the address that the device is given is a multiple of, in bytes: the length rounded up to
    /// a power of two, or more where that was asked for. What is no longer than the device's boundary
    /// crosses none of its multiples so.
    pub align: u64,
}

impl Extent {
    /// What a request comes to; `None` where no machine has so much.
    fn of(request: &AllocRequest<'_>) -> Option<Self> {
        let len = request.len.checked_next_multiple_of(request.page)?;
        let natural = request.len.checked_next_power_of_two()?; // sabotage: natural-alignment
        Some(Self { len, align: natural.max(request.page).max(request.align) })
    }
}

/// Where an allocation comes from. Sources are tried in this order; a source that has nothing
/// left is passed over.
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct AllocPlan<'a> {
    /// How much it is, and aligned to what.
    pub extent: Extent,
    /// The pools kept for coherent memory, where they spare a conversion of less than a
    /// [`LARGE_PAGE`] or there are no pages. (Otherwise they stand first among `pools`: what needs
    /// no conversion leaves them to others.)
    pub reservoir: Option<Reservoir<'a>>,
    /// Pages of our own, if they may be used.
    pub pages: Option<OwnPages>,
    /// The pools that can take it, or why none can.
    pub pools: Result<Candidates<'a>, Refuse>,
    /// How the CPU sees it. A pool's own view ([`POOL_CACHE`](super::POOL_CACHE)) serves where it is
    /// of this type; otherwise the slots get another.
    pub cache: CacheMode,
    /// Whether the driver has to sync it: the CPU caches it and the device does not see that.
    pub needs_sync: bool,
    /// Whether it may lie in several runs, because a domain shows them as one.
    pub scattered: bool,
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
    let alien = request.attrs.without(request.kind.takes());
    if !alien.is_empty() {
        trace.step(Step::NotTaken(alien));
        return Err(Refuse::BadAttribute);
    }
    let powers = request.align.is_power_of_two() && request.page.is_power_of_two();
    let extent = Extent::of(request).filter(|_| request.len > 0 && powers);
    let Some(extent) = extent else { return Err(Refuse::InvalidRange) };
    if device.trust == Trust::Accepted && !request.regime.has_accepted_devices() {
        return Err(Refuse::TrustLost);
    }
    // The segment is how much of a map a list has in one element. An allocation is no list: the
    // driver says itself which part of it the device is told.
    // sabotage: alloc-past-boundary
    if device.limits.boundary.is_some_and(|boundary| request.len > boundary.bytes()) {
        trace.step(Step::Misaligned(Misfit::Boundary));
        return Err(Refuse::TooLarge);
    }
    let (pages, too_early) = match own_pages(request, extent, trace) {
        // sabotage: atomic-converts
        Some(pages) if pages.convert && request.context == Context::Atomic => {
            trace.step(Step::Atomic);
            (None, true)
        }
        Some(pages) => {
            let OwnPages { state, convert, len, align, .. } = pages;
            trace.step(Step::Pages { state, convert, len, align });
            (Some(pages), false)
        }
        None => (None, false),
    };
    // Memory that lies nowhere yet: the pools are judged as for a bounce of it.
    let lookup = MapRequest {
        regime: request.regime,
        device,
        place: Place::Unlocated,
        len: extent.len,
        memory: Memory::Untracked,
        direction: Direction::Both,
        attrs: Attrs::NONE,
        align: request.page,
        pools: request.pools,
    };
    let pools = pools::for_allocation(&lookup, extent.align, request.context, trace);
    let spares = pages.is_none_or(|pages| pages.convert && extent.len < LARGE_PAGE);
    let (reservoir, pools) = match pools {
        Ok(pools) if spares => {
            let (reservoir, rest) = pools.split();
            (reservoir, Ok(rest))
        }
        pools => (None, pools),
    };
    let grow = request.context == Context::Blocking; // sabotage: atomic-grows
    let reservoir = reservoir.map(|pools| Reservoir { pools, grow });
    if trace.listens() {
        let first = reservoir.map(|_| Source::Reservoir { grow });
        let own = pages.map(|_| Source::Pages);
        let rest = pools.ok().and_then(|mut rest| rest.next()).map(|_| Source::Pools);
        for (place, source) in [first, own, rest].into_iter().flatten().enumerate() {
            trace.step(Step::Source { place, source });
        }
        match (reservoir, pages, pools) {
            (Some(Reservoir { pools, .. }), ..) | (None, None, Ok(pools)) => {
                pools.tell_first(trace);
            }
            _ => {}
        }
    }
    match (pages, pools) {
        (None, Err(Refuse::NoPool)) if too_early => Err(Refuse::AtomicNeedsConversion),
        (None, Err(reason)) => Err(reason),
        (pages, pools) => Ok(AllocPlan {
            extent,
            reservoir,
            pages,
            pools,
            cache: memory::cache_of(request.kind, device.coherent, request.attrs),
            needs_sync: !device.coherent && request.kind != AllocKind::Coherent,
            scattered: request.kind == AllocKind::NonContiguous
                && device.attachment.is_translated(),
        }),
    }
}

/// What an allocation is refused for whose reservoir and pages failed while it was made, and whose
/// other pools then gave nothing either. Failed pages outrank what is said of pools that were only
/// second; of the reservoir and the other pools, the one that was more than full is told.
#[must_use]
pub fn nothing_left(reservoir: Option<Refuse>, pages: Option<Refuse>, pools: Refuse) -> Refuse {
    let pools = match (reservoir, pools) {
        (Some(why), Refuse::PoolClosed) => why,
        (Some(why), Refuse::PoolFull) if why != Refuse::PoolClosed => why,
        _ => pools,
    };
    match (pages, pools) {
        (_, Refuse::Quota | Refuse::Busy) | (None, _) => pools,
        (Some(why), _) => why,
    }
}

/// What is told of pools that had no slots when they were tried, one after the other: `before`
/// about the earlier ones, and whether this one was open. Where all are closed nobody's finishing
/// helps; where one was merely full somebody's does.
pub(crate) fn no_slots(before: Option<Refuse>, open: bool) -> Refuse {
    match before {
        None | Some(Refuse::PoolClosed) if !open => Refuse::PoolClosed,
        None | Some(Refuse::PoolClosed) => Refuse::PoolFull,
        Some(why) => why,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pools_are_closed_where_none_of_them_is_open() {
        use Refuse::{NoView, PoolClosed, PoolFull};
        for (before, open, told) in [
            (None, true, PoolFull),
            (None, false, PoolClosed),
            (Some(PoolClosed), false, PoolClosed),
            (Some(PoolClosed), true, PoolFull),
            (Some(PoolFull), false, PoolFull),
            (Some(NoView), false, NoView),
        ] {
            assert_eq!(no_slots(before, open), told, "{before:?} {open}");
        }
    }

    #[test]
    fn of_several_sources_that_failed_the_one_that_says_most_is_told() {
        use Refuse::{Busy, ConversionFailed, NoView, PoolClosed, PoolFull, Quota};
        for (reservoir, pages, pools, told) in [
            (None, None, PoolFull, PoolFull),
            (Some(PoolClosed), None, PoolClosed, PoolClosed),
            (Some(PoolClosed), None, PoolFull, PoolFull),
            (Some(PoolFull), None, PoolClosed, PoolFull),
            (Some(Quota), None, PoolFull, Quota),
            (Some(NoView), None, PoolFull, NoView),
            (Some(NoView), None, Quota, Quota),
            (Some(PoolFull), Some(ConversionFailed), PoolFull, ConversionFailed),
            (Some(Quota), Some(ConversionFailed), PoolFull, Quota),
            (None, Some(ConversionFailed), Busy, Busy),
            (None, Some(NoView), PoolFull, NoView),
        ] {
            assert_eq!(
                nothing_left(reservoir, pages, pools),
                told,
                "{reservoir:?} {pages:?} {pools}"
            );
        }
    }
}
