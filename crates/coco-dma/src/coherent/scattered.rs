//! Allocations of which the device alone sees one run: pages from wherever there are some, one behind
//! the other in the addresses of its domain. Each run is converted, pinned and seen by itself; the
//! device is given all of them or none.
// UNSAFETY: pages change hands between their owner, the host and the device.
#![expect(unsafe_code)]

use core::fmt;
use core::ptr::NonNull;

use super::AllocError;
use super::AllocSize;
use super::FreeError;
use super::NotFreed;
use super::raw::AllocInfo;
use super::raw::RawCoherent;
use super::raw::slots_of;
use crate::addr::DmaAddr;
use crate::addr::PhysRange;
use crate::attrs::Attrs;
use crate::device::Device;
use crate::iommu::Mapped;
use crate::ledger::Pin;
use crate::plan::AllocKind;
use crate::platform::CpuView;
use crate::platform::Platform;
use crate::pool::Owner;
use crate::reason::Refuse;
use crate::shared::SharedBytes;
use crate::state::Context;
use crate::state::Direction;
use crate::state::State;

/// One run of a scattered allocation: storage of the caller, empty (`None`) before and after.
#[derive(Debug)]
pub struct Run {
    pub(super) view: CpuView,
    pub(super) len: usize,
    pub(super) range: PhysRange,
    pub(super) pin: Option<Pin>,
}

impl Run {
    /// The run as the CPU sees it.
    pub(super) fn bytes(&self) -> NonNull<[u8]> {
        NonNull::slice_from_raw_parts(self.view.start, self.len)
    }
}

// SAFETY: the run only carries the pointer; whoever uses it answers for it.
unsafe impl Send for Run {}

/// The record of a scattered allocation. Freeing uses it and asks nobody again.
#[derive(Debug)]
#[must_use = "memory that is not freed is lost"]
pub struct RawScattered<'s>(pub(super) Held<'s>);

#[derive(Debug)]
pub(super) enum Held<'s> {
    /// It came in one run, as it has to without a domain.
    One(RawCoherent),
    Many(Many<'s>),
}

#[derive(Debug)]
pub(super) struct Many<'s> {
    pub(super) owner: Owner,
    pub(super) addr: DmaAddr,
    pub(super) len: usize,
    pub(super) runs: &'s mut [Option<Run>],
    /// The state that its runs were converted to, if they were.
    pub(super) lent: Option<State>,
    pub(super) made: AllocInfo,
    pub(super) mapped: Mapped,
}

/// A scattered allocation that was refused.
#[derive(Debug)]
pub struct NotScattered<'s> {
    /// Who was refused what, and why.
    pub error: AllocError,
    /// What the IOMMU could neither map whole nor unmap again: nobody's until it was freed.
    pub kept: Option<RawScattered<'s>>,
}

impl fmt::Display for NotScattered<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)?;
        match &self.kept {
            None => Ok(()),
            Some(kept) => write!(f, "; {} bytes are still mapped: free them", kept.len()),
        }
    }
}

impl core::error::Error for NotScattered<'_> {}

impl From<RawCoherent> for Held<'_> {
    fn from(memory: RawCoherent) -> Self {
        Self::One(memory)
    }
}

/// Why there is nothing, and what cannot be given back.
pub(super) type Failed<'s> = (Refuse, Option<Many<'s>>);

impl RawScattered<'_> {
    /// The address for the device, from which it sees all of it as one run.
    pub fn addr(&self) -> DmaAddr {
        match &self.0 {
            Held::One(memory) => memory.addr(),
            Held::Many(many) => many.addr,
        }
    }

    /// The length in bytes.
    #[expect(clippy::len_without_is_empty, reason = "an allocation is never empty")]
    pub fn len(&self) -> usize {
        match &self.0 {
            Held::One(memory) => memory.bytes().len(),
            Held::Many(many) => many.len,
        }
    }

    /// Whose it is, what it was made as, and its length.
    pub(super) fn record(&self) -> (Owner, &AllocInfo, usize) {
        match &self.0 {
            Held::One(memory) => (memory.owner, &memory.made, memory.len),
            Held::Many(many) => (many.owner, &many.made, many.len),
        }
    }

    /// The memory as the CPU sees it, run by run, in the order of the device's addresses. The device
    /// may write it at any time: read and write through the pointers, never through references. A
    /// kernel that wants one run of its own maps them so, with the protection of
    /// [`mmap_scattered`](Device::mmap_scattered).
    pub fn runs(&self) -> impl Iterator<Item = NonNull<[u8]>> + '_ {
        let (one, many) = match &self.0 {
            Held::One(memory) => (Some(memory.bytes()), &[][..]),
            Held::Many(many) => (None, &*many.runs),
        };
        one.into_iter().chain(many.iter().flatten().map(Run::bytes))
    }

    /// The same as safe code may look at it.
    ///
    /// # Safety
    ///
    /// As for [`RawCoherent::shared_bytes`].
    pub unsafe fn shared_bytes(&self) -> impl Iterator<Item = SharedBytes<'_>> + '_ {
        // SAFETY: this function's conditions; the runs are this record's, and were zeroed.
        self.runs().map(|run| unsafe { SharedBytes::new(run.cast(), run.len()) })
    }

    /// Whether freeing it converts memory, which atomic context must not.
    pub fn converts_on_free(&self) -> bool {
        match &self.0 {
            Held::One(memory) => memory.converts_on_free(),
            Held::Many(many) => many.lent.is_some(),
        }
    }
}

