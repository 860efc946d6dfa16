//! What a driver may ask of its device before it builds a request: how long a map may be, which
//! mask reaches memory, whether bytes are ever copied. Each answer holds for all memory that the
//! machine has and may ever have; where nothing is told of it, memory may be anywhere.
//!
//! They are about memory that lies in one run ([`Place::At`](super::Place::At)). What the platform
//! locates nowhere is always copied, and its mapping says so.

use super::map;
use super::map::Plan;
use super::request::DeviceInfo;
use super::request::MapRequest;
use super::request::Place;
use super::request::PoolInfo;
use crate::addr::AddressLimit;
use crate::addr::BusRange;
use crate::addr::DmaAddr;
use crate::addr::MemoryMap;
use crate::addr::PhysAddr;
use crate::addr::PhysRange;
use crate::addr::Placements;
use crate::attrs::Attrs;
use crate::regime::Regime;
use crate::state::Direction;
use crate::state::Memory;
use crate::state::State;

/// How many mappings of the best size a pool should hold at once.
const SHARE_OF_POOL: u64 = 16;
/// The best size is at least this, where the pool allows it at all: a page.
const LEAST_BEST: u64 = 4096;

/// What the answers depend on.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// The rules of the machine.
    pub regime: &'a Regime,
    /// The device.
    pub device: &'a DeviceInfo<'a>,
    /// Where memory is, and how far it may ever reach.
    pub memory: MemoryMap<'a>,
    /// The pools of the device and of the machine.
    pub pools: &'a [PoolInfo],
    /// The domain that the device is behind, where it is behind one.
    pub domain: Option<DomainInfo>,
}

/// A domain, as far as an answer depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DomainInfo {
    /// The page of its IOMMU in bytes, a power of two.
    pub page: u64,
    /// The first address that it gives out.
    pub first: u64,
    /// The last one.
    pub last: u64,
    /// How many bytes of its addresses the device reaches, from the first one on.
    pub in_reach: u64,
}

impl<'a> Question<'a> {
    /// The longest single mapping in bytes that works wherever the buffer lies: the longest segment
    /// where nothing bounces, else what the best pool holds when empty, less what kept address bits
    /// and the boundary cost there. Behind an IOMMU never more than the domain has addresses for.
    ///
    /// 0 where there is memory of which no map is sure to work: it is out of reach as the machine
    /// hands it to drivers, or bouncing is forced, and no pool takes it. Without a pool the answer
    /// is for buffers that suit the device as they lie: within a window of its boundary, in whole
    /// cache lines where it does not see the caches, in whole pages behind an IOMMU where it is
    /// external-facing, and in memory that some address names for it.
    #[must_use]
    pub fn max_mapping(&self) -> u64 {
        let limits = &self.device.limits;
        // No run is longer than memory can be.
        let memory = self.regime.memory_limit().raw().saturating_add(1);
        let segment = limits.segment.unwrap_or(u64::MAX).min(self.longest_in_domain()).min(memory);
        let window = limits.boundary.map_or(u64::MAX, |boundary| boundary.bytes());
        if !self.may_bounce() {
            return segment.min(window);
        }
        let kept = limits.min_align;
        let longest = self.bounce_pools().map(|(seen_from, pool)| match self.domain {
            None => {
                let len = pool.range.len();
                Placements::longest(seen_from, len, kept, limits.align, limits.boundary)
            }
            // Whole pages; the rest is the domain's matter.
            Some(DomainInfo { page, .. }) => {
                whole_pages(pool.range, page).saturating_sub(kept.raw() & (page - 1))
            }
        });
        match longest.max() {
            Some(longest) => segment.min(longest),
            None if self.must_bounce() => 0,
            // What needs no bounce goes without a pool.
            None => segment.min(window),
        }
    }

    /// The size in bytes up to which mappings are cheap: a sixteenth of the pool that a bounce would
    /// use, a page at least; [`max_mapping`](Self::max_mapping) where nothing bounces.
    #[must_use]
    pub fn opt_mapping(&self) -> u64 {
        let most = self.max_mapping();
        if !self.may_bounce() {
            return most;
        }
        let largest = self.bounce_pools().map(|(_, pool)| pool.range.len()).max();
        largest.map_or(most, |len| (len / SHARE_OF_POOL).max(LEAST_BEST).min(most))
    }

    /// The smallest mask that reaches all memory there may be, in every form that this device is
    /// given; behind an IOMMU, all addresses of its domain. What no window of the bus shows needs
    /// no mask.
    #[must_use]
    pub fn required_mask(&self) -> AddressLimit {
        let top = match self.domain {
            Some(domain) => domain.last,
            None => {
                let pools = self.pools.iter().map(|pool| pool.range);
                self.extents().chain(pools).filter_map(|run| self.last_form(run)).max().unwrap_or(0)
            }
        };
        AddressLimit::bits((u64::BITS - top.leading_zeros()).max(1))
    }

