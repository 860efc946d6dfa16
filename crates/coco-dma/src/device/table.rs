//! The fast-path table: what `plan` answers about every buffer of a kind, settled when the device
//! is bound, so that a bounce which depends on nothing else asks nobody. A test shows that the table
//! says what `plan` says.

use core::iter;

use crate::addr::AlignMask;
use crate::addr::Boundary;
use crate::addr::DmaAddr;
use crate::addr::PhysAddr;
use crate::addr::PhysRange;
use crate::addr::Placements;
use crate::addr::SLOT;
use crate::attrs::Attrs;
use crate::dma::Dma;
use crate::ledger::GranuleState;
use crate::ledger::RangeState;
use crate::ledger::Window;
use crate::plan;
use crate::plan::DeviceInfo;
use crate::plan::MapRequest;
use crate::plan::Place;
use crate::plan::Plan;
use crate::plan::PoolInfo;
use crate::platform::Platform;
use crate::pool::Pool;
use crate::reason::Bounce;
use crate::regime::Regime;
use crate::state::Direction;
use crate::state::Memory;

/// The verdict about every map of one kind of memory without attributes that is not too long and
/// does not lie in a pool: it bounces through the device's usual pool.
#[derive(Clone, Copy)]
pub(crate) struct TableEntry {
    /// Why.
    pub(crate) reason: Bounce,
    /// The longest map that it is true of, in bytes.
    most: usize,
}

/// The pool that a table is about, and the turns of whose caches the device's counters go by.
#[derive(Clone, Copy)]
pub(crate) struct DefaultPool<'d> {
    pub(crate) pool: &'d Pool<'d>,
    /// The pool's number.
    pub(crate) index: usize,
    /// The address of its first byte as the device is given it.
    pub(crate) base: DmaAddr,
    /// The low bits to be kept.
    pub(crate) keep: AlignMask,
}

/// The table of one device.
pub(crate) struct FastPathTable<'d> {
    /// Where everything in the table bounces through: the first pool of the first line.
    default_pool: Option<DefaultPool<'d>>,
    /// About memory that the ledger says to be in one state.
    known: [Option<TableEntry>; GranuleState::ALL.len()],
    /// About memory in no book, or in no single run.
    untracked: Option<TableEntry>,
    /// A part of the ledger that lies in no pool and is no peer's.
    window: Option<Window<'d>>,
    /// What lies in between may lie in a pool.
    pools: Option<PhysRange>,
    /// The last address that memory can have.
    last: PhysAddr,
}

impl<'d> FastPathTable<'d> {
    /// The table without an entry: every bounce goes the whole way.
    pub(super) fn empty() -> Self {
        Self {
            default_pool: None,
            known: [None; GranuleState::ALL.len()],
            untracked: None,
            window: None,
            pools: None,
            last: PhysAddr::new(0),
        }
    }

    /// Asks `plan` about each kind of memory, wherever it may lie.
    pub(super) fn of<P: Platform + ?Sized>(
        dma: &Dma<'d, P>,
        device: &DeviceInfo<'_>,
        pools: &[Option<&'d Pool<'d>>],
        infos: &[PoolInfo],
    ) -> Self {
        let entry = |memory| TableEntry::about(memory, dma.regime(), device, pools, infos);
        let known = GranuleState::ALL.map(|state| entry(RangeState::Uniform(state).memory()));
        let untracked = entry(Memory::Untracked);
        let default_pool = known
            .iter()
            .chain([&untracked])
            .flatten()
            .map(|(default_pool, _)| *default_pool)
            .next();
        // What goes through another pool takes the whole way.
        let usually = |(through, entry): (DefaultPool<'d>, TableEntry)| {
            default_pool.filter(|default_pool| default_pool.index == through.index).map(|_| entry)
        };
        let known = known.map(|line| line.and_then(usually));
        let untracked = untracked.and_then(usually);
        let last = PhysAddr::new(dma.regime().memory_limit().raw());
        let pools = hull(infos);
        // Without a run that holds all pools nothing is known to lie in none.
        let others = pools.map(|pools| iter::once(pools).chain(dma.peers().iter().copied()));
        let window = others.and_then(|others| dma.ledger().window(last, others));
        Self { default_pool, known, untracked, window, pools, last }
    }

