//! How slots of a pool are taken and given back: from any CPU, or by one that has its cache for
//! itself.
// UNSAFETY: slots that are given back to a pool that they are not of would be somebody else's.
#![expect(unsafe_code)]

use super::Full;
use super::Owner;
use super::Pool;
use super::SlotRun;
use crate::addr::Constraints;
use crate::addr::Placements;
use crate::platform::Platform;
use crate::slots::CacheGuard;
use crate::slots::Shape;

/// Whoever takes slots for the maps of a device.
pub(crate) trait SlotAlloc {
    /// Takes a free run of slots at one of `places`: the lowest, but for what the CPU has at hand.
    /// Never waits; a run that another thread takes meanwhile is passed over.
    fn alloc(
        &mut self,
        pool: &Pool<'_>,
        places: &Placements,
        owner: Owner,
    ) -> Result<SlotRun, Full>;

    /// Takes a run of this shape if that is quickly done, and then calls `then` with the number of
    /// the cache whose turn this is, if it is anyone's. `None` says nothing but that the other way is to be taken.
    fn alloc_fast(
        &mut self,
        pool: &Pool<'_>,
        shape: &Shape,
        owner: Owner,
        then: impl FnOnce(Option<usize>),
    ) -> Option<SlotRun>;

    /// Gives slots of this pool back. False where they were revoked before: they are not the
    /// holder's any more. In any case calls `then` with the number of the cache whose turn this
    /// is, if it is anyone's.
    fn free(&mut self, pool: &Pool<'_>, run: &SlotRun, then: impl FnOnce(Option<usize>)) -> bool;
}

/// Code that runs on whatever CPU the platform says.
#[derive(Clone, Copy)]
pub(crate) struct CurrentCpu<'p, P: Platform + ?Sized>(pub(crate) &'p P);

impl<P: Platform + ?Sized> SlotAlloc for CurrentCpu<'_, P> {
    #[inline]
    fn alloc(
        &mut self,
        pool: &Pool<'_>,
        places: &Placements,
        owner: Owner,
    ) -> Result<SlotRun, Full> {
        pool.slots.alloc(self.0.cpu(), places, owner)
    }

    #[inline]
    fn alloc_fast(
        &mut self,
        pool: &Pool<'_>,
        shape: &Shape,
        owner: Owner,
        then: impl FnOnce(Option<usize>),
    ) -> Option<SlotRun> {
        match pool.slots.enter(self.0.cpu()) {
            Some(mut turn) => {
                let run = pool.slots.alloc_fast(&mut turn, shape, owner)?;
                then(Some(turn.number()));
                Some(run)
            }
            None => {
                let run = pool.slots.alloc_fast_shared(shape, owner)?;
                then(None);
                Some(run)
            }
        }
    }

    #[inline]
    fn free(&mut self, pool: &Pool<'_>, run: &SlotRun, then: impl FnOnce(Option<usize>)) -> bool {
        match pool.slots.enter(self.0.cpu()) {
            Some(mut turn) => {
                then(Some(turn.number()));
                pool.slots.free_with(&mut turn, run)
            }
            None => {
                then(None);
                pool.slots.free_shared(run)
            }
        }
    }
}

/// A cache of a pool for one user alone, a CPU or a queue: its maps take and give slots without an
/// atomic step. What it keeps (2 MiB at most in short runs and one long one of 2 MiB at most, and of
/// either no more than its share of a quarter of the pool) nobody else can have before it is dropped;
/// who waits for space ([`Pool::watch_capacity`]) has it at the handle's next give.
///
/// ```
/// # use coco_dma::pool::Pool;
/// # fn show(pool: &Pool<'_>) {
/// let Some(mut mine) = pool.claim(0) else { return };
/// // device.map_raw_with(&mut mine, …), device.unmap_raw_with(&mut mine, …)
/// # let _ = &mut mine;
/// # }
/// ```
#[derive(Debug)]
pub struct PoolHandle<'p> {
    pool: &'p Pool<'p>,
    turn: CacheGuard<'p>,
}

