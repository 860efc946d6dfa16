//! Pools that grow and shrink by whole regions, converted in bulk.
// UNSAFETY: memory changes hands between its owner, the host and a pool.
#![expect(unsafe_code)]

use core::fmt;

use super::ConvertErrorKind;
use super::ConvertFailed;
use crate::addr::PhysRange;
use crate::copy::zero;
use crate::dma::Dma;
use crate::ledger::Pin;
use crate::plan;
use crate::platform::Platform;
use crate::pool::Pool;
use crate::state::Context;
use crate::state::PoolLabel;
use crate::state::PoolOrigin;
use crate::state::PoolUse;
use crate::state::State;

/// A pool that did not grow. The memory is as `Convert` says, or private and unused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum GrowFailed {
    /// It is open already.
    Open,
    /// Somebody else grows or shrinks it at this moment.
    Busy,
    /// Its label does not exist on this machine.
    Label(PoolLabel),
    /// Its region could not be shared.
    Convert(ConvertFailed),
    /// The CPU cannot be given a view of it; it was reclaimed, or is in quarantine where that
    /// failed.
    NoView,
}

/// A pool that did not shrink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ShrinkFailed {
    /// It was adopted: its memory is somebody else's.
    Adopted,
    /// It is closed already.
    Closed,
    /// Somebody else grows or shrinks it at this moment, or has a cache of it for itself
    /// ([`Pool::claim`]).
    Busy,
    /// Slots of it are in use; it goes on serving.
    InUse {
        /// How many.
        slots: usize,
    },
    /// Its region could not be reclaimed: what could is private, the rest is as told. The pool
    /// stays closed.
    Convert(ConvertFailed),
}

const BUSY: &str = "somebody else grows or shrinks the pool at this moment; look again";

impl fmt::Display for GrowFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open => f.write_str("the pool is open already"),
            Self::Busy => f.write_str(BUSY),
            Self::Label(label) => write!(f, "a {label} pool does not exist on this machine"),
            Self::Convert(failed) => write!(f, "the pool did not grow: {failed}"),
            Self::NoView => f.write_str("the pool did not grow: the CPU has no view of its region"),
        }
    }
}

impl fmt::Display for ShrinkFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Adopted => f.write_str("an adopted pool is not the layer's to give back"),
            Self::Closed => f.write_str("the pool is closed already"),
            Self::Busy => f.write_str(BUSY),
            Self::InUse { slots } => {
                write!(f, "{slots} slots of the pool are in use; finish their maps first")
            }
            Self::Convert(failed) => write!(f, "the pool's region was not reclaimed: {failed}"),
        }
    }
}

impl core::error::Error for GrowFailed {}
impl core::error::Error for ShrinkFailed {}