    /// The verdict about memory of which the ledger says so much.
    #[inline]
    pub(super) fn about(&self, seen: RangeState) -> Option<&TableEntry> {
        match seen {
            RangeState::Uniform(state) => self.known.get(state as usize)?.as_ref(), // sabotage: fast-state
            RangeState::Foreign(visibility) => self.about(RangeState::Uniform(visibility.into())),
            RangeState::Untracked => self.untracked.as_ref(),
            RangeState::Mixed { .. } | RangeState::Border { .. } => None,
        }
    }

    /// The state of memory that may be looked up in the table, if it is quickly told.
    #[inline]
    pub(super) fn look(&self, range: PhysRange) -> Option<GranuleState> {
        self.window.as_ref()?.look(range)
    }

    /// Whether memory may be looked up in the table, for all that is known of pools: it lies in
    /// none, and is an address of the machine.
    pub(super) fn covers(&self, range: PhysRange) -> bool {
        range.last() <= self.last && self.pools.is_some_and(|pools| !pools.overlaps(range))
    }

    /// The pool that everything in the table bounces through; `None` where nothing is in it.
    #[inline]
    pub(super) fn default_pool(&self) -> Option<&DefaultPool<'d>> {
        self.default_pool.as_ref()
    }
}

impl TableEntry {
    /// Whether it is true of a map of `len` bytes (not 0).
    #[inline]
    pub(crate) fn holds_for(&self, len: usize) -> bool {
        len <= self.most // sabotage: fast-line
    }

    fn about<'d>(
        memory: Memory,
        regime: &Regime,
        device: &DeviceInfo<'_>,
        pools: &[Option<&'d Pool<'d>>],
        infos: &[PoolInfo],
    ) -> Option<(DefaultPool<'d>, Self)> {
        let request = MapRequest {
            regime,
            device,
            place: Place::Unlocated,
            len: device.limits.len_align.bytes(),
            memory,
            direction: Direction::Both,
            attrs: Attrs::NONE,
            align: 1,
            pools: infos,
        };
        let Plan::Bounce { reason, pools: mut candidates, cache_work: false } =
            plan::map(&request, &mut ())
        else {
            return None;
        };
        // Any other reason depends on where the buffer lies.
        if !matches!(
            reason,
            Bounce::Forced
                | Bounce::RestrictedPool
                | Bounce::PrivateMemory
                | Bounce::SharedUnreachable
        ) {
            return None;
        }
        let first = candidates.next()?;
        let (base, range) = (first.base?, infos.get(first.index)?.range); // sabotage: fast-form
        let limits = &device.limits;
        // What fits into no place of this pool belongs into another one, or into none.
        let longest = Placements::longest(
            base.raw(),
            range.len(),
            limits.min_align,
            limits.align,
            limits.boundary,
        );
        let crossed = |boundary: Boundary| boundary.crossed_by(base.raw(), range.len());
        // Each slot begins where the device can take it, and each length is one that it takes.
        let aligned = limits.align.bytes() <= SLOT && limits.align.divides(base.raw());
        if !aligned || !limits.len_align.is_none() {
            return None;
        }
        // sabotage: fast-reach
        if first.pad != 0 || limits.boundary.is_some_and(crossed) {
            return None;
        }
        let most = longest.min(limits.segment.unwrap_or(u64::MAX));
        let (index, keep) = (first.index, limits.min_align);
        let pool = pools.get(index).copied().flatten()?;
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        Some((DefaultPool { pool, index, base, keep }, Self { reason, most }))
    }
}

/// From the lowest byte of all pools to the highest.
fn hull(pools: &[PoolInfo]) -> Option<PhysRange> {
    let base = pools.iter().map(|pool| pool.range.base()).min()?;
    let last = pools.iter().map(|pool| pool.range.last()).max()?;
    PhysRange::between(base, last)
}
