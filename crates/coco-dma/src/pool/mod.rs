//! Pools: memory that devices reach, in slots of 2 KiB, with all bookkeeping out of band.
//!
//! A pool is registered with its label; what it is never follows from the platform. The bitmap of
//! slots lies in words that the caller owns, never in the pool itself, and slots are given back
//! by the token that taking them returned, never by an address.

// UNSAFETY: adopting memory as a pool is a promise of the caller.
#![expect(unsafe_code)]

mod bytes;
mod error;
#[cfg(all(test, loom))]
mod models;
mod slot_alloc;
#[cfg(all(test, shuttle))]
mod stress;

pub use crate::slots::Cache;
pub use crate::slots::Full;
pub use crate::slots::HeldRun;
pub(crate) use crate::slots::Owner;
pub(crate) use crate::slots::Shape;
pub use crate::slots::SlotRun;
pub use error::PoolError;
pub(crate) use slot_alloc::CurrentCpu;
pub use slot_alloc::PoolHandle;
pub(crate) use slot_alloc::SlotAlloc;

use core::ptr::NonNull;

use crate::addr::PhysRange;
use crate::addr::SLOT;
use crate::plan::PoolInfo;
use crate::platform::CpuView;
use crate::slots::Slots;
use crate::state::PoolLabel;
use crate::state::PoolOrigin;
use crate::state::PoolUse;
use crate::waiters::CapacityListener;
use crate::waiters::Waiters;
use crate::waiters::Watch;
use crate::word::AtomicUsize;
use crate::word::Ordering;
use crate::word::Word;
use bytes::Bytes;

/// A pool of memory in one state.
#[derive(Debug)]
pub struct Pool<'m> {
    label: PoolLabel,
    origin: PoolOrigin,
    restricted: bool,
    purpose: PoolUse,
    node: Option<u16>,
    range: PhysRange,
    bytes: Bytes,
    slots: Slots<'m>,
    /// 1 while somebody grows or shrinks it.
    changing: AtomicUsize,
}

/// The turn of whoever grows or shrinks a pool; it ends when this is dropped.
#[derive(Debug)]
#[must_use = "the turn ends when this is dropped"]
pub(crate) struct ResizeGuard<'p>(&'p AtomicUsize);

impl Drop for ResizeGuard<'_> {
    fn drop(&mut self) {
        // Release: what was done in this turn happens before the next one.
        self.0.store(0, Ordering::Release);
    }
}

impl<'m> Pool<'m> {
    /// Words of storage that the bookkeeping of a pool of `len` bytes needs: for every slot of
    /// 2048 bytes a word and a bit, and a byte for every word of bits. That is 8.14 bytes a slot
    /// on a machine of 64 bits, 0.398 % of the pool (Linux 7.3: 24 bytes, 1.2 %). A [`Cache`] for
    /// each CPU comes on top, 384 bytes: with two of them, 0.399 % of a pool of 64 MiB.
    pub const fn words(len: u64) -> usize {
        Slots::words(len, SLOT)
    }

    /// A pool over memory that came in the state of its label and is never converted.
    ///
    /// The memory is as it is: what earlier owners left in it stays until a mapping overwrites
    /// it. `words` is storage for the bookkeeping alone; what it holds is overwritten.
    ///
    /// # Safety
    ///
    /// 1. `view` points to the whole of `range`, readable and writable, for `'m`.
    /// 2. The memory is in the state of the label, and stays so for `'m`.
    /// 3. Nothing but this pool uses the memory for `'m` (devices apart), and no reference to it
    ///    exists.
    /// 4. After `'m` the memory is not used for anything else before every device that was given
    ///    an address in it has stopped: a mapping may have been forgotten.
    pub unsafe fn adopt(
        label: PoolLabel,
        range: PhysRange,
        view: NonNull<u8>,
        words: &'m [Word],
    ) -> Result<Self, PoolError> {
        // What is left of the last slot is out of use, and no part of the pool.
        let whole = range.len() & !(SLOT - 1);
        let range = PhysRange::new(range.base(), whole).ok_or(PoolError::TooSmall)?;
        let len = usize::try_from(whole).map_err(|_| PoolError::TooLarge)?;
        let slots = Slots::new(whole, SLOT, words)?;
        let bytes = Bytes::new(len);
        // SAFETY: conditions 1 and 3 of this function are those of `set`.
        let _ = unsafe { bytes.set(view.into()) };
        slots.open();
        Ok(Self {
            label,
            origin: PoolOrigin::Adopted,
            restricted: false,
            purpose: PoolUse::All,
            node: None,
            range,
            bytes,
            slots,
            changing: AtomicUsize::new(0),
        })
    }

