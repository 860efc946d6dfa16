//! The decision about one allocation: which source, in which state, how much of it, whether
//! something has to be converted for it, and what is left to do for the driver.

use super::memory;
use super::pools;
use super::pools::Candidates;
use super::reach;
use super::request::AllocKind;
use super::request::AllocRequest;
use super::request::DeviceFace;
use super::request::MapRequest;
use super::request::Place;
use super::step::Source;
use super::step::Step;
use super::step::Trace;
use crate::addr::DmaAddr;
use crate::addr::PhysAddr;
use crate::addr::PhysRange;
use crate::attrs::Attrs;
use crate::reason::Refuse;
use crate::regime::Regime;
use crate::state::Cache;
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
    /// How the CPU sees it. A pool's own view ([`POOL_CACHE`](super::POOL_CACHE)) serves where it is
    /// of this type; otherwise the slots get another.
    pub cache: Cache,
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

/// What has to be done with pages of our own before the device is given them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnPages {
    /// The state that the device reaches.
    pub state: State,
    /// Whether the pages have to be converted for it; they are then converted back at the end.
    pub convert: bool,
    /// How much is taken in bytes, and aligned to what: whole granules where they convert, so that
    /// nobody else's page changes its state with them.
    pub len: u64,
    /// The alignment, a power of two.
    pub align: u64,
    /// The last address that a byte of them may have.
    pub last: PhysAddr,
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
    if request.len == 0 || !request.align.is_power_of_two() {
        return Err(Refuse::InvalidRange);
    }
    if device.trust == Trust::Accepted && !request.regime.has_accepted_devices() {
        return Err(Refuse::TrustLost);
    }
    let (pages, too_early) = match own_pages(request, trace) {
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
    if trace.listens() {
        let first = reservoir.map(|_| Source::Reservoir { grow });
        let own = pages.map(|_| Source::Pages);
        let rest = pools.ok().and_then(|mut rest| rest.next()).map(|_| Source::Pools);
        for (place, source) in [first, own, rest].into_iter().flatten().enumerate() {
            trace.step(Step::Source { place, source });
        }
    }
    match (pages, pools) {
        (None, Err(Refuse::NoPool)) if too_early => Err(Refuse::AtomicNeedsConversion),
        (None, Err(reason)) => Err(reason),
        (pages, pools) => Ok(AllocPlan {
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

/// What pages of our own would have to become for this device; `None` where they cannot serve.
fn own_pages(request: &AllocRequest<'_>, trace: &mut impl Trace) -> Option<OwnPages> {
    let (regime, device) = (request.regime, request.device);
    // A restricted pool is all that the device may touch.
    if !request.pages || request.pools.iter().any(|pool| pool.restricted) {
        return None;
    }
    let (state, convert) = match (regime, device.trust) {
        (Regime::Open, _) => (State::Ordinary, false),
        (Regime::Host(_), _) => (State::ENCRYPTED, false),
        (Regime::Guest(_), Trust::Accepted) => (State::PRIVATE, false),
        (Regime::Guest(_), Trust::Untrusted) => (State::SHARED, true),
    };
    let align = if convert { regime.granule().max(request.align) } else { request.align };
    let len = request.len.checked_next_multiple_of(align)?;
    let Some(last) = reach::last(regime, device, state).filter(|last| last.raw() >= len - 1) else {
        trace.step(Step::PagesOutOfReach { state, limit: device.limit() });
        return None;
    };
    Some(OwnPages { state, convert, len, align, last })
}

impl OwnPages {
    /// Whether this is what a source was asked for: `len` bytes, aligned, no farther than the device
    /// reaches.
    pub(crate) fn suits(&self, run: PhysRange, len: u64) -> bool {
        run.len() == len && run.is_aligned(self.align) && run.last() <= self.last
    }

    /// The address at which the device is given `run`, which was taken for this plan: `None` inside
    /// where a domain gives it, and `None` at all where it is out of reach (windows of a bus leave
    /// holes below [`last`](Self::last)) or not as long and aligned as planned.
    pub(crate) fn address(
        &self,
        regime: &Regime,
        device: &DeviceFace<'_>,
        run: PhysRange,
    ) -> Option<Option<DmaAddr>> {
        if !self.suits(run, self.len) {
            return None;
        }
        if device.attachment.is_translated() {
            return Some(None);
        }
        let mark = regime.dma_mark(device.trust, self.state)?;
        reach::bus_address(regime, device, self.state, run, mark, &mut ()).ok().map(Some)
    }
}

/// What an allocation is refused for whose reservoir and pages failed while it was made, and whose
/// other pools then gave nothing either. Failed pages outrank what is said of pools that were only
/// second; of the reservoir and the other pools, the one that was more than full is told.
pub(crate) fn nothing_left(
    reservoir: Option<Refuse>,
    pages: Option<Refuse>,
    pools: Refuse,
) -> Refuse {
    let pools = match (reservoir, pools) {
        (Some(why), Refuse::PoolFull) => why,
        _ => pools,
    };
    match (pages, pools) {
        (_, Refuse::Quota | Refuse::Busy) | (None, _) => pools,
        (Some(why), _) => why,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::BusRange;
    use crate::addr::BusRanges;
    use crate::plan::Limits;
    use crate::state::Attachment;

    /// Two pages below 4 GiB, and the run that is given for them.
    fn address(device: DeviceFace<'_>, base: u64, len: u64) -> Option<Option<u64>> {
        let last = PhysAddr::new(0xffff_ffff);
        let pages =
            OwnPages { state: State::Ordinary, convert: false, len: 0x2000, align: 0x1000, last };
        let run = PhysRange::new(PhysAddr::new(base), len).unwrap();
        let addr = pages.address(&Regime::Open, &device, run);
        addr.map(|given| given.map(DmaAddr::raw))
    }

    /// A source of pages is not believed.
    #[test]
    fn a_run_is_as_long_as_planned_and_in_reach() {
        let short = DeviceFace { limits: Limits::mask_bits(32), ..DeviceFace::PLAIN };
        let translated = DeviceFace { attachment: Attachment::Translated, ..short };
        for (base, len, good) in [
            (0x4000_0000, 0x2000, true),
            (0x4000_0000, 0x1000, false),
            (0x4000_0800, 0x2000, false),
            (0x4000_0000, 0x3000, false),
            (0xffff_e000, 0x2000, true),
            (0xffff_f000, 0x2000, false),
            (0x1_0000_0000, 0x2000, false),
        ] {
            assert_eq!(address(short, base, len), good.then_some(Some(base)), "{base:#x} {len:#x}");
            assert_eq!(address(translated, base, len), good.then_some(None), "{base:#x} {len:#x}");
        }
    }

    #[test]
    fn a_run_in_a_hole_between_windows_has_no_address() {
        let window = |base, bus| {
            let cpu = PhysRange::new(PhysAddr::new(base), 0x10_0000).unwrap();
            BusRange::new(cpu, bus).unwrap()
        };
        let windows = [window(0x1000_0000, 0), window(0x3000_0000, 0x10_0000)];
        let device = DeviceFace { bus: BusRanges::new(&windows), ..DeviceFace::PLAIN };
        assert_eq!(address(device, 0x3000_1000, 0x2000), Some(Some(0x10_1000)));
        assert_eq!(address(device, 0x2000_0000, 0x2000), None);
        assert_eq!(address(device, 0x100f_f000, 0x2000), None);
    }
}
