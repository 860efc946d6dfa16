//! What is mapped in a domain: taken, mapped, unmapped and only then given out again, by record.
// UNSAFETY: what a device reaches is mapped and unmapped here.
#![expect(unsafe_code)]

use core::num::NonZeroUsize;

use super::Domain;
use super::Entry;
use super::IommuError;
use crate::addr::AddressLimit;
use crate::addr::AlignMask;
use crate::addr::Constraints;
use crate::addr::DmaAddr;
use crate::addr::PhysAddr;
use crate::addr::PhysRange;
use crate::addr::Placements;
use crate::plan::DeviceInfo;
use crate::reason::Refuse;
use crate::slots::EndState;
use crate::slots::Owner;
use crate::slots::SlotRun;
use crate::word::Ordering;
use crate::word::fence;

/// What one map of an owner holds in a domain: where it begins in the window, in bytes, and its
/// pages. Not `Copy`: who holds it holds the addresses. Small, since it is a part of every record.
#[derive(Debug)]
#[must_use = "addresses that are not unmapped are lost"]
pub(crate) struct Mapped {
    offset: usize,
    count: NonZeroUsize,
}

impl Mapped {
    fn run(&self, owner: Owner) -> SlotRun {
        SlotRun::of(self.offset, self.count.get(), owner)
    }
}

/// What holds of the addresses of a mapping beside the device's reach.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fit {
    /// They keep the low bits of this address that the device wants kept, and cross no boundary.
    Like(u64),
    /// They are a multiple of so many bytes, which is no less than what the device uses of them: where
    /// that is not longer than the boundary, it crosses none.
    Aligned(u64),
    /// Multiples of this alignment but for those low bits of the original above the page that the device
    /// wants kept. Segments are cut at the boundary.
    List {
        /// The address of the first byte's original.
        original: u64,
        /// A power of two, in bytes.
        align: u64,
    },
}

/// What could not be unmapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct UnmapFailure {
    /// The first address.
    pub(crate) addr: DmaAddr,
    /// Bytes, in whole pages.
    pub(crate) len: u64,
    /// Why; none where another thread is unmapping it at this moment.
    pub(crate) error: Option<IommuError>,
}

/// Several runs of which one could not be mapped, and those before it not be unmapped again.
#[derive(Debug)]
pub(crate) struct PartialMap {
    /// The address of the first.
    pub(crate) addr: DmaAddr,
    /// What holds all addresses, and unmaps what is there.
    pub(crate) mapped: Mapped,
    /// What could not be unmapped.
    pub(crate) stuck: UnmapFailure,
}

/// The owner of addresses that are taken, and nothing is mapped there yet: a revocation passes them
/// by. (Domains use the mark so that pools have for allocations.)
fn under_way(owner: Owner) -> Owner {
    owner.allocating()
}