    /// A pool over memory of our own that is private yet: it is full until the layer converts the
    /// whole region and opens it ([`Dma::grow`](crate::Dma::grow)), and can be given back
    /// while nothing of it is in use ([`Dma::shrink`](crate::Dma::shrink)).
    ///
    /// # Safety
    ///
    /// While the pool is open (from the call of `grow` to the end of `shrink`) nothing but this
    /// pool uses the memory, and no reference to it exists. Besides `grow`, [`Dma::refill`] opens
    /// pools of the reserve and of the reservoir, and so does any allocation from blocking context
    /// one of the reservoir ([`PoolUse::Coherent`]).
    ///
    /// [`Dma::refill`]: crate::Dma::refill
    pub unsafe fn convertible(
        label: PoolLabel,
        range: PhysRange,
        words: &'m [Word],
    ) -> Result<Self, PoolError> {
        let whole = range.len() & !(SLOT - 1);
        let range = PhysRange::new(range.base(), whole).ok_or(PoolError::TooSmall)?;
        let len = usize::try_from(whole).map_err(|_| PoolError::TooLarge)?;
        let slots = Slots::new(whole, SLOT, words)?;
        let origin = PoolOrigin::ConvertedAtAttach;
        Ok(Self {
            label,
            origin,
            restricted: false,
            purpose: PoolUse::All,
            node: None,
            range,
            bytes: Bytes::new(len),
            slots,
            changing: AtomicUsize::new(0),
        })
    }