impl<P: Platform + ?Sized> Device<'_, P> {
    /// Allocates so many bytes, rounded up, aligned and zeroed as [`alloc_raw`](Self::alloc_raw) does, of which
    /// the device alone has to see one run: behind a domain it may lie in as many runs as there is
    /// `room` for, elsewhere in one. The driver syncs it
    /// ([`sync_scattered_for_device`](Self::sync_scattered_for_device)). With
    /// [`ALLOC_SINGLE_PAGES`](Attrs::ALLOC_SINGLE_PAGES) no run is longer than it has to be. Runs that
    /// `room` holds are somebody's: where there are any, nothing is put into it (`too-scattered`, unless
    /// a pool serves).
    ///
    /// # Errors
    ///
    /// Nothing is held but what [`NotScattered::kept`] has. Runs that could not be taken back after a
    /// conversion are in quarantine, the others with their source.
    pub fn alloc_scattered<'s>(
        &self,
        size: impl Into<AllocSize>,
        context: Context,
        attrs: Attrs,
        room: &'s mut [Option<Run>],
    ) -> Result<RawScattered<'s>, NotScattered<'s>> {
        let size = size.into();
        match self.try_scattered(size, context, attrs, room) {
            Ok(held) => {
                let memory = RawScattered(held);
                self.count().allocated();
                self.sync_scattered_for_device(&memory, Direction::Both);
                Ok(match memory.0 {
                    // What came in several runs is no event, at neither end.
                    Held::One(memory) if self.dma().tells_maps() => {
                        RawScattered(Held::One(self.tell_allocated(memory)))
                    }
                    held => RawScattered(held),
                })
            }
            Err((reason, kept)) => {
                if kept.is_some() {
                    // It lives until it was freed, as if it had been allocated.
                    self.count().allocated();
                }
                let error = self.refused_alloc(size.len, attrs, reason);
                Err(NotScattered { error, kept: kept.map(|many| RawScattered(Held::Many(many))) })
            }
        }
    }

    fn try_scattered<'s>(
        &self,
        size: AllocSize,
        context: Context,
        attrs: Attrs,
        room: &'s mut [Option<Run>],
    ) -> Result<Held<'s>, Failed<'s>> {
        let asked = self.plan_alloc(size, AllocKind::NonContiguous, context, attrs);
        let (plan, options) = asked.map_err(|reason| (reason, None))?;
        let scattered = plan.scattered;
        self.alloc_planned(plan, options, |pages| {
            if scattered {
                return self.alloc_in_runs(pages, options, room).map(Held::Many);
            }
            self.alloc_pages(pages, options).map(Held::One).map_err(|reason| (reason, None))
        })
    }

    /// Frees a scattered allocation of this device, as [`free_raw`](Self::free_raw) does: run by run,
    /// each as it was taken. Its room is empty then.
    ///
    /// # Errors
    ///
    /// The memory, with which nothing happened.
    ///
    /// # Safety
    ///
    /// The device has stopped using it, and nobody uses the pointers any more.
    pub unsafe fn free_scattered<'s>(
        &self,
        memory: RawScattered<'s>,
    ) -> Result<(), FreeError<RawScattered<'s>>> {
        let many = match memory.0 {
            Held::One(memory) => {
                // SAFETY: this function's condition.
                let freed = unsafe { self.free_raw(memory) };
                return freed.map_err(|error| error.map(|memory| RawScattered(Held::One(memory))));
            }
            Held::Many(many) => many,
        };
        let failed = |reason, many| FreeError { reason, memory: RawScattered(Held::Many(many)) };
        if many.owner != self.owner() {
            return Err(failed(NotFreed::NotThisDevice, many));
        }
        // SAFETY: this function's condition.
        if let Err(error) = unsafe { self.untranslate(Some(&many.mapped)) } {
            return Err(failed(NotFreed::StillMapped(error), many));
        }
        // SAFETY: this function's condition, and nothing of it is mapped any more.
        unsafe { self.free_runs(many.runs, many.lent) };
        self.discharge_pages(slots_of(many.len as u64));
        self.count().freed();
        Ok(())
    }
}