impl Domain<'_> {
    /// How many bytes of the window lie at `limit` or below.
    pub(crate) fn in_reach(&self, limit: AddressLimit) -> u64 {
        let last = limit.raw().min(self.window.last().raw());
        let past = last.checked_sub(self.window.base().raw());
        // It never has all 2^64 addresses, as page 0 is no part of it.
        past.map_or(0, |past| past.saturating_add(1))
    }

    /// The whole pages that `range` touches.
    pub(crate) fn pages_of(&self, range: PhysRange) -> Option<PhysRange> {
        let base = range.base().raw() & !(self.page - 1);
        let last = range.last().raw() | (self.page - 1);
        PhysRange::between(PhysAddr::new(base), PhysAddr::new(last))
    }

    /// Takes addresses for `range`, which keep its place in the page. Maps nothing. Any context.
    pub(crate) fn alloc(
        &self,
        range: PhysRange,
        fit: Fit,
        info: &DeviceInfo<'_>,
        owner: Owner,
    ) -> Result<Mapped, Refuse> {
        let offset = self.page - 1;
        let fit = match fit {
            Fit::Like(original) => Fit::Like((original & !offset) | (range.base().raw() & offset)),
            // Whole pages.
            fit => fit,
        };
        self.alloc_as(range.len(), fit, info, owner)
    }

    /// Takes addresses for `len` bytes.
    fn alloc_as(
        &self,
        len: u64,
        fit: Fit,
        info: &DeviceInfo<'_>,
        owner: Owner,
    ) -> Result<Mapped, Refuse> {
        let offset = self.page - 1;
        let (original, align, boundary) = match fit {
            Fit::Like(original) => (original, 1, info.limits.boundary),
            Fit::Aligned(align) => (0, align, None), // sabotage: iova-alignment
            Fit::List { original, align } => (original & !offset, align, None),
        };
        let constraints = Constraints {
            len,
            original,
            keep: AlignMask::new(info.limits.min_align.raw() | offset).ok_or(Refuse::IovaFull)?,
            align: align.max(info.limits.align.bytes()),
            boundary,
        };
        let places =
            Placements::new(self.window.base().raw(), self.in_reach(info.limit()), &constraints);
        let run = self.slots.alloc(0, &places.ok_or(Refuse::IovaFull)?, under_way(owner));
        let run = run.map_err(|_| Refuse::IovaFull)?;
        // A run is never empty.
        let count = NonZeroUsize::new(run.count()).ok_or(Refuse::IovaFull)?;
        Ok(Mapped { offset: run.offset(), count })
    }

    /// Gives addresses back at which nothing was mapped.
    pub(crate) fn free(&self, mapped: &Mapped, owner: Owner) {
        self.slots.free(0, &mapped.run(under_way(owner)));
    }

    /// Maps the whole pages around `range`, and answers with the address of its first byte. Never
    /// blocks. Where the owner is revoked meanwhile, by somebody who said so before, either the
    /// revocation unmaps it or the caller sees afterwards what was said, and unmaps it.
    ///
    /// # Safety
    ///
    /// As for [`Iommu::map`], of the whole pages around the range.
    pub(crate) unsafe fn map(
        &self,
        range: PhysRange,
        fit: Fit,
        entry: Entry,
        info: &DeviceInfo<'_>,
        owner: Owner,
    ) -> Result<(DmaAddr, Mapped), Refuse> {
        let mapped = self.alloc(range, fit, info, owner)?;
        let (iova, _) = self.pages_at(&mapped.run(owner));
        let addr = iova.checked_add(range.base().raw() & (self.page - 1));
        let (Some(addr), Some(pages)) = (addr, self.pages_of(range)) else {
            self.free(&mapped, owner);
            return Err(Refuse::InvalidRange);
        };
        // SAFETY: this function's condition; the addresses are ours alone.
        match unsafe { self.iommu.map(iova, pages, entry) } {
            Ok(()) => {
                self.slots.pass(&mapped.run(under_way(owner)), owner);
                // Pairs with the one in `revoke`.
                fence(Ordering::SeqCst);
                Ok((addr, mapped))
            }
            Err(_) => {
                // Nothing changed, by the driver's contract.
                self.free(&mapped, owner);
                Err(Refuse::IommuFailed)
            }
        }
    }

    /// Maps `runs`, which are whole pages and have `len` bytes in all, one behind the other, the first at an
    /// address of this fit. The same
    /// otherwise, but for what is mapped when one of them fails: it is unmapped again, or kept by the
    /// record that the error has.
    ///
    /// # Safety
    ///
    /// As for [`Iommu::map`], of each of them.
    pub(crate) unsafe fn map_runs(
        &self,
        runs: impl Iterator<Item = PhysRange>,
        (len, fit): (u64, Fit),
        entry: Entry,
        info: &DeviceInfo<'_>,
        owner: Owner,
    ) -> Result<(DmaAddr, Mapped), (Refuse, Option<PartialMap>)> {
        let taken = self.alloc_as(len, fit, info, owner);
        let mapped = taken.map_err(|reason| (reason, None))?;
        let run = mapped.run(owner);
        let (iova, _) = self.pages_at(&run);
        let (mut at, mut whole) = (0, true);
        for part in runs {
            let addr = iova.checked_add(at);
            // SAFETY: this function's condition; the addresses are ours alone.
            let made = addr.map(|addr| unsafe { self.iommu.map(addr, part, entry) });
            whole = matches!(made, Some(Ok(())));
            if !whole {
                break;
            }
            at += part.len(); // sabotage: gather-one-address
        }
        if at == 0 {
            self.free(&mapped, owner);
            return Err((Refuse::IommuFailed, None));
        }
        self.slots.pass(&mapped.run(under_way(owner)), owner);
        // As in `map`.
        fence(Ordering::SeqCst);
        if whole {
            return Ok((iova, mapped));
        }
        // SAFETY: nobody was given the address.
        let ended = unsafe { self.end(&run, owner) };
        Err((
            Refuse::IommuFailed,
            ended.err().map(|stuck| PartialMap { addr: iova, mapped, stuck }),
        ))
    }

    /// Unmaps and flushes; only then the addresses are free. What was revoked before is unmapped
    /// already, and what could not be unmapped is tried again. Never blocks.
    ///
    /// # Safety
    ///
    /// The devices have stopped using it.
    pub(crate) unsafe fn unmap(&self, mapped: &Mapped, owner: Owner) -> Result<(), UnmapFailure> {
        // SAFETY: this function's condition.
        unsafe { self.end(&mapped.run(owner), owner) }
    }

    /// Unmaps all that an owner holds, with what could not be unmapped before. What still cannot is
    /// told to `stuck`. What another
    /// thread is mapping for it at this moment it unmaps itself: see [`map`](Self::map).
    ///
    /// # Safety
    ///
    /// The device has stopped using it, or is to be stopped by this: what it does faults.
    pub(crate) unsafe fn revoke(&self, owner: Owner, mut stuck: impl FnMut(UnmapFailure)) {
        // What the caller said before is seen by whoever maps what is not seen here.
        fence(Ordering::SeqCst);
        for run in self.slots.stuck_of(owner).chain(self.slots.runs_of(owner)) {
            // SAFETY: this function's condition.
            if let Err(what) = unsafe { self.end(&run, owner) } {
                stuck(what);
            }
        }
    }

    /// # Safety
    ///
    /// The devices have stopped using it.
    unsafe fn end(&self, run: &SlotRun, owner: Owner) -> Result<(), UnmapFailure> {
        let (addr, len) = self.pages_at(run);
        // Whoever has the turn is the one who unmaps; who comes meanwhile is not told that it is
        // done.
        match self.slots.begin_end(run, owner) {
            EndState::Mine => {}
            EndState::Again => _ = self.lost.0.fetch_sub(run.count(), Ordering::Relaxed),
            EndState::Elsewhere => return Err(UnmapFailure { addr, len, error: None }),
            EndState::Over => return Ok(()),
        }
        // SAFETY: a run that has not ended is mapped, by us; this function's condition.
        // sabotage: iommu-unmap-left-out
        let unmapped = unsafe { self.iommu.unmap(addr, len) };
        // An answer is no proof, where there is one to be had.
        let lives = || self.iommu.query(addr, len) == Some(true); // sabotage: unmap-claim-believed
        match unmapped {
            Ok(()) if lives() => self.stuck(run, owner, IommuError::ONLY_CLAIMED),
            Ok(()) => {
                self.slots.ended(run);
                Ok(())
            }
            Err(error) => self.stuck(run, owner, error),
        }
    }

    /// What could not be unmapped keeps its addresses, until somebody tries again.
    fn stuck(&self, run: &SlotRun, owner: Owner, error: IommuError) -> Result<(), UnmapFailure> {
        let (addr, len) = self.pages_at(run);
        self.lost.0.fetch_add(run.count(), Ordering::Relaxed);
        self.slots.kept(run, owner);
        Err(UnmapFailure { addr, len, error: Some(error) })
    }

    /// The first address and the length in bytes of the pages of a run.
    fn pages_at(&self, run: &SlotRun) -> (DmaAddr, u64) {
        // Within the window, whose end is an address.
        let offset = run.offset() as u64 & !(self.page - 1);
        let addr = DmaAddr::new(self.window.base().raw().wrapping_add(offset));
        (addr, (run.count() as u64).wrapping_mul(self.page))
    }
}
