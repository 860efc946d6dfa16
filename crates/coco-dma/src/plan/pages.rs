//! Pages of our own for an allocation: in which state a device would have to be given them, and
//! whether what a source gave is what it was asked for.

use super::reach;
use super::request::AllocRequest;
use super::request::DeviceInfo;
use super::step::Step;
use super::step::Trace;
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
    /// How much is taken in bytes, and aligned to what: whole granules where they convert, so that
    /// nobody else's page changes its state with them.
    pub len: u64,
    /// The alignment, a power of two.
    pub align: u64,
    /// The last address that a byte of them may have.
    pub last: PhysAddr,
    /// The longest run that they are taken in where they need not be one.
    pub longest: u64,
}

/// What pages of our own would have to become for this device; `None` where they cannot serve.
pub(super) fn own_pages(request: &AllocRequest<'_>, trace: &mut impl Trace) -> Option<OwnPages> {
    let (regime, device) = (request.regime, request.device);
    // A restricted pool is all that the device may touch.
    // sabotage: restricted-pages
    if !request.pages || request.pools.iter().any(|pool| pool.restricted) {
        return None;
    }
    let (state, convert) = match (regime, device.trust) {
        (Regime::Open, _) => (State::Ordinary, false),
        (Regime::Host(_), _) => (State::ENCRYPTED, false),
        // sabotage: accepted-shared-pages
        (Regime::Guest(_), Trust::Accepted) => (State::PRIVATE, false),
        (Regime::Guest(_), Trust::Untrusted) => (State::SHARED, true),
    };
    // sabotage: pages-not-granules
    let align = if convert { regime.granule().max(request.align) } else { request.align };
    let len = request.len.checked_next_multiple_of(align)?;
    let Some(last) = reach::last(regime, device, state).filter(|last| last.raw() >= len - 1) else {
        trace.step(Step::PagesOutOfReach { state, limit: device.limit() });
        return None;
    };
    // What was asked for as single pages breaks no long run.
    let single = request.attrs.contains(Attrs::ALLOC_SINGLE_PAGES);
    let longest = if single { align } else { len };
    Some(OwnPages { state, convert, len, align, last, longest })
}

impl OwnPages {
    /// What a source is asked for to get `len` bytes of them.
    pub(crate) fn constraints(&self, len: u64, context: Context) -> PageConstraints {
        let Self { align, last, .. } = *self;
        let first = PhysAddr::new(0);
        PageConstraints { len, align, first, last, boundary: None, context }
    }

    /// Whether this is what a source was asked for: `len` bytes, aligned, no farther than the device
    /// reaches.
    pub(crate) fn suits(&self, run: PhysRange, len: u64) -> bool {
        run.len() == len && run.is_aligned(self.align) && run.last() <= self.last
    }

    /// The address at which the device is given `run`, which was taken for this plan: `None` inside
    /// where a domain gives it, and `None` at all where it is out of reach (windows of a bus leave
    /// holes below [`last`](Self::last)) or not as long and aligned as planned.
    pub fn address(
        &self,
        regime: &Regime,
        device: &DeviceInfo<'_>,
        run: PhysRange,
        trace: &mut impl Trace,
    ) -> Option<Option<DmaAddr>> {
        if !self.suits(run, self.len) {
            return None;
        }
        if device.attachment.is_translated() {
            trace.step(Step::Translated(self.state));
            return Some(None);
        }
        let mark = regime.dma_mark(device.trust, self.state)?;
        reach::bus_address(regime, device, self.state, run, mark, trace).ok().map(Some)
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
    fn address(device: DeviceInfo<'_>, base: u64, len: u64) -> Option<Option<u64>> {
        let last = PhysAddr::new(0xffff_ffff);
        let pages = OwnPages {
            state: State::Ordinary,
            convert: false,
            len: 0x2000,
            align: 0x1000,
            last,
            longest: 0x2000,
        };
        let run = PhysRange::new(PhysAddr::new(base), len).unwrap();
        let addr = pages.address(&Regime::Open, &device, run, &mut ());
        addr.map(|given| given.map(DmaAddr::raw))
    }

    /// A source of pages is not believed.
    #[test]
    fn a_run_is_as_long_as_planned_and_in_reach() {
        let short = DeviceInfo { limits: Limits::mask_bits(32), ..DeviceInfo::PLAIN };
        let translated = DeviceInfo { attachment: Attachment::Translated, ..short };
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
        let device = DeviceInfo { bus: BusRanges::new(&windows), ..DeviceInfo::PLAIN };
        assert_eq!(address(device, 0x3000_1000, 0x2000), Some(Some(0x10_1000)));
        assert_eq!(address(device, 0x2000_0000, 0x2000), None);
        assert_eq!(address(device, 0x100f_f000, 0x2000), None);
    }
}
