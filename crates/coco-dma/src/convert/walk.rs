//! Everything that is shared goes back: before another kernel takes over, and before the machine
//! sleeps. What has to stay is told, and the account says whether anything of ours is left.
// UNSAFETY: memory is taken from whoever uses it.
#![expect(unsafe_code)]

use core::fmt;

use super::ConvertFailed;
use super::ShrinkFailed;
use crate::addr::PhysAddr;
use crate::addr::PhysRange;
use crate::dma::Dma;
use crate::ledger::RangeState;
use crate::plan;
use crate::plan::KeepReason;
use crate::plan::WalkBack;
use crate::plan::WalkFace;
use crate::platform::Platform;
use crate::pool::Pool;
use crate::state::Memory;
use crate::state::PoolLabel;
use crate::state::PoolOrigin;
use crate::state::State;

/// What the host has of a guest's memory, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Shared, and nothing keeps it from being taken back. (After a walk: the host refused.)
    pub shared: u64,
    /// Shared in place with a device: maps, coherent memory that is alive, adopted pools of
    /// devices' own.
    pub pinned: u64,
    /// In pools of ours of which slots are in use.
    pub in_use: u64,
    /// In the middle of a conversion.
    pub converting: u64,
    /// In quarantine: nobody knows.
    pub quarantined: u64,
    /// In pools of the machine's that came shared.
    pub adopted: u64,
    /// Somebody else's, shared for good.
    pub foreign: u64,
}

impl Account {
    /// Whether nothing that was once private may be with the host. (What came shared does not
    /// count: it stays so for whoever comes next.)
    pub fn is_clean(&self) -> bool {
        let Self { shared, pinned, in_use, converting, quarantined, adopted: _, foreign: _ } = self;
        [shared, pinned, in_use, converting, quarantined].iter().all(|bytes| **bytes == 0)
    }

    fn add(&mut self, piece: &Piece<'_, '_>) {
        let bytes = match plan::walk_back(&piece.info) {
            WalkBack::Pass => return,
            WalkBack::Reclaim | WalkBack::Shrink => &mut self.shared,
            WalkBack::Keep(why) => match why {
                KeepReason::Adopted => &mut self.adopted,
                KeepReason::Foreign => &mut self.foreign,
                KeepReason::InUse => &mut self.in_use,
                KeepReason::Pinned => &mut self.pinned,
                KeepReason::Converting => &mut self.converting,
                KeepReason::Quarantined => &mut self.quarantined,
            },
        };
        *bytes = bytes.saturating_add(piece.run.len());
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { shared, pinned, in_use, converting, quarantined, adopted, foreign } = self;
        write!(f, "{shared:#x} bytes shared, {pinned:#x} pinned, {in_use:#x} in pools in use, ")?;
        write!(f, "{converting:#x} converting, {quarantined:#x} in quarantine; came shared: ")?;
        write!(f, "{adopted:#x} in pools, {foreign:#x} somebody else's")
    }
}

/// What a step of the walk came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Walked {
    /// This run is private and zero now.
    Reclaimed(PhysRange),
    /// A pool is closed, and its memory private and zero.
    Shrunk(PhysRange),
    /// This run stays with the host.
    Kept(PhysRange, KeepReason),
    /// This conversion failed; the walk goes on behind what failed.
    Failed(ConvertFailed),
}

/// A walk through everything that is shared: see [`Dma::walk_back`].
#[derive(Debug)]
#[must_use = "nothing is taken back but by its steps"]
pub struct Walk<'a, 'm, P: Platform + ?Sized> {
    dma: &'a Dma<'m, P>,
    pieces: Pieces<'a, 'm, P>,
}

impl<'m, P: Platform + ?Sized> Dma<'m, P> {
    /// Takes back everything that is shared, each piece once, telling what becomes of each; the
    /// answer is the [`account`](Self::account) after it. From the call on nothing is shared any
    /// more, until [`allow_sharing`](Self::allow_sharing). Blocks; asks for no more conversions than
    /// there are pools and granules.
    ///
    /// Idle pools that were converted are closed ([`shrink`](Self::shrink)), pools in use are told
    /// and so is what devices have, so that they can be stopped and the walk be called again.
    /// Memory in quarantine is told too: [`retry_quarantine`](Self::retry_quarantine) is what
    /// tries it. Pools and memory that came shared stay so.
    ///
    /// # Safety
    ///
    /// 1. As for [`reclaim`](Self::reclaim), of all memory that the ledger has as shared, that is
    ///    not pinned and lies in no pool of the machine's: nobody uses it, no reference points into
    ///    it, its contents are not needed, and its owners take it for private afterwards. (What the
    ///    walk itself needs, the pages by which the guest calls its hypervisor, is registered as
    ///    foreign or pinned, and its owner's to take back last.)
    /// 2. A pool that was adopted is the machine's, or has a device bound, or is not used again.
    /// 3. Nobody allocates or frees coherent memory meanwhile.
    pub unsafe fn reclaim_all(&self, mut tell: impl FnMut(Walked)) -> Account {
        let mut walk = self.walk_back();
        // SAFETY: this function's conditions.
        while let Some(walked) = unsafe { walk.step() } {
            tell(walked);
        }
        self.account()
    }

    /// The same in steps, for whoever must not stay away too long; stops all sharing. A walk that is
    /// dropped can be begun again: what is private is passed over.
    pub fn walk_back(&self) -> Walk<'_, 'm, P> {
        self.stop_sharing();
        Walk { dma: self, pieces: Pieces::new(self) }
    }