    /// Whether some memory that there may be is past what the device can address: above its mask or
    /// bus limit in one of its forms, or shown whole by no window of its bus. Behind an IOMMU none
    /// is: the domain gives what the device reaches.
    #[must_use]
    pub fn addressing_limited(&self) -> bool {
        self.domain.is_none()
            && (self.device.limit() < self.required_mask()
                || self.marks().any(|mark| !self.reaches_all(mark)))
    }

    /// Whether the device can touch none of the memory that there may be where it lies, as the
    /// machine hands it to drivers: private memory for an untrusted device, memory behind the C-bit
    /// for a device that cannot carry it, memory that begins past its mask. Known as soon as the
    /// device is bound; where it is true, every map of such memory bounces or is refused. (Memory of
    /// which it can touch some is [`addressing_limited`](Self::addressing_limited).)
    #[must_use]
    pub fn cannot_reach_memory(&self) -> bool {
        match self.mark(self.ordinary()) {
            None => true,
            Some(_) if self.domain.is_some() => false,
            Some(mark) => !self.extents().any(|run| self.reaches_some(run, mark)),
        }
    }

    /// Whether a driver has to sync what it maps: some of its bytes may be bounced, or its device
    /// does not see the caches.
    #[must_use]
    pub fn needs_sync(&self) -> bool {
        !self.device.coherent || self.may_bounce()
    }

    /// Whether some map of this device may go through a pool.
    fn may_bounce(&self) -> bool {
        let device = self.device;
        let out_of_reach = |state: &State| match self.mark(*state) {
            None => true,
            Some(mark) => self.domain.is_none() && !self.reaches_all(mark),
        };
        device.force_bounce
            || !device.coherent
            || (device.external_facing && device.attachment.is_translated())
            || device.limits.boundary.is_some()
            || !device.limits.align.is_none()
            || self.is_restricted()
            || self.regime.states().iter().any(out_of_reach)
    }

    /// Whether there is memory, as the machine hands it to drivers, that goes through a pool whatever
    /// the place of the buffer in it.
    fn must_bounce(&self) -> bool {
        let all = |mark| self.domain.is_some() || self.reaches_all(mark);
        self.device.force_bounce
            || self.is_restricted()
            || !self.mark(self.ordinary()).is_some_and(all)
    }

    fn is_restricted(&self) -> bool {
        self.pools.iter().any(|pool| pool.restricted)
    }

    /// The state of the memory that drivers are handed.
    fn ordinary(&self) -> State {
        self.regime.states().first().copied().unwrap_or(State::Ordinary)
    }

    /// What an address for memory in this state carries; `None` where the device never reaches it.
    fn mark(&self, state: State) -> Option<u64> {
        match self.regime.dma_mark(self.device.trust, state) {
            // As in `reach`: an entry of a domain carries any state but private memory for a device
            // that the guest did not accept.
            None if self.device.attachment.is_translated() && state != State::PRIVATE => Some(0),
            mark => mark,
        }
    }

    /// The marks of all states that the device reaches.
    fn marks(&self) -> impl Iterator<Item = u64> {
        let states = self.regime.states().iter();
        states.filter_map(|state| self.regime.dma_mark(self.device.trust, *state))
    }

    /// The last address that memory can ever have.
    fn ceiling(&self) -> PhysAddr {
        let most = PhysAddr::new(self.regime.memory_limit().raw());
        self.memory.ceiling.map_or(most, |ceiling| ceiling.min(most))
    }

    /// All memory that there may be, in runs, each as long as it is in one piece. Where nothing is
    /// plugged in past what is present, that is it; else memory may come anywhere up to the ceiling.
    fn extents(&self) -> impl Iterator<Item = PhysRange> {
        let present = self.memory.present;
        let highest = present.iter().map(|run| run.last()).max();
        let told = highest.is_some_and(|last| self.memory.ceiling.is_some_and(|end| end <= last));
        let present = if told { present } else { &[] };
        // No run has all 2^64 bytes: two have, and whatever is shorter lies in one of them.
        let end = self.ceiling();
        let below = end.min(PhysAddr::new(u64::MAX - 1));
        let anywhere = [(0, below), (1, end)];
        let anywhere = anywhere.into_iter().filter(move |_| !told);
        let anywhere =
            anywhere.filter_map(|(base, last)| PhysRange::between(PhysAddr::new(base), last));
        anywhere.chain(present.iter().map(|run| joined(*run, present)))
    }

