//! Pages of our own for an allocation: in which state a device would have to be given them, and
//! whether what a source gave is what it was asked for.

use super::alloc::Extent;
use super::reach;
use super::request::AllocRequest;
use super::request::DeviceInfo;
use super::step::Step;
use super::step::Trace;
use crate::addr::BusRange;
use crate::addr::BusRanges;
use crate::addr::DmaAddr;
use crate::addr::PageConstraints;
use crate::addr::PhysAddr;
use crate::addr::PhysRange;
use crate::attrs::Attrs;
use crate::regime::Regime;
use crate::state::Context;
use crate::state::State;
use crate::state::Trust;

/// What has to be done with pages of our own before the device is given them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnPages {
    /// The state that the device reaches.
    pub state: State,
    /// Whether the pages have to be converted for it; they are then converted back at the end.
    pub convert: bool,
    /// How much is taken in bytes: a multiple of `unit`.
    pub len: u64,
    /// The smallest part in bytes, a power of two: whole granules where they convert, so that nobody
    /// else's page changes its state with them.
    pub unit: u64,
    /// The alignment of the address that the device is given, a power of two.
    pub align: u64,
    /// The longest run that they are taken in where they need not be one.
    pub longest: u64,
}

/// What pages of our own would have to become for this device; `None` where they cannot serve.
pub(super) fn own_pages(
    request: &AllocRequest<'_>,
    extent: Extent,
    trace: &mut impl Trace,
) -> Option<OwnPages> {
    let (regime, device) = (request.regime, request.device);
    // A restricted pool is all that the device may touch.
    // sabotage: restricted-pages
    if !request.pages || request.pools.iter().any(|pool| pool.restricted) {
        return None;
    }
    let (state, convert) = match (regime, device.trust) {
        (Regime::Open, _) => (State::Ordinary, false),
        // sabotage: sme-pages-stay-encrypted, sme-plain-unconverted
        (Regime::Host(_), _) if !reach::carries_c_bit(regime, device) => (State::PLAIN, true),
        (Regime::Host(_), _) => (State::ENCRYPTED, false),
        // sabotage: accepted-shared-pages
        (Regime::Guest(_), Trust::Accepted) => (State::PRIVATE, false),
        (Regime::Guest(_), Trust::Untrusted) => (State::SHARED, true),
    };
    // sabotage: pages-not-granules
    let unit = if convert { regime.granule().max(request.page) } else { request.page };
    // As in a pool: the low bits that the device wants kept are those of an address 0.
    let kept = device.limits.min_align.raw().checked_add(1)?;
    let align = extent.align.max(unit).max(kept);
    let len = extent.len.checked_next_multiple_of(unit)?;
    // What was asked for as single pages breaks no long run.
    let single = request.attrs.contains(Attrs::ALLOC_SINGLE_PAGES);
    let longest = if single { unit } else { len };
    let pages = OwnPages { state, convert, len, unit, align, longest };
    if pages.queries(regime, device, request.context).next().is_none() {
        trace.step(Step::PagesOutOfReach { state, limit: device.limit() });
        return None;
    }
    Some(pages)
}

/// One way to get pages of our own: what a source is asked for, and the window of the bus through
/// which the device would see the answer.
#[derive(Clone, Copy, Debug)]
pub struct PageQuery {
    /// What must hold of the run.
    pub constraints: PageConstraints,
    pages: OwnPages,
    window: Option<BusRange>,
    /// From an address of memory to the device's, modulo 2^64.
    offset: u64,
}

impl OwnPages {
    /// The state that they are converted to, if they are: what their record keeps for the end.
    pub(crate) fn lent(&self) -> Option<State> {
        self.convert.then_some(self.state)
    }

