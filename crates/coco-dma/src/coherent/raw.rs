//! The raw form of an allocation: a pointer into memory that the device may write at any time.
// UNSAFETY: raw memory that a device writes behind the compiler's back.
#![expect(unsafe_code)]

use core::convert::Infallible;
use core::ptr::NonNull;

use super::AllocError;
use super::AllocSize;
use super::FreeError;
use super::NotFreed;
use crate::addr::DmaAddr;
use crate::addr::PhysRange;
use crate::addr::SLOT;
use crate::attrs::Attrs;
use crate::device::Device;
use crate::iommu::Fit;
use crate::iommu::Mapped;
use crate::ledger::Pin;
use crate::observe::Event;
use crate::plan;
use crate::plan::AllocKind;
use crate::plan::AllocPlan;
use crate::plan::AllocRequest;
use crate::plan::OwnPages;
use crate::platform::CpuView;
use crate::platform::Platform;
use crate::pool::Owner;
use crate::pool::SlotRun;
use crate::reason::Refuse;
use crate::shared::SharedBytes;
use crate::state::CacheMode;
use crate::state::Context;
use crate::state::Direction;
use crate::state::State;

/// Allocations are multiples of this, in bytes.
pub(super) const PAGE: u64 = 4096;

/// The record of one allocation: what it was taken from and what the device was given. Freeing
/// uses this record and asks nobody again.
#[derive(Debug)]
#[must_use = "memory that is not freed is lost"]
pub struct RawCoherent {
    pub(super) owner: Owner,
    pub(super) addr: DmaAddr,
    /// Its own view, or a part of its pool's.
    pub(super) view: CpuView,
    pub(super) len: usize,
    pub(super) source: Source,
    pub(super) made: AllocInfo,
    /// What it holds in the device's domain.
    pub(super) mapped: Option<Mapped>,
}

// SAFETY: the record only carries the pointer; whoever uses it answers for it.
unsafe impl Send for RawCoherent {}

/// What an allocation was asked for as, and how the CPU is to see it.
#[derive(Clone, Copy, Debug)]
pub(super) struct AllocOptions {
    pub(super) kind: AllocKind,
    pub(super) context: Context,
    pub(super) attrs: Attrs,
    pub(super) cache: CacheMode,
}

/// What an allocation was made as: its CPU mappings depend on it.
#[derive(Clone, Copy, Debug)]
pub(super) struct AllocInfo {
    pub(super) options: AllocOptions,
    pub(super) state: State,
}

/// Whose memory it is, and with that who takes it back.
#[derive(Debug)]
pub(super) enum Source {
    /// Slots of the device's pool with this index: never converted here.
    Slots { pool: usize, run: SlotRun },
    /// Pages of our own: the state that we converted them to, if we did; pinned where their state
    /// could change.
    Pages { run: PhysRange, lent: Option<State>, pin: Option<Pin> },
}

/// What pages of `len` bytes count on a quota.
pub(super) fn slots_of(len: u64) -> usize {
    usize::try_from(len.div_ceil(SLOT)).unwrap_or(usize::MAX)
}

impl RawCoherent {
    /// The address for the device.
    pub fn addr(&self) -> DmaAddr {
        self.addr
    }

    /// The memory as the CPU sees it. The device may write it at any time: read and write it
    /// through the pointer, never through a reference.
    pub fn bytes(&self) -> NonNull<[u8]> {
        NonNull::slice_from_raw_parts(self.view.start, self.len)
    }

    /// The memory type of the pointer. Where it is not write-back the device does not see the
    /// caches, and whatever is written through the pointer is there for it at once, in order.
    pub fn cache(&self) -> CacheMode {
        self.made.options.cache
    }

    /// Whether freeing it converts memory, which atomic context must not.
    pub fn converts_on_free(&self) -> bool {
        matches!(self.source, Source::Pages { lent: Some(_), .. })
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
        unsafe { SharedBytes::new(self.view.start, self.len) }
    }
}

