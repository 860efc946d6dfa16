//! The raw form of an allocation: a pointer into memory that the device may write at any time.
// UNSAFETY: raw memory that a device writes behind the compiler's back.
#![expect(unsafe_code)]

use core::fmt;
use core::ptr::NonNull;

use crate::addr::DmaAddr;
use crate::addr::PhysRange;
use crate::attrs::Attrs;
use crate::device::Device;
use crate::iommu::Mapped;
use crate::ledger::Pin;
use crate::name::Name;
use crate::observe::Event;
use crate::plan;
use crate::plan::AllocRequest;
use crate::plan::Candidates;
use crate::platform::Platform;
use crate::pool::Hand;
use crate::pool::Owner;
use crate::pool::SlotRun;
use crate::reason::Refuse;
use crate::shared::SharedBytes;
use crate::state::Context;
use crate::state::Direction;
use crate::state::PoolUse;
use crate::state::State;

/// Allocations are multiples of this, in bytes, and aligned to it.
pub(super) const PAGE: u64 = 4096;

/// The record of one allocation: what it was taken from and what the device was given. Freeing
/// uses this record and asks nobody again.
#[derive(Debug)]
#[must_use = "memory that is not freed is lost"]
pub struct RawCoherent {
    pub(super) owner: Owner,
    pub(super) addr: DmaAddr,
    pub(super) start: NonNull<u8>,
    pub(super) len: usize,
    pub(super) source: Source,
    /// What it holds in the device's domain.
    pub(super) mapped: Option<Mapped>,
}

// SAFETY: the record only carries the pointer; whoever uses it answers for it.
unsafe impl Send for RawCoherent {}

/// Whose memory it is, and with that who takes it back.
#[derive(Debug)]
pub(super) enum Source {
    /// Slots of the device's pool with this index: never converted here.
    Slots { pool: usize, run: SlotRun },
    /// Pages of our own, converted by us if they were, and pinned where their state could change.
    Pages { run: PhysRange, converted: bool, pin: Option<Pin> },
}

impl RawCoherent {
    /// The address for the device.
    pub fn addr(&self) -> DmaAddr {
        self.addr
    }

    /// The memory as the CPU sees it. The device may write it at any time: read and write it
    /// through the pointer, never through a reference.
    pub fn bytes(&self) -> NonNull<[u8]> {
        NonNull::slice_from_raw_parts(self.start, self.len)
    }

    /// Whether freeing it converts memory, which atomic context must not.
    pub fn converts_on_free(&self) -> bool {
        matches!(self.source, Source::Pages { converted: true, .. })
    }

    /// The memory as safe code may look at it.
    ///
    /// # Safety
    ///
    /// 1. The device that allocated it is still there, and the pool with it: the record alone
    ///    does not keep them.
    /// 2. Nobody uses the pointer of [`bytes`](Self::bytes) meanwhile, but from this thread and
    ///    without references.
    pub unsafe fn shared_bytes(&self) -> SharedBytes<'_> {
        // SAFETY: 1: the pool's memory is there while the device is, the slots are this record's
        // while it is borrowed, and were zeroed. 2: references would be against condition 2 here
        // and those of `Pool::adopt`. 3: the record is not `Sync`, so that nobody else can ask.
        unsafe { SharedBytes::new(self.start, self.len) }
    }
}

/// An allocation that was refused. Nothing was changed and nothing is held, but for what a failed
/// conversion put into quarantine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AllocError {
    /// The device's name.
    pub device: Name,
    /// Why.
    pub reason: Refuse,
    /// Bytes asked for.
    pub len: usize,
}

impl fmt::Display for AllocError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { device, reason, len } = self;
        write!(f, "{device}: an allocation of {len} bytes was refused ({reason}): ")?;
        write!(f, "{}; {}", reason.text(), reason.way_out())
    }
}

impl core::error::Error for AllocError {}