    /// What to ask a source for to get all of them as one run, in the order in which to try: window
    /// by window of the bus, since what holds of an address holds of the device's, and each window
    /// has an offset of its own. (Behind a domain, which moves whole pages anywhere, memory is
    /// aligned as the device's address is.)
    pub fn queries<'a>(
        self,
        regime: &'a Regime,
        device: &'a DeviceInfo<'a>,
        context: Context,
    ) -> impl Iterator<Item = PageQuery> + use<'a> {
        let translated = device.attachment.is_translated();
        let bus = if translated { BusRanges::IDENTITY } else { device.bus };
        bus.each().filter_map(move |window| self.query(regime, device, window, context))
    }

    fn query(
        self,
        regime: &Regime,
        device: &DeviceInfo<'_>,
        window: Option<BusRange>,
        context: Context,
    ) -> Option<PageQuery> {
        let bus = BusRanges::new(window.as_slice());
        let Self { state, len, unit, align, .. } = self;
        let most = regime.memory_limit().raw();
        let (mark, limit) = if device.attachment.is_translated() {
            // An entry of a domain carries any state, and its address is the domain's matter.
            (0, most)
        } else {
            (regime.dma_mark(device.trust, state)?, device.limit().raw())
        };
        let reached = limit.checked_sub(mark)?.min(most);
        let last = bus.last_shown(reached, PhysAddr::new(most))?.raw();
        let (first, shown_at) = bus.first_shown();
        let shift = shown_at.wrapping_add(mark);
        let offset = shift.wrapping_sub(first.raw()); // sabotage: pages-aligned-in-memory
        // The lowest place at which the device's address is right, and the highest.
        let first = first
            .raw()
            .checked_add(offset.wrapping_add(first.raw()).wrapping_neg() & (align - 1))?;
        let spare = last.checked_sub(first.checked_add(len - 1)?)? & !(align - 1);
        let last = first + (len - 1) + spare;
        // How far memory can be aligned so that the device's address is, too. Where that is not far
        // enough a longer run is asked for, which has a place in it wherever it lies; the rest of it
        // goes back.
        let common = align.min(1u64.checked_shl(offset.trailing_zeros()).unwrap_or(align));
        if common < unit {
            return None;
        }
        let slack = if spare == 0 { 0 } else { align - common };
        let boundary = device.limits.boundary.filter(|boundary| {
            slack == 0 && len <= boundary.bytes() && offset & (boundary.bytes() - 1) == 0
        });
        let constraints = PageConstraints {
            len: len.checked_add(slack)?,
            align: common,
            first: PhysAddr::new(first),
            last: PhysAddr::new(last),
            boundary,
            context,
        };
        Some(PageQuery { constraints, pages: self, window, offset })
    }

    /// What a source is asked for to get `len` bytes of them where they need not be one run: the
    /// domain alone aligns what the device sees.
    pub(crate) fn piece(&self, regime: &Regime, len: u64, context: Context) -> PageConstraints {
        let (first, last) = (PhysAddr::new(0), PhysAddr::new(regime.memory_limit().raw()));
        PageConstraints { len, align: self.unit, first, last, boundary: None, context }
    }
}

