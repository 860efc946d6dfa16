//! What a device answers before a driver builds a request. Linux's names: `dma_max_mapping_size`,
//! `dma_opt_mapping_size`, `dma_get_required_mask`, `dma_addressing_limited`, `dma_need_sync`.

use super::Device;
use crate::addr::AddressLimit;
use crate::addr::DmaAddr;
use crate::addr::PhysRange;
use crate::addr::Placements;
use crate::attrs::Attrs;
use crate::plan;
use crate::plan::Plan;
use crate::plan::PoolInfo;
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
    /// The longest single mapping in bytes that works wherever the buffer lies: without bouncing
    /// the longest segment, else what its best pool holds when empty, less what kept address bits
    /// and the boundary cost there. 0 where every map needs a pool and none suits. Behind an IOMMU
    /// never more than the domain's window has addresses for.
    pub fn max_mapping(&self) -> u64 {
        let limits = &self.info().limits;
        let segment = limits.segment.unwrap_or(u64::MAX).min(self.longest_in_domain());
        let window = limits.boundary.map_or(u64::MAX, |boundary| boundary.bytes());
        if !self.may_bounce() {
            return segment.min(window);
        }
        let kept = limits.min_align;
        let longest = self.bounce_pools().map(|(seen_from, pool)| match self.domain() {
            None => {
                let len = pool.range.len();
                Placements::longest(seen_from, len, kept, limits.align, limits.boundary)
            }
            // Whole pages; the rest is the domain's matter.
            Some(domain) => {
                let page = domain.page();
                whole_pages(pool.range, page).saturating_sub(kept.raw() & (page - 1))
            }
        });
        match longest.max() {
            Some(longest) => segment.min(longest),
            // What needs no bounce goes without a pool.
            None if !self.must_bounce() => segment.min(window),
            None => 0,
        }
    }

    /// The size in bytes up to which mappings are cheap: a sixteenth of the pool that a bounce
    /// would use, a page at least; [`max_mapping`](Self::max_mapping) where nothing bounces.
    pub fn opt_mapping(&self) -> u64 {
        let most = self.max_mapping();
        if !self.may_bounce() {
            return most;
        }
        let largest = self.bounce_pools().map(|(_, pool)| pool.range.len()).max();
        largest.map_or(most, |len| (len / SHARE_OF_POOL).max(LEAST_BEST).min(most))
    }

    /// The smallest mask that reaches all memory of the ledger and the pools in the form that this
    /// device is given; behind an IOMMU, all addresses of its domain.
    pub fn required_mask(&self) -> AddressLimit {
        let (info, regime) = (self.info(), self.regime());
        if let Some(domain) = self.domain() {
            let top = domain.window().last().raw();
            return AddressLimit::bits(u64::BITS - top.leading_zeros());
        }
        let ranges = self.dma().ledger().ranges().iter().map(|tracked| tracked.range());
        let pools = self.pool_infos().iter().map(|pool| pool.range);
        let top = ranges
            .chain(pools)
            .filter_map(|range| {
                let bus = info.bus.to_bus(range)?.checked_add(range.len() - 1)?;
                let forms = regime.states().iter();
                forms.filter_map(|state| regime.dma_form(info.trust, *state, bus)).max()
            })
            .max();
        let bits = top.map_or(0, |top| u64::BITS - top.raw().leading_zeros());
        AddressLimit::bits(bits.max(1))
    }

    /// Whether some memory is past what the device can address, whatever its state: above its
    /// mask or bus limit, or shown by no window of its bus. Behind an IOMMU none is: the domain
    /// gives what the device reaches.
    pub fn addressing_limited(&self) -> bool {
        if self.domain().is_some() {
            return false;
        }
        let bus = self.info().bus;
        let mut ranges = self.dma().ledger().ranges().iter().map(|tracked| tracked.range());
        self.info().limit() < self.required_mask()
            || ranges.any(|range| bus.to_bus(range).is_none())
    }

    /// Whether there is memory of this machine that the device can never touch where it lies:
    /// private memory for an untrusted device, memory behind the C-bit for a device that cannot
    /// carry it, memory past its mask. Known as soon as the device is bound.
    pub fn cannot_reach_memory(&self) -> bool {
        self.reaches_no_ordinary_memory() || self.addressing_limited()
    }

    /// Whether a driver has to sync what it maps: its bytes may be bounced, or its device does not
    /// see the caches.
    pub fn needs_sync(&self) -> bool {
        !self.info().coherent || self.may_bounce()
    }

    /// Whether some map of this device may go through a pool.
    fn may_bounce(&self) -> bool {
        let info = self.info();
        info.force_bounce
            || !info.coherent
            || info.external_facing
            || info.limits.boundary.is_some()
            || !info.limits.align.is_none()
            || !info.bus.is_identity()
            || self.pool_infos().iter().any(|pool| pool.restricted)
            || self.cannot_reach_memory()
            || (self.regime().is_guest() && !self.reaches_shared())
    }

    /// Whether every map of ordinary memory has to go through a pool.
    fn must_bounce(&self) -> bool {
        self.info().force_bounce
            || self.pool_infos().iter().any(|pool| pool.restricted)
            || self.reaches_no_ordinary_memory()
    }

    /// Whether memory as this machine has it is in a state that the device never reaches.
    fn reaches_no_ordinary_memory(&self) -> bool {
        let info = self.info();
        match self.regime() {
            Regime::Open => false,
            Regime::Host(host) => {
                !info.attachment.is_translated() && info.limit().raw() < host.mark()
            }
            Regime::Guest(_) => info.trust == Trust::Untrusted,
        }
    }

    /// Whether an address names shared memory for this device.
    fn reaches_shared(&self) -> bool {
        self.domain().is_some()
            || self.regime().dma_mark(self.info().trust, State::SHARED).is_some()
    }

    /// The longest mapping that the device's domain has addresses for; no limit where it is behind
    /// none.
    fn longest_in_domain(&self) -> u64 {
        let (limits, limit) = (&self.info().limits, self.info().limit());
        self.domain().map_or(u64::MAX, |domain| {
            let (base, len) = (domain.window().base().raw(), domain.in_reach(limit));
            // Wherever in its page a buffer begins; what that breaks of a boundary is bounced.
            let kept = limits.min_align.raw() | (domain.page() - 1);
            let (keep, align) = (limits.min_align, limits.align);
            let bounced = Placements::longest(base, len, keep, align, limits.boundary);
            len.saturating_sub(kept).min(bounced)
        })
    }

    /// The pools that a bounce could use, each with the address from which on the device sees it.
    fn bounce_pools(&self) -> impl Iterator<Item = (u64, &PoolInfo)> {
        let request =
            self.request(None, self.info().limits.len_align.bytes(), Direction::Both, Attrs::NONE);
        let pools = match plan::map(&request, &mut ()) {
            Plan::Bounce { pools, .. } => Some(pools),
            _ => None,
        };
        pools.into_iter().flatten().filter_map(|candidate| {
            let info = self.pool_infos().get(candidate.index)?;
            // A domain keeps the low bits of what it maps.
            let base = candidate.base.map_or(info.range.base().raw(), DmaAddr::raw);
            Some((base, info))
        })
    }
}

/// The bytes of a range that are in whole pages of `page`, a power of two.
fn whole_pages(range: PhysRange, page: u64) -> u64 {
    let first = range.base().raw().checked_next_multiple_of(page);
    let past = range.last().raw().wrapping_add(1) & !(page - 1);
    first.map_or(0, |first| past.saturating_sub(first))
}