    /// Whether every buffer in memory that there may be has an address with this mark within reach.
    fn reaches_all(&self, mark: u64) -> bool {
        self.extents().all(|run| {
            let shown = self.windows(run).any(|(part, _)| part == run);
            // A part may be shown by another window first: each is within reach.
            shown && self.windows(run).all(|(part, bus)| self.in_reach(bus, part.len(), mark))
        })
    }

    /// Whether some byte of a run has an address with this mark within reach.
    fn reaches_some(&self, run: PhysRange, mark: u64) -> bool {
        self.windows(run).any(|(_, bus)| self.in_reach(bus, 1, mark))
    }

    /// Whether `len` bytes at a bus address are addresses within reach once they carry the mark.
    fn in_reach(&self, bus: u64, len: u64, mark: u64) -> bool {
        let last = bus.checked_add(len - 1);
        last.is_some_and(|last| {
            last <= self.regime.memory_limit().raw()
                && last.checked_add(mark).is_some_and(|last| last <= self.device.limit().raw())
        })
    }

    /// The highest address of a run that the device is given in some state.
    fn last_form(&self, run: PhysRange) -> Option<u64> {
        let mark = self.marks().max()?;
        let most = self.regime.memory_limit().raw();
        let shown = self.windows(run).filter(|(_, bus)| *bus <= most);
        let last = shown.map(|(part, bus)| bus.saturating_add(part.len() - 1).min(most)).max()?;
        Some(last.saturating_add(mark))
    }

    /// The parts of a run that windows of the bus show, each with its bus address.
    fn windows(&self, run: PhysRange) -> impl Iterator<Item = (PhysRange, u64)> {
        let bus = self.device.bus;
        let whole = bus.is_identity().then_some((run, run.base().raw()));
        let shown = bus.windows().iter().filter_map(move |window: &BusRange| {
            let cpu = window.cpu();
            let part = PhysRange::between(run.base().max(cpu.base()), run.last().min(cpu.last()))?;
            let bus = window.bus().checked_add(part.base().offset_from(cpu.base())?)?;
            Some((part, bus))
        });
        whole.into_iter().chain(shown)
    }

    /// The longest mapping that the device's domain has addresses for; no limit where it is behind
    /// none.
    fn longest_in_domain(&self) -> u64 {
        let limits = &self.device.limits;
        self.domain.map_or(u64::MAX, |DomainInfo { page, first, in_reach, .. }| {
            // Wherever in its page a buffer begins; what that breaks of a boundary is bounced.
            let kept = limits.min_align.raw() | (page - 1);
            let bounced = Placements::longest(
                first,
                in_reach,
                limits.min_align,
                limits.align,
                limits.boundary,
            );
            in_reach.saturating_sub(kept).min(bounced)
        })
    }

    /// The pools that a bounce could use, each with the address from which on the device sees it.
    fn bounce_pools(&self) -> impl Iterator<Item = (u64, &'a PoolInfo)> {
        let request = MapRequest {
            regime: self.regime,
            device: self.device,
            place: Place::Unlocated,
            len: self.device.limits.len_align.bytes(),
            memory: Memory::Untracked,
            direction: Direction::Both,
            attrs: Attrs::NONE,
            align: self.domain.map_or(1, |domain| domain.page),
            pools: self.pools,
        };
        let pools = self.pools;
        let found = match map::map(&request, &mut ()) {
            Plan::Bounce { pools: found, .. } => {
                Some(found.filter_map(move |candidate| {
                    let info = pools.get(candidate.index)?;
                    // A domain keeps the low bits of what it maps.
                    let base = candidate.base.map_or(info.range.base().raw(), DmaAddr::raw);
                    Some((base, info))
                }))
            }
            _ => None,
        };
        found.into_iter().flatten()
    }
}

/// A run, as far as others go on where it ends.
fn joined(run: PhysRange, others: &[PhysRange]) -> PhysRange {
    let mut whole = run;
    // Each round takes in one at least.
    for _ in others {
        let end = whole.last().checked_add(1);
        let goes_on = |other: &&PhysRange| {
            other.last() > whole.last() && end.is_some_and(|end| other.base() <= end)
        };
        let next = others.iter().filter(goes_on).map(|other| other.last()).max();
        match next.and_then(|last| PhysRange::between(whole.base(), last)) {
            Some(longer) => whole = longer,
            None => break,
        }
    }
    whole
}

/// The bytes of a range that are in whole pages of `page`, a power of two.
fn whole_pages(range: PhysRange, page: u64) -> u64 {
    let first = range.base().raw().checked_next_multiple_of(page);
    let past = range.last().raw().wrapping_add(1) & !(page - 1);
    first.map_or(0, |first| past.saturating_sub(first))
}