impl<P: Platform + ?Sized> Device<'_, P> {
    /// Allocates so many bytes that the device reaches, rounded up to pages of 4096 (to granules
    /// where pages have to be converted), zeroed. The address that the device is given is a multiple
    /// of the size rounded up to a power of two, or of more where that is asked for
    /// ([`AllocSize`]), so that no boundary of the device lies in it; what is longer than the boundary
    /// is refused (`too-large`). In atomic context nothing is converted and nothing blocks: the
    /// reserve serves.
    pub fn alloc_raw(
        &self,
        size: impl Into<AllocSize>,
        context: Context,
    ) -> Result<RawCoherent, AllocError> {
        self.alloc_as(size, AllocKind::Coherent, context, Attrs::NONE)
    }

    /// The same for memory of any kind, with the attributes that the kind takes. What is not
    /// coherent is synced by the driver ([`sync_alloc_for_device`](Self::sync_alloc_for_device)). Always one run, and
    /// always with a view for the CPU: it is zeroed through it. ([`alloc_scattered`](Self::alloc_scattered)
    /// takes several where the device sees them as one.)
    pub fn alloc_as(
        &self,
        size: impl Into<AllocSize>,
        kind: AllocKind,
        context: Context,
        attrs: Attrs,
    ) -> Result<RawCoherent, AllocError> {
        let size = size.into();
        let mut memory = self.try_alloc(size, kind, context, attrs).inspect(|memory| {
            self.count().allocated();
            // Its zeroes are out of the caches before the device could write.
            self.sync_alloc_for_device(memory, Direction::Both);
        });
        if self.dma().tells_maps() {
            memory = memory.map(|memory| self.tell_allocated(memory));
        }
        memory.map_err(|reason| self.refused_alloc(size.len, attrs, reason))
    }

    /// Counts a refusal, and tells it.
    pub(super) fn refused_alloc(&self, len: usize, attrs: Attrs, reason: Refuse) -> AllocError {
        self.count().refused();
        if !attrs.contains(Attrs::NO_WARN) {
            self.dma().notify(&Event::Refused { device: self.name(), len, reason });
        }
        AllocError { device: self.name().into(), reason, len }
    }

    /// What `plan` says to an allocation, and what is wished.
    pub(super) fn plan_alloc(
        &self,
        size: AllocSize,
        kind: AllocKind,
        context: Context,
        attrs: Attrs,
    ) -> Result<(AllocPlan<'_>, AllocOptions), Refuse> {
        if let Some(reason) = self.stopped() {
            return Err(reason);
        }
        let numbers = (u64::try_from(size.len), u64::try_from(size.align));
        let (Ok(len), Ok(align)) = numbers else { return Err(Refuse::InvalidRange) };
        let request = AllocRequest {
            kind,
            regime: self.regime(),
            device: self.info(),
            len,
            page: PAGE.max(self.iommu_page()),
            align,
            attrs,
            context,
            pages: self.dma().pages().is_some(),
            pools: self.pool_infos(),
        };
        let plan = plan::alloc(&request, &mut ())?;
        let options = AllocOptions { kind, context, attrs, cache: plan.cache };
        Ok((plan, options))
    }

    fn try_alloc(
        &self,
        size: AllocSize,
        kind: AllocKind,
        context: Context,
        attrs: Attrs,
    ) -> Result<RawCoherent, Refuse> {
        let (plan, options) = self.plan_alloc(size, kind, context, attrs)?;
        let own = |pages| self.alloc_pages(pages, options).map_err(|why| (why, None::<Infallible>));
        self.alloc_planned(plan, options, own).map_err(|(why, _)| why)
    }

    /// Memory from the first source of a plan that has it; `own` takes pages. Where that
    /// fails and something could not be given back, no other source is asked.
    pub(super) fn alloc_planned<T: From<RawCoherent>, K>(
        &self,
        plan: AllocPlan<'_>,
        options: AllocOptions,
        own: impl FnOnce(OwnPages) -> Result<T, (Refuse, Option<K>)>,
    ) -> Result<T, (Refuse, Option<K>)> {
        let extent = plan.extent;
        let reservoir = plan.reservoir.map(|pools| self.alloc_reservoir(pools, extent, options));
        let spared = match reservoir.transpose() {
            Ok(Some(memory)) => return Ok(memory.into()),
            Ok(None) => None,
            Err(why) => Some(why),
        };
        let why = match plan.pages.map(|pages| self.alloc_charged(pages, own)) {
            Some(Ok(memory)) => return Ok(memory),
            Some(Err((why, None))) => Some(why),
            Some(Err(kept)) => return Err(kept),
            None => None,
        };
        let slots = plan.pools.and_then(|pools| self.alloc_slots(pools, extent, options));
        slots.map(T::from).map_err(|pools| (plan::nothing_left(spared, why, pools), None))
    }

    /// Pages of our own by `own`, on the device's quota; who has not that much left takes none, and
    /// nothing is converted. What an error keeps stays on it, until its record is freed.
    fn alloc_charged<T, K>(
        &self,
        pages: OwnPages,
        own: impl FnOnce(OwnPages) -> Result<T, (Refuse, Option<K>)>,
    ) -> Result<T, (Refuse, Option<K>)> {
        let slots = slots_of(pages.len);
        if !self.charge_pages(slots) {
            return Err((Refuse::Quota, None));
        }
        let made = own(pages);
        if let Err((_, None)) = made {
            self.discharge_pages(slots);
        }
        made
    }

    /// Maps memory in the device's domain for both directions, out of the caches before, at a
    /// multiple of `align`.
    ///
    /// # Safety
    ///
    /// `range` is whole pages of the domain in this state, which they keep until they are
    /// unmapped; `bytes` is where the CPU sees it. The device may do with it what it likes.
    pub(super) unsafe fn expose_pages(
        &self,
        range: PhysRange,
        bytes: NonNull<[u8]>,
        (state, align): (State, u64),
    ) -> Result<(DmaAddr, Option<Mapped>), Refuse> {
        self.platform().sync_for_device(bytes, Direction::Both, !self.info().coherent);
        let entry = self.entry(Direction::Both, state, false);
        // SAFETY: this function's condition.
        let (addr, mapped) = unsafe { self.translate(range, Fit::Aligned(align), entry) }?;
        Ok((addr, Some(mapped)))
    }

    /// Frees an allocation of this device. Blocks where
    /// [`converts_on_free`](RawCoherent::converts_on_free) says so: then it is for blocking
    /// context only. Memory that cannot be taken back goes to quarantine.
    ///
    /// # Errors
    ///
    /// The memory, with which nothing happened: it is another device's, or the IOMMU could not
    /// unmap it ([`NotFreed::StillMapped`]).
    ///
    /// # Safety
    ///
    /// The device has stopped using it, and nobody uses the pointer any more.
    pub unsafe fn free_raw(&self, memory: RawCoherent) -> Result<(), FreeError<RawCoherent>> {
        let lent = self.dma().tells_maps().then(|| self.lent_alloc(&memory));
        // SAFETY: this function's condition.
        unsafe { self.free_untold(memory) }?;
        if let Some(lent) = lent {
            self.dma().notify(&Event::Freed(lent));
        }
        Ok(())
    }

    /// The same, of which no observer hears.
    ///
    /// # Safety
    ///
    /// As for [`free_raw`](Self::free_raw).
    pub(super) unsafe fn free_untold(
        &self,
        memory: RawCoherent,
    ) -> Result<(), FreeError<RawCoherent>> {
        // sabotage: allocation-of-another
        if memory.owner != self.owner() {
            return Err(FreeError { reason: NotFreed::NotThisDevice, memory });
        }
        // SAFETY: this function's condition.
        if let Err(error) = unsafe { self.untranslate(memory.mapped.as_ref()) } {
            return Err(FreeError { reason: NotFreed::StillMapped(error), memory });
        }
        let (view, len) = (memory.view, memory.len);
        match memory.source {
            Source::Slots { pool, run } => {
                // SAFETY: the record's memory, which by this function's condition nobody uses.
                unsafe { self.free_slots((view, len), pool, &run, memory.made.options.cache) };
            }
            // SAFETY: this function's condition.
            Source::Pages { run, lent, pin } => unsafe {
                self.free_pages((view, len), run, lent, pin); // sabotage: free-asks-device
                self.discharge_pages(slots_of(run.len()));
            },
        }
        self.count().freed();
        Ok(())
    }
}