    /// The turn to grow or shrink the pool; `None` while somebody else has it.
    pub(crate) fn change(&self) -> Option<ResizeGuard<'_>> {
        // Acquire: pairs with the end of the last turn.
        let turn =
            self.changing.compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed).is_ok();
        turn.then(|| ResizeGuard(&self.changing))
    }

    /// Its length in bytes, whole slots.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Opens a pool that is closed, over these bytes; false where somebody else opened it first.
    ///
    /// # Safety
    ///
    /// As for [`adopt`](Self::adopt), until [`close`](Self::close).
    pub(crate) unsafe fn open(&self, view: CpuView) -> bool {
        // SAFETY: conditions 1 and 3.
        let opened = unsafe { self.bytes.set(view) };
        if opened {
            self.slots.open();
        }
        opened
    }

    /// Closes the pool, where nothing of it is in use; answers how its bytes were
    /// seen.
    pub(crate) fn close(&self) -> Option<CpuView> {
        if self.is_open() && self.slots.close() { self.bytes.unset() } else { None }
    }

    /// Whether the pool has memory to give.
    pub fn is_open(&self) -> bool {
        self.bytes.is_set()
    }

    /// The same pool with a cache for each CPU: a map then takes slots that its CPU keeps, and one
    /// atomic step is all that it does besides. Without caches every map goes to the bitmap. One
    /// cache for each number that [`Platform::cpu`](crate::platform::Platform::cpu) answers is
    /// best; fewer are shared. A pool of fewer than 256 slots a cache keeps nothing.
    ///
    /// Call it before the pool is used.
    #[must_use]
    pub fn with_caches(self, caches: &'m [Cache]) -> Self {
        Self { slots: self.slots.with_caches(caches), ..self }
    }

    /// The same for a pool of any size: for tests, most of whose pools are too small to keep any.
    #[doc(hidden)]
    #[must_use]
    pub fn with_caches_however_small(self, caches: &'m [Cache]) -> Self {
        Self { slots: self.slots.with_ways(caches, 1), ..self }
    }

    /// The same pool with a listener, who is told when there may be space again for those who
    /// asked. Call it before the pool is used.
    #[must_use]
    pub fn with_listener(self, listener: &'m dyn CapacityListener) -> Self {
        Self { slots: self.slots.with_listener(listener), ..self }
    }

    /// Asks that the listener be told when there may be space in this pool again: see
    /// [`Device::watch_capacity`](crate::device::Device::watch_capacity). Never blocks; any context;
    /// takes time in the number of caches.
    ///
    /// What somebody keeps by a [`PoolHandle`] counts as in use: it comes with the handle's next
    /// give after the asking, or with its end. Slots that were only tried and given back, as
    /// [`capacity_for`](crate::device::Device::capacity_for) does, are told of like all others.
    pub fn watch_capacity(&self) -> Watch {
        self.slots.watch()
    }

    /// Those who wait for its slots.
    pub(crate) fn waiters(&self) -> &Waiters<'m> {
        self.slots.waiters()
    }

    /// The same pool as the only memory that its devices may touch.
    #[must_use]
    pub fn restricted(self) -> Self {
        Self { restricted: true, ..self }
    }

    /// The same pool for this use alone.
    #[must_use]
    pub fn only_for(self, purpose: PoolUse) -> Self {
        Self { purpose, ..self }
    }

    /// The same pool with its memory on this NUMA node: among pools that suit alike, a device tries
    /// those of its own node first.
    #[must_use]
    pub fn on_node(self, node: u16) -> Self {
        Self { node: Some(node), ..self }
    }

    /// What it is for.
    pub fn purpose(&self) -> PoolUse {
        self.purpose
    }

    /// The pool as a decision sees it.
    pub fn info(&self) -> PoolInfo {
        PoolInfo {
            label: self.label,
            range: self.range,
            restricted: self.restricted,
            purpose: self.purpose,
            own: false,
            node: self.node,
        }
    }

    /// What its memory is.
    pub fn label(&self) -> PoolLabel {
        self.label
    }

    /// How its memory came into that state.
    pub fn origin(&self) -> PoolOrigin {
        self.origin
    }

    /// Whether it is the only memory that its devices may touch.
    pub fn is_restricted(&self) -> bool {
        self.restricted
    }

    /// Where its memory lies.
    pub fn range(&self) -> PhysRange {
        self.range
    }

    /// Slots in all.
    pub fn capacity(&self) -> usize {
        self.slots.capacity()
    }

    /// Slots in use now; while other threads take and give, the number of some moment.
    pub fn used(&self) -> usize {
        self.slots.used()
    }

    /// Slots that are free now; none while the pool is closed.
    pub fn free(&self) -> usize {
        if self.is_open() { self.capacity().saturating_sub(self.used()) } else { 0 }
    }

    /// The most slots that were ever in use at once; what CPUs only keep for their next maps is not
    /// in use. Exact in a pool without caches. With them nobody counts what a CPU takes of what it
    /// keeps: it is looked whenever more of the bitmap is out than ever before, and whenever
    /// [`used`](Self::used), [`free`](Self::free) or this is asked. So it is too low by what the
    /// CPUs keep, at most.
    pub fn high_water(&self) -> usize {
        self.slots.high_water()
    }

    /// Whether slots are still their holder's.
    pub(crate) fn holds(&self, run: &SlotRun) -> bool {
        self.slots.holds(run)
    }

    /// The runs of slots that are held, lowest first; while others take and give, what it passes
    /// at that moment.
    pub fn held(&self) -> impl Iterator<Item = HeldRun> {
        self.slots.held()
    }

    /// Slots that an owner holds.
    pub(crate) fn held_by(&self, owner: Owner) -> usize {
        self.slots.held_by(owner)
    }

    /// Frees all slots of an owner; answers how many.
    pub(crate) fn revoke(&self, owner: Owner) -> usize {
        self.slots.revoke(owner)
    }

    /// The bytes of the pool.
    #[inline]
    pub(crate) fn bytes(&self) -> &Bytes {
        &self.bytes
    }
}