impl PageQuery {
    /// The part of `run`, the answer of a source, that is the allocation, and the address at which the
    /// device is given it (`None` where a domain gives it). `None` where the answer is not what was
    /// asked for.
    pub fn place(
        &self,
        regime: &Regime,
        device: &DeviceInfo<'_>,
        run: PhysRange,
        trace: &mut impl Trace,
    ) -> Option<(PhysRange, Option<DmaAddr>)> {
        let OwnPages { state, len, align, .. } = self.pages;
        // A source is not believed.
        if !self.constraints.met_by(run) {
            return None;
        }
        let seen = self.offset.wrapping_add(run.base().raw());
        let part = run.slice(seen.wrapping_neg() & (align - 1), len)?;
        if device.attachment.is_translated() {
            trace.step(Step::Translated(state));
            return Some((part, None));
        }
        let device = DeviceInfo { bus: BusRanges::new(self.window.as_slice()), ..*device };
        let mark = regime.dma_mark(device.trust, state)?;
        let addr = reach::bus_address(regime, &device, state, part, mark, trace).ok()?;
        Some((part, Some(addr)))
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;
    use crate::plan::Limits;
    use crate::state::Attachment;

    const PAGES: OwnPages = OwnPages {
        state: State::Ordinary,
        convert: false,
        len: 0x3000,
        unit: 0x1000,
        align: 0x4000,
        longest: 0x3000,
    };

    fn run(base: u64, len: u64) -> PhysRange {
        PhysRange::new(PhysAddr::new(base), len).unwrap()
    }

    fn window(base: u64, bus: u64) -> BusRange {
        BusRange::new(run(base, 0x10_0000), bus).unwrap()
    }

    /// What is asked for: length, alignment, first and last address.
    fn asked(device: &DeviceInfo<'_>) -> Vec<(u64, u64, u64, u64)> {
        let queries = PAGES.queries(&Regime::Open, device, Context::Blocking);
        let told = queries.map(|PageQuery { constraints, .. }| {
            let PageConstraints { len, align, first, last, .. } = constraints;
            (len, align, first.raw(), last.raw())
        });
        told.collect()
    }

    /// Where the allocation begins in what was given for the first query, and where the device sees
    /// it.
    fn placed(device: &DeviceInfo<'_>, given: PhysRange) -> Option<(u64, Option<u64>)> {
        let query = PAGES.queries(&Regime::Open, device, Context::Blocking).next().unwrap();
        let (part, addr) = query.place(&Regime::Open, device, given, &mut ())?;
        assert_eq!(part.len(), PAGES.len);
        Some((part.base().raw(), addr.map(DmaAddr::raw)))
    }

    /// A source of pages is not believed.
    #[test]
    fn a_run_is_as_long_and_aligned_as_asked_for_and_in_reach() {
        let short = DeviceInfo { limits: Limits::mask_bits(32), ..DeviceInfo::PLAIN };
        for (base, len, good) in [
            (0x4000_0000, 0x3000, true),
            (0x4000_0000, 0x2000, false),
            (0x4000_1000, 0x3000, false),
            (0x4000_0000, 0x4000, false),
            (0xffff_c000, 0x3000, true),
            (0xffff_d000, 0x3000, false),
            (0x1_0000_0000, 0x3000, false),
        ] {
            let got = placed(&short, run(base, len));
            assert_eq!(got, good.then_some((base, Some(base))), "{base:#x} {len:#x}");
        }
        let translated = DeviceInfo { attachment: Attachment::Translated, ..short };
        assert_eq!(placed(&translated, run(1 << 32, 0x3000)), Some((1 << 32, None)));
        assert_eq!(placed(&translated, run(0x1000, 0x3000)), None);
    }

    #[test]
    fn each_window_is_asked_for_by_itself() {
        let windows = [window(0x3000_0000, 0x10_0000), window(0x1000_0000, 0)];
        let device = DeviceInfo { bus: BusRanges::new(&windows), ..DeviceInfo::PLAIN };
        let all = |base| (0x3000, 0x4000, base, base + 0xf_efff);
        assert_eq!(asked(&device), [all(0x3000_0000), all(0x1000_0000)]);
        // 19 bits end below the second window on the bus.
        let short = DeviceInfo { limits: Limits::mask_bits(19), ..device };
        assert_eq!(asked(&short), [(0x3000, 0x4000, 0x1000_0000, 0x1007_efff)]);
        assert_eq!(placed(&device, run(0x3000_4000, 0x3000)), Some((0x3000_4000, Some(0x10_4000))));
        assert_eq!(placed(&device, run(0x1000_4000, 0x3000)), None, "the other window's");
    }

    #[test]
    fn what_the_offset_of_a_window_leaves_unaligned_is_cut_out_of_a_longer_run() {
        let windows = [window(0x3000_1000, 0)];
        let device = DeviceInfo { bus: BusRanges::new(&windows), ..DeviceInfo::PLAIN };
        assert_eq!(asked(&device), [(0x6000, 0x1000, 0x3000_1000, 0x300f_ffff)]);
        for (base, place) in [
            (0x3000_1000, 0x3000_1000),
            (0x3000_2000, 0x3000_5000),
            (0x3000_4000, 0x3000_5000),
            (0x3000_5000, 0x3000_5000),
        ] {
            let seen = place - 0x3000_1000;
            assert_eq!(placed(&device, run(base, 0x6000)), Some((place, Some(seen))), "{base:#x}");
        }
        // One place alone is asked for as it is.
        let small = [BusRange::new(run(0x3000_1000, 0x6000), 0).unwrap()];
        let device = DeviceInfo { bus: BusRanges::new(&small), ..device };
        assert_eq!(asked(&device), [(0x3000, 0x1000, 0x3000_1000, 0x3000_3fff)]);
        // No page comes through a window that does not begin at one.
        let odd = [window(0x3000_0800, 0)];
        assert_eq!(asked(&DeviceInfo { bus: BusRanges::new(&odd), ..device }), []);
    }
}
