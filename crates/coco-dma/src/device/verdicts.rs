//! The table of verdicts: what `plan` answers about every buffer of a kind, settled when the device
//! is bound, so that a bounce which depends on nothing else asks nobody. A test shows that the table
//! says what `plan` says.

use crate::addr::AlignMask;
use crate::addr::DmaAddr;
use crate::addr::PhysRange;
use crate::addr::Places;
use crate::attrs::Attrs;
use crate::ledger::GranuleState;
use crate::ledger::Seen;
use crate::plan;
use crate::plan::DeviceFace;
use crate::plan::MapRequest;
use crate::plan::Place;
use crate::plan::Plan;
use crate::plan::PoolFace;
use crate::reason::Bounce;
use crate::regime::Regime;
use crate::state::Direction;
use crate::state::Memory;
use crate::state::State;
use crate::state::Visibility;

/// A kind of memory that has a line in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The ledger says that it is private.
    Private,
    /// The ledger says that it is shared.
    Shared,
    /// In no book, or in no single run.
    Untracked,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Private, Self::Shared, Self::Untracked];

    /// The kind of what the ledger saw; `None` where the whole way has to be taken.
    #[inline]
    pub(crate) const fn of(seen: Seen) -> Option<Self> {
        match seen {
            Seen::Untracked => Some(Self::Untracked),
            Seen::Uniform(GranuleState::Private) | Seen::Foreign(Visibility::Private) => {
                Some(Self::Private)
            }
            Seen::Uniform(GranuleState::Shared) | Seen::Foreign(Visibility::Shared) => {
                Some(Self::Shared)
            }
            _ => None,
        }
    }

    const fn memory(self) -> Memory {
        match self {
            Self::Private => Memory::Known(State::PRIVATE),
            Self::Shared => Memory::Known(State::SHARED),
            Self::Untracked => Memory::Untracked,
        }
    }
}

/// The verdict about every map of one kind of memory without attributes that is not too long and
/// does not lie in a pool: it bounces through this pool.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Verdict {
    /// The pool's number.
    pub(crate) pool: usize,
    /// The address of its first byte as the device is given it.
    pub(crate) base: DmaAddr,
    /// Why.
    pub(crate) reason: Bounce,
    /// The low bits to be kept.
    pub(crate) keep: AlignMask,
    /// The longest map that it is true of, in bytes.
    most: usize,
}

/// The table of one device.
#[derive(Debug)]
pub(crate) struct Verdicts {
    lines: [Option<Verdict>; Kind::ALL.len()],
    /// What lies in between may lie in a pool.
    pools: Option<PhysRange>,
    /// The last address that memory can have.
    last: u64,
    /// The pool whose turns the device's counters go by: that of the first line.
    counted: Option<usize>,
}

impl Verdicts {
    /// Asks `plan` about each kind of memory, wherever it may lie.
    pub(super) fn of(regime: &Regime, device: &DeviceFace<'_>, pools: &[PoolFace]) -> Self {
        let line = |kind: Kind| {
            let request = MapRequest {
                regime,
                device,
                place: Place::Unlocated,
                len: 1,
                memory: kind.memory(),
                direction: Direction::Both,
                attrs: Attrs::NONE,
                align: 1,
                pools,
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
            let (base, range) = (first.base?, pools.get(first.index)?.range);
            let limits = &device.limits;
            // What fits into no place of this pool belongs into another one, or into none.
            let longest =
                Places::longest(base.raw(), range.len(), limits.min_align, limits.boundary);
            let crossed =
                |boundary: crate::addr::Boundary| boundary.crossed_by(base.raw(), range.len());
            if first.pad != 0 || limits.boundary.is_some_and(crossed) {
                return None;
            }
            let most = longest.min(limits.segment.unwrap_or(u64::MAX));
            Some(Verdict {
                pool: first.index,
                base,
                reason,
                keep: limits.min_align,
                most: usize::try_from(most).unwrap_or(usize::MAX),
            })
        };
        let base = pools.iter().map(|pool| pool.range.base()).min();
        let last = pools.iter().map(|pool| pool.range.last()).max();
        let around = base
            .zip(last)
            .and_then(|(base, last)| PhysRange::new(base, last.offset_from(base)?.checked_add(1)?));
        let lines = Kind::ALL.map(line);
        let counted = lines.iter().flatten().map(|verdict| verdict.pool).next();
        Self { lines, pools: around, last: regime.memory_limit().raw(), counted }
    }

    /// Whether memory may be looked up in the table: it lies in no pool, and is an address of the
    /// machine.
    #[inline]
    pub(super) fn covers(&self, range: PhysRange) -> bool {
        range.last().raw() <= self.last && self.pools.is_some_and(|pools| !pools.overlaps(range))
    }

    /// The verdict about a map of `len` bytes (not 0) of this kind.
    #[inline]
    pub(super) fn about(&self, kind: Kind, len: usize) -> Option<&Verdict> {
        let line = self.lines.get(kind as usize)?.as_ref();
        line.filter(|verdict| len <= verdict.most)
    }

    /// The pool whose turns the device's counters go by.
    #[inline]
    pub(super) fn pool(&self) -> Option<usize> {
        self.counted
    }
}