    /// What the host has now, by the books and the machine's pools. While others work, of no one
    /// moment; after [`walk_back`](Self::walk_back) a clean one stays so. Any context; takes time in
    /// the size of the ledger.
    pub fn account(&self) -> Account {
        let mut account = Account::default();
        Pieces::new(self).for_each(|piece| account.add(&piece));
        account
    }
}

impl<P: Platform + ?Sized> Walk<'_, '_, P> {
    /// The next piece that is not private, with at most one conversion; `None` at the end. Blocks.
    ///
    /// # Safety
    ///
    /// As for [`Dma::reclaim_all`].
    pub unsafe fn step(&mut self) -> Option<Walked> {
        loop {
            let Piece { run, info, pool } = self.pieces.next()?;
            return Some(match plan::walk_back(&info) {
                WalkBack::Pass => continue,
                WalkBack::Keep(why) => Walked::Kept(run, why),
                WalkBack::Shrink => match pool.map(|pool| self.dma.shrink(pool)) {
                    Some(Ok(())) => Walked::Shrunk(run),
                    Some(Err(ShrinkFailed::Convert(failed))) => self.behind(failed),
                    // Somebody took a slot, or grows or shrinks it.
                    _ => Walked::Kept(run, KeepReason::InUse),
                },
                // SAFETY: condition 1 of this function.
                WalkBack::Reclaim => match unsafe { self.dma.reclaim(run) } {
                    Ok(()) => Walked::Reclaimed(run),
                    Err(failed) => self.behind(failed),
                },
            });
        }
    }

    /// Goes on behind the granule that failed.
    fn behind(&mut self, failed: ConvertFailed) -> Walked {
        let lost = failed.quarantined.max(self.dma.regime().granule());
        let behind = failed.converted.saturating_add(lost).min(failed.run.len());
        self.pieces.at = failed.run.base().checked_add(behind);
        Walked::Failed(failed)
    }
}

/// A piece of memory, and the machine's pool that it is the memory of.
struct Piece<'a, 'm> {
    run: PhysRange,
    info: WalkFace,
    pool: Option<&'a Pool<'m>>,
}

/// All there is: the machine's adopted pools that are shared, and then what the ledger has beside
/// them. (Pools that convert come and go meanwhile: what they are is asked when the ledger comes to
/// their memory, so that what is in it is passed over by nobody.)
struct Pieces<'a, 'm, P: Platform + ?Sized> {
    dma: &'a Dma<'m, P>,
    pool: usize,
    /// Where the ledger goes on.
    at: Option<PhysAddr>,
}

impl<'a, 'm, P: Platform + ?Sized> Pieces<'a, 'm, P> {
    /// Memory is shared in guests alone.
    fn new(dma: &'a Dma<'m, P>) -> Self {
        let guest = plan::converts_visibility(dma.regime());
        let pool = if guest { 0 } else { usize::MAX };
        Self { dma, pool, at: guest.then_some(PhysAddr::new(0)) }
    }

    /// The machine's pools of shared memory.
    fn pools(&self) -> impl Iterator<Item = &'a Pool<'m>> + use<'a, 'm, P> {
        let dma = self.dma;
        let shared = |pool: &&Pool<'_>| pool.label() == PoolLabel::GuestShared;
        dma.pools().iter().filter(shared)
    }
}

impl<'a, 'm, P: Platform + ?Sized> Iterator for Pieces<'a, 'm, P> {
    type Item = Piece<'a, 'm>;

    fn next(&mut self) -> Option<Self::Item> {
        let of = |pool: &Pool<'_>, memory, pinned| WalkFace {
            memory,
            foreign: false,
            pinned,
            pool: Some(pool.origin()),
            used: pool.used() > 0,
        };
        while let Some(pool) = self.pools().nth(self.pool) {
            self.pool += 1;
            if pool.origin() == PoolOrigin::Adopted {
                let info = of(pool, Memory::Known(State::SHARED), false);
                return Some(Piece { run: pool.range(), info, pool: Some(pool) });
            }
        }
        loop {
            let extent = self.dma.ledger().extent_from(self.at?)?;
            let (start, len) = (extent.run.base(), extent.run.len());
            let holds = |pool: &&Pool<'_>| {
                let range = pool.range();
                range.base() <= start && start <= range.last()
            };
            let pool = self.pools().find(holds);
            // As far as the pool that it lies in, or to the next one.
            let end = match pool {
                Some(pool) => pool.range().last().offset_from(start)?.saturating_add(1),
                None => {
                    let to = |pool: &Pool<'_>| pool.range().base().offset_from(start);
                    self.pools().filter_map(to).min().unwrap_or(len)
                }
            };
            let run = extent.run.slice(0, end.min(len))?;
            self.at = run.last().checked_add(1);
            let memory = extent.seen.memory();
            let (info, pool) = match pool {
                // Told above.
                Some(pool) if pool.origin() == PoolOrigin::Adopted => continue,
                Some(pool) if pool.is_open() => (of(pool, memory, extent.pinned), Some(pool)),
                _ => {
                    let foreign = matches!(extent.seen, RangeState::Foreign(_));
                    let pinned = extent.pinned;
                    (WalkFace { memory, foreign, pinned, pool: None, used: false }, None)
                }
            };
            return Some(Piece { run, info, pool });
        }
    }
}

impl<P: Platform + ?Sized> fmt::Debug for Pieces<'_, '_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pieces").field("at", &self.at).finish_non_exhaustive()
    }
}