impl<'m> Pool<'m> {
    /// The cache with this number, for the caller alone, until the handle is dropped. `None` while
    /// somebody else uses it, and where the pool has no caches. Any context.
    pub fn claim(&self, cpu: usize) -> Option<PoolHandle<'_>> {
        Some(PoolHandle { turn: self.slots.claim(cpu)?, pool: self })
    }

    /// Takes slots by hand, for whoever builds something else than a device's maps on the pool:
    /// the bytes are the taker's at [`SlotRun::offset`] from the start of the pool until they are
    /// given back. What the constraints say of addresses is meant of physical ones. A wrong `cpu` costs
    /// speed and nothing else. Never waits; any context.
    #[inline]
    pub fn alloc_raw(&self, cpu: usize, constraints: &Constraints) -> Result<SlotRun, Full> {
        match self.slots.enter(cpu) {
            Some(mut turn) => self.alloc_cached(&mut turn, constraints),
            None => self.slots.alloc(cpu, &self.places(constraints)?, Owner::BY_HAND),
        }
    }

    /// The same for whoever has the turn.
    #[inline]
    fn alloc_cached(
        &self,
        turn: &mut CacheGuard<'_>,
        constraints: &Constraints,
    ) -> Result<SlotRun, Full> {
        let owner = Owner::BY_HAND;
        if constraints.align == 1
            && constraints.boundary.is_none()
            && let Ok(len) = usize::try_from(constraints.len)
            && let base = self.range.base().raw()
            && let Some(shape) = Shape::keeping(base, len, constraints.original, constraints.keep)
        {
            let run = self.slots.alloc_fast(turn, &shape, owner);
            return run.ok_or(Full).or_else(|Full| self.alloc_uncached(turn, constraints));
        }
        self.slots.alloc_with(turn, &self.places(constraints)?, owner)
    }

    /// What is in no single word.
    #[inline(never)]
    fn alloc_uncached(
        &self,
        turn: &mut CacheGuard<'_>,
        constraints: &Constraints,
    ) -> Result<SlotRun, Full> {
        self.slots.alloc_slow(turn, &self.places(constraints)?, Owner::BY_HAND)
    }

    /// The places that meet constraints.
    fn places(&self, constraints: &Constraints) -> Result<Placements, Full> {
        Placements::new(self.range.base().raw(), self.range.len(), constraints).ok_or(Full)
    }

    /// Gives back what was taken by hand; false, and nothing happens, where the slots are not held
    /// as this run. Any context.
    ///
    /// # Safety
    ///
    /// The run was taken from this pool by [`alloc_raw`](Self::alloc_raw) or
    /// [`PoolHandle::alloc_raw`], and nobody uses its bytes any more.
    #[inline]
    pub unsafe fn free_raw(&self, cpu: usize, run: SlotRun) -> bool {
        self.slots.free(cpu, &run)
    }
}

impl PoolHandle<'_> {
    /// The pool.
    pub fn pool(&self) -> &Pool<'_> {
        self.pool
    }

    /// As [`Pool::alloc_raw`].
    #[inline]
    pub fn alloc_raw(&mut self, constraints: &Constraints) -> Result<SlotRun, Full> {
        self.pool.alloc_cached(&mut self.turn, constraints)
    }

    /// As [`Pool::free_raw`].
    ///
    /// # Safety
    ///
    /// The same.
    #[inline]
    pub unsafe fn free_raw(&mut self, run: SlotRun) -> bool {
        self.pool.slots.free_with(&mut self.turn, &run)
    }

    /// Whether this is a handle of `pool`.
    #[inline]
    fn is_of(&self, pool: &Pool<'_>) -> bool {
        core::ptr::eq(core::ptr::from_ref(self.pool).cast::<u8>(), core::ptr::from_ref(pool).cast())
    }
}

impl Drop for PoolHandle<'_> {
    fn drop(&mut self) {
        self.pool.slots.unclaim(&mut self.turn);
    }
}

impl SlotAlloc for PoolHandle<'_> {
    #[inline]
    fn alloc(
        &mut self,
        pool: &Pool<'_>,
        places: &Placements,
        owner: Owner,
    ) -> Result<SlotRun, Full> {
        if self.is_of(pool) {
            pool.slots.alloc_with(&mut self.turn, places, owner)
        } else {
            pool.slots.alloc(self.turn.number(), places, owner)
        }
    }

    #[inline]
    fn alloc_fast(
        &mut self,
        pool: &Pool<'_>,
        shape: &Shape,
        owner: Owner,
        then: impl FnOnce(Option<usize>),
    ) -> Option<SlotRun> {
        if !self.is_of(pool) {
            return None;
        }
        let run = pool.slots.alloc_fast(&mut self.turn, shape, owner)?;
        then(Some(self.turn.number()));
        Some(run)
    }

    #[inline]
    fn free(&mut self, pool: &Pool<'_>, run: &SlotRun, then: impl FnOnce(Option<usize>)) -> bool {
        if self.is_of(pool) {
            then(Some(self.turn.number()));
            pool.slots.free_with(&mut self.turn, run)
        } else {
            then(None);
            pool.slots.free(self.turn.number(), run)
        }
    }
}