impl<P: Platform + ?Sized> Device<'_, P> {
    /// Allocates `len` bytes that the device reaches, rounded up to pages of 4096 (to granules
    /// where pages have to be converted) and aligned to one, zeroed. In atomic context nothing is
    /// converted and nothing blocks: the reserve serves.
    pub fn alloc_raw(&self, len: usize, context: Context) -> Result<RawCoherent, AllocError> {
        let memory = self.try_alloc(len, context).inspect(|_| self.count().allocated());
        memory.map_err(|reason| {
            self.count().refused();
            self.dma().tell(&Event::Refused { device: self.name(), len, reason });
            AllocError { device: self.name().into(), reason, len }
        })
    }

    fn try_alloc(&self, len: usize, context: Context) -> Result<RawCoherent, Refuse> {
        if let Some(reason) = self.stopped() {
            return Err(reason);
        }
        let page = PAGE.max(self.iommu_page());
        let asked = u64::try_from(len).ok().and_then(|len| len.checked_next_multiple_of(page));
        let whole = asked.filter(|whole| *whole > 0).ok_or(Refuse::InvalidRange)?;
        let request = AllocRequest {
            regime: self.regime(),
            device: self.face(),
            len: whole,
            align: page,
            attrs: Attrs::NONE,
            context,
            pages: self.dma().pages().is_some(),
            pools: self.pool_faces(),
        };
        let plan = plan::alloc(&request, &mut ())?;
        if let Some(memory) = plan.reservoir.and_then(|pools| self.take_reservoir(pools, whole)) {
            return Ok(memory);
        }
        if let Some(memory) = plan.pages.and_then(|pages| self.take_pages(pages, whole, context)) {
            return Ok(memory);
        }
        self.take_slots(plan.pools?, whole)
    }

    /// Slots of the first pool that has them.
    pub(super) fn take_slots(
        &self,
        pools: Candidates<'_>,
        whole: u64,
    ) -> Result<RawCoherent, Refuse> {
        let (mut why, mut hand) = (Refuse::PoolFull, self.hand());
        for candidate in pools {
            let index = candidate.index;
            let Some(pool) = self.pool(index) else { continue };
            let owner = self.owner().allocating();
            let places = &candidate.places;
            let Ok(count) = usize::try_from(places.slots_at(places.lowest())) else { continue };
            // Who has no quota left does not even look for slots.
            if !self.charge(count) {
                return Err(Refuse::Quota);
            }
            let Ok(run) = hand.take(pool, places, owner) else {
                self.discharge(count);
                continue;
            };
            let offset = run.offset();
            let len = usize::try_from(whole).unwrap_or(0);
            let Some(start) = pool.bytes().at(offset, len) else {
                self.discharge(run.count());
                hand.give(pool, &run, |_| ());
                continue;
            };
            // SAFETY: the slots are ours.
            unsafe { pool.bytes().zero(offset, len) };
            let bytes = NonNull::slice_from_raw_parts(start, len);
            let found = match (candidate.base, u64::try_from(offset).ok()) {
                (Some(base), Some(at)) => base.checked_add(at).map(|addr| (addr, None)),
                (None, Some(at)) => pool.range().slice(at, whole).and_then(|range| {
                    // SAFETY: a pool's memory keeps its state while slots of it are held, and the
                    // slots are ours.
                    let found = unsafe { self.expose_pages(range, bytes, candidate.state) };
                    found.map_err(|reason| why = reason).ok()
                }),
                _ => None,
            };
            let Some((addr, mapped)) = found else {
                self.discharge(run.count());
                hand.give(pool, &run, |_| ());
                continue;
            };
            if matches!(pool.purpose(), PoolUse::Reserve | PoolUse::Coherent) {
                let (free, capacity) = (pool.free(), pool.capacity());
                if free < capacity.div_ceil(4) {
                    self.dma().tell(&Event::LowWater { free, capacity });
                }
            }
            let source = Source::Slots { pool: index, run };
            return Ok(RawCoherent { owner: self.owner(), addr, start, len, source, mapped });
        }
        Err(why)
    }

    /// Maps memory in the device's domain for both directions, out of the caches before.
    ///
    /// # Safety
    ///
    /// `range` is whole pages of the domain in this state, which they keep until they are
    /// unmapped; `bytes` is where the CPU sees it. The device may do with it what it likes.
    pub(super) unsafe fn expose_pages(
        &self,
        range: PhysRange,
        bytes: NonNull<[u8]>,
        state: State,
    ) -> Result<(DmaAddr, Option<Mapped>), Refuse> {
        self.platform().hand_over(bytes, Direction::Both, !self.face().coherent);
        let entry = self.entry(Direction::Both, state, false);
        // SAFETY: this function's condition.
        let (addr, mapped) = unsafe { self.translate(range, 0, entry) }?;
        Ok((addr, Some(mapped)))
    }

    /// Frees an allocation of this device; another device's comes back. Blocks where
    /// [`converts_on_free`](RawCoherent::converts_on_free) says so: then it is for blocking
    /// context only. Memory that cannot be taken back goes to quarantine; memory that an IOMMU cannot
    /// unmap is kept for good, and observers are told.
    ///
    /// # Safety
    ///
    /// The device has stopped using it, and nobody uses the pointer any more.
    pub unsafe fn free_raw(&self, memory: RawCoherent) -> Result<(), RawCoherent> {
        if memory.owner != self.owner() {
            return Err(memory);
        }
        // SAFETY: this function's condition.
        if unsafe { self.untranslate(memory.mapped.as_ref()) }.is_err() {
            // The device may still reach it: it is nobody's any more.
            self.count().freed();
            return Ok(());
        }
        let bytes = memory.bytes();
        match memory.source {
            Source::Slots { pool, run } => {
                if self.pool(pool).is_some_and(|pool| self.hand().give(pool, &run, |_| ())) {
                    self.discharge(run.count());
                }
            }
            // SAFETY: this function's condition.
            Source::Pages { run, converted, pin } => unsafe {
                self.give_pages(bytes, run, converted, pin);
            },
        }
        self.count().freed();
        Ok(())
    }
}
