//! Whether a device can touch memory where it lies, and at which address.

use super::pools;
use super::request::DeviceInfo;
use super::request::IOMMU_PAGE;
use super::request::MapRequest;
use super::source::Source;
use super::step::Misfit;
use super::step::Step;
use super::step::Trace;
use crate::addr::DmaAddr;
use crate::addr::PhysRange;
use crate::reason::Bounce;
use crate::regime::Regime;
use crate::state::State;

/// Whether the device can touch the memory where it lies: the address it is given (none where a
/// domain will give it), or why the bytes have to go through a pool.
pub(super) fn reach(
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
        // sabotage: restricted-map-outside
        if !inside {
            return Err(Bounce::RestrictedPool);
        }
    }
    // sabotage: forced-ignored
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
        Some(bus_address(request.regime, device, source.state, range, mark, trace)?)
    };
    if let Some(misfit) = misfit(request, source, range, addr) {
        trace.step(Step::Misaligned(misfit));
        return Err(Bounce::Alignment);
    }
    let page = request.align.max(IOMMU_PAGE);
    // sabotage: iommu-page-neighbours
    if translated && device.external_facing && !source.mmio && !range.is_aligned(page) {
        trace.step(Step::SharesPages);
        return Err(Bounce::ExternalFacing);
    }
    Ok(addr)
}

/// The address of `range` as the device would be given it, if that is within its reach.
pub(super) fn bus_address(
    regime: &Regime,
    device: &DeviceInfo<'_>,
    state: State,
    range: PhysRange,
    mark: u64,
    trace: &mut impl Trace,
) -> Result<DmaAddr, Bounce> {
    let form = device
        .bus
        .to_bus(range) // sabotage: bus-windows
        .and_then(|bus| Some((bus, regime.dma_form(device.trust, state, bus)?)));
    let Some((bus, addr)) = form else {
        trace.step(Step::Unmapped(range));
        return Err(Bounce::UnmappedBusRange);
    };
    trace.step(Step::Form { bus, mark, addr });
    let last = addr.checked_add(range.len() - 1); // sabotage: mask-bare-address, mask-first-byte
    let limit = device.limit();
    let by_bus = device.bus_limit < device.limits.mask;
    trace.step(Step::Limit { last, limit, by_bus });
    match last {
        Some(last) if last.raw() <= limit.raw() => Ok(addr),
        _ if by_bus => Err(Bounce::BeyondBusLimit),
        _ => Err(Bounce::BeyondMask),
    }
}

/// Whether the device can be given addresses of encrypted memory of an SME host: it can carry the
/// C-bit, or a domain does it for it.
pub(super) fn carries_c_bit(regime: &Regime, device: &DeviceInfo<'_>) -> bool {
    let mark = regime.dma_mark(device.trust, State::ENCRYPTED);
    device.attachment.is_translated() || mark.is_some_and(|mark| device.limit().raw() >= mark)
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
    // A domain places whole pages as the device wants them.
    let low = addr.map_or(range.base().raw() & (request.align.max(IOMMU_PAGE) - 1), DmaAddr::raw);
    // sabotage: start-alignment
    if !limits.align.divides(low) {
        return Some(Misfit::Start(limits.align));
    }
    // sabotage: segment-length
    if let Some(segment) = limits.segment.filter(|segment| range.len() > *segment) {
        return Some(Misfit::Segment(segment));
    }
    if let Some(boundary) = limits.boundary {
        // A domain places the mapping at the start of a window if it must, but for the low bits
        // that it keeps.
        let kept = limits.min_align.raw() | (request.align.max(IOMMU_PAGE) - 1);
        // sabotage: boundary-in-memory
        let base = addr.map_or(range.base().raw() & kept, DmaAddr::raw);
        // sabotage: boundary-crossed
        if boundary.crossed_by(base, range.len()) {
            return Some(Misfit::Boundary);
        }
    }
    // The device writes into memory while the cache holds the neighbour's bytes of the same line:
    // whichever is written back last wins. Nobody's syncs change that.
    let line = limits.cache_line.bytes();
    let shared = !device.coherent
        && !source.mmio
        && request.direction.from_device()
        && !range.is_aligned(line); // sabotage: cache-line
    shared.then_some(Misfit::CacheLine(line))
}
