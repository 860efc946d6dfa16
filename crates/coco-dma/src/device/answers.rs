//! What a device answers before a driver builds a request. Linux's names: `dma_max_mapping_size`,
//! `dma_opt_mapping_size`, `dma_get_required_mask`, `dma_addressing_limited`, `dma_need_sync`.

use super::Device;
use crate::addr::AddressLimit;
use crate::addr::PhysRange;
use crate::attrs::Attrs;
use crate::plan;
use crate::plan::Plan;
use crate::platform::Platform;
use crate::regime::Regime;
use crate::state::Direction;
use crate::state::State;
use crate::state::Trust;

/// How many mappings of the best size a pool should hold at once.
const SHARE_OF_POOL: u64 = 16;
/// The best size is at least this, where the pool allows it at all: a page.
const LEAST_BEST: u64 = 4096;

impl<P: Platform + ?Sized> Device<'_, P> {
    /// The longest single mapping in bytes that can work at all: without bouncing the longest
    /// segment, else what its best pool holds when empty, less what kept address bits cost.
    /// 0 where the device needs a pool and has none that suits. Behind an IOMMU never more than the
    /// domain's window has addresses for the device.
    pub fn max_mapping(&self) -> u64 {
        let limits = &self.face().limits;
        let segment = limits.segment.unwrap_or(u64::MAX);
        let window = limits.boundary.map_or(u64::MAX, |boundary| boundary.bytes());
        let segment = segment.min(self.longest_in_domain());
        let longest = segment.min(window);
        if !self.may_bounce() {
            return longest;
        }
        let kept = limits.min_align.raw();
        let window = window.saturating_sub(if window == u64::MAX { 0 } else { kept });
        let pool = self.largest_pool().saturating_sub(kept);
        segment.min(window).min(pool)
    }

    /// The size in bytes up to which mappings are cheap: a sixteenth of the pool that a bounce
    /// would use, a page at least; [`max_mapping`](Self::max_mapping) where nothing bounces.
    pub fn opt_mapping(&self) -> u64 {
        let most = self.max_mapping();
        if !self.may_bounce() {
            return most;
        }
        (self.largest_pool() / SHARE_OF_POOL).max(LEAST_BEST).min(most)
    }

    /// The smallest mask that reaches all memory of the ledger and the pools in the form that this
    /// device is given; behind an IOMMU, all addresses of its domain.
    pub fn required_mask(&self) -> AddressLimit {
        let (face, regime) = (self.face(), self.regime());
        if let Some(domain) = self.domain() {
            let top = domain.window().last().raw();
            return AddressLimit::bits(u64::BITS - top.leading_zeros());
        }
        let ranges = self.dma().ledger().ranges().iter().map(|tracked| tracked.range());
        let pools = self.pool_faces().iter().map(|pool| pool.range);
        let top = ranges
            .chain(pools)
            .filter_map(|range| {
                let bus = face.bus.to_bus(range)?.checked_add(range.len() - 1)?;
                let forms = regime.states().iter();
                forms.filter_map(|state| regime.dma_form(face.trust, *state, bus)).max()
            })
            .max();
        let bits = top.map_or(0, |top| u64::BITS - top.raw().leading_zeros());
        AddressLimit::bits(bits.max(1))
    }

    /// Whether some memory is past what the device can address, whatever its state. Behind an IOMMU
    /// none is: the domain gives what the device reaches.
    pub fn addressing_limited(&self) -> bool {
        self.domain().is_none() && self.face().limit() < self.required_mask()
    }

    /// Whether there is memory of this machine that the device can never touch where it lies:
    /// private memory for an untrusted device, memory behind the C-bit for a device that cannot
    /// carry it, memory past its mask. Known as soon as the device is bound.
    pub fn cannot_reach_memory(&self) -> bool {
        let face = self.face();
        let by_state = match self.regime() {
            Regime::Open => false,
            Regime::Host(host) => {
                !face.attachment.is_translated() && face.limit().raw() < host.mark()
            }
            Regime::Guest(_) => face.trust == Trust::Untrusted,
        };
        by_state || self.addressing_limited()
    }

    /// Whether a driver has to sync what it maps: its bytes may be bounced, or its device does not
    /// see the caches.
    pub fn needs_sync(&self) -> bool {
        !self.face().coherent || self.may_bounce()
    }

    /// Whether some map of this device may go through a pool.
    fn may_bounce(&self) -> bool {
        let face = self.face();
        face.force_bounce
            || !face.coherent
            || face.external_facing
            || face.limits.boundary.is_some()
            || !face.bus.is_identity()
            || self.pool_faces().iter().any(|pool| pool.restricted)
            || self.cannot_reach_memory()
            || (self.regime().is_guest() && !self.reaches_shared())
    }

    /// Whether an address names shared memory for this device.
    fn reaches_shared(&self) -> bool {
        self.domain().is_some()
            || self.regime().dma_mark(self.face().trust, State::SHARED).is_some()
    }

    /// The longest run that the device's domain has addresses for, wherever in its pages it
    /// begins; no limit where it is behind none.
    fn longest_in_domain(&self) -> u64 {
        self.domain().map_or(u64::MAX, |domain| {
            let kept = self.face().limits.min_align.raw() | (domain.page() - 1);
            domain.in_reach(self.face().limit()).saturating_sub(kept)
        })
    }

    /// The length of the largest pool that a bounce could use, in whole pages behind an IOMMU.
    fn largest_pool(&self) -> u64 {
        let request = self.request(None, 1, Direction::Both, Attrs::NONE);
        match plan::map(&request, &mut ()) {
            Plan::Bounce { pools, .. } => pools
                .filter_map(|candidate| self.pool_faces().get(candidate.index))
                .map(|pool| whole_pages(pool.range, self.iommu_page()))
                .max()
                .unwrap_or(0),
            _ => 0,
        }
    }
}

/// The bytes of a range that are in whole pages of `page`, a power of two.
fn whole_pages(range: PhysRange, page: u64) -> u64 {
    let first = range.base().raw().checked_next_multiple_of(page);
    let past = range.last().raw().wrapping_add(1) & !(page - 1);
    first.map_or(0, |first| past.saturating_sub(first))
}