impl<P: Platform + ?Sized> Dma<'_, P> {
    /// Opens a pool made by [`Pool::convertible`]: converts its whole region, once, and lets every
    /// device that has the pool use it from then on. A failure leaves the pool closed; there is no
    /// falling back to another one. Blocks.
    pub fn grow(&self, pool: &Pool<'_>) -> Result<(), GrowFailed> {
        if pool.is_open() {
            return Err(GrowFailed::Open);
        }
        let _turn = pool.change().ok_or(GrowFailed::Busy)?;
        if pool.is_open() {
            return Err(GrowFailed::Open);
        }
        let (run, label) = (pool.range(), pool.label());
        let state = plan::state_of(self.regime(), label).ok_or(GrowFailed::Label(label))?;
        // sabotage: grow-without-share
        if state == State::SHARED {
            // SAFETY: the region is the pool's by the condition of `convertible`.
            unsafe { self.share(run) }.map_err(GrowFailed::Convert)?;
        }
        // While the pool is open its memory is pinned: nobody converts it but `shrink`. And what
        // the books call something else than the label is no pool.
        let pin = match state {
            State::Guest(visibility) => {
                Some(self.ledger().pin(run, visibility).map_err(|why| {
                    let (why, to) = (ConvertErrorKind::Ledger(why), visibility);
                    GrowFailed::Convert(ConvertFailed {
                        run,
                        to,
                        why,
                        converted: 0,
                        quarantined: 0,
                    })
                })?)
            }
            _ => None,
        };
        let cache = plan::POOL_CACHE;
        // SAFETY: the memory is in this state, and the view ends when the pool is shrunk.
        let view = unsafe { self.platform().map_cpu(run, state, cache, Context::Blocking) };
        let Ok(view) = view else {
            if let Some(pin) = pin {
                self.ledger().unpin(pin);
            }
            if state == State::SHARED {
                // SAFETY: nobody was given any of it.
                let _ = unsafe { self.take_back_or_lose(run, State::SHARED) };
            }
            return Err(GrowFailed::NoView);
        };
        if state != State::SHARED {
            // SAFETY: the view is writable for the whole region, which nobody else uses.
            unsafe { zero(view.start.as_ptr(), pool.len()) };
        }
        // SAFETY: the view is readable and writable; nobody else uses the region.
        if unsafe { pool.open(view) } { Ok(()) } else { Err(GrowFailed::Open) }
    }

    /// Grows the reserve for atomic context by the first of the machine's pools that is kept for
    /// it and closed; where all are open, and no more than a quarter of the reservoir for coherent
    /// memory is free, grows that likewise; one that does not open is passed over. `None` where nothing was to be done. Call it from
    /// blocking context when one of the two runs low
    /// ([`Event::LowWater`](crate::observe::Event::LowWater)). Blocks.
    pub fn refill(&self) -> Result<Option<PhysRange>, GrowFailed> {
        let kept_for = |purpose| self.pools().iter().filter(move |pool| pool.purpose() == purpose);
        let closed = |purpose| kept_for(purpose).filter(|pool| !pool.is_open());
        let next = closed(PoolUse::Reserve).next().or_else(|| {
            let open = || kept_for(PoolUse::Coherent).filter(|pool| pool.is_open());
            let free: usize = open().map(Pool::free).sum();
            let capacity: usize = open().map(Pool::capacity).sum();
            if free <= capacity / 4 { closed(PoolUse::Coherent).next() } else { None }
        });
        let Some(next) = next else { return Ok(None) };
        // A region that does not open keeps no other of its kind from being tried.
        let mut first = None;
        for pool in closed(next.purpose()) {
            match self.grow(pool) {
                Ok(()) => return Ok(Some(pool.range())),
                Err(failed) => _ = first.get_or_insert(failed),
            }
        }
        first.map_or(Ok(None), Err)
    }

    /// Gives back every region of the machine's reservoir for coherent memory of which nothing is in
    /// use; answers how many bytes that was. Stops at the first that does not come back. Blocks.
    pub fn trim(&self) -> Result<u64, ShrinkFailed> {
        let mut bytes = 0;
        for pool in self.pools().iter().filter(|pool| pool.purpose() == PoolUse::Coherent) {
            match self.shrink(pool) {
                Ok(()) => bytes += pool.range().len(),
                Err(failed @ ShrinkFailed::Convert(_)) => return Err(failed),
                Err(_) => {}
            }
        }
        Ok(bytes)
    }

    /// Gives the region of a pool made by [`Pool::convertible`] back to its owner: private, zero,
    /// and not the pool's any more until it grows again. Refused while a slot is in use. Blocks.
    pub fn shrink(&self, pool: &Pool<'_>) -> Result<(), ShrinkFailed> {
        // sabotage: adopted-reclaimed
        if pool.origin() == PoolOrigin::Adopted {
            return Err(ShrinkFailed::Adopted);
        }
        if !pool.is_open() {
            return Err(ShrinkFailed::Closed);
        }
        let _turn = pool.change().ok_or(ShrinkFailed::Busy)?;
        if !pool.is_open() {
            return Err(ShrinkFailed::Closed);
        }
        let Some(view) = pool.close() else {
            return Err(match pool.used() {
                // It is a CPU that keeps slots for itself.
                0 => ShrinkFailed::Busy,
                slots => ShrinkFailed::InUse { slots },
            });
        };
        let (run, shared) = (pool.range(), pool.label() == PoolLabel::GuestShared);
        if !shared {
            // SAFETY: the view is writable until it ends; the pool is closed, so that nobody uses
            // it.
            unsafe { zero(view.start.as_ptr(), pool.len()) };
        }
        // SAFETY: `grow` made the view, and nobody uses it any more.
        unsafe { self.platform().unmap_cpu(view, run) };
        if plan::converts_visibility(self.regime()) {
            self.ledger().unpin(Pin::of_pool(run));
        }
        // sabotage: shrink-without-reclaim
        if shared {
            // SAFETY: the region was the pool's alone, and nothing of it is in use.
            unsafe { self.reclaim(run) }.map_err(ShrinkFailed::Convert)?;
        }
        Ok(())
    }
}
