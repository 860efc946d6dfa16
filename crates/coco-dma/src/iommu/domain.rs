//! A domain: addresses given out of a window, and what is mapped there, by record.
// UNSAFETY: what a device reaches is mapped and unmapped here.
#![expect(unsafe_code)]

use core::fmt;

use super::Entry;
use super::Iommu;
use super::IommuError;
use super::IovaWindow;
use crate::addr::AddressLimit;
use crate::addr::AlignMask;
use crate::addr::DmaAddr;
use crate::addr::PhysAddr;
use crate::addr::PhysRange;
use crate::addr::Places;
use crate::addr::Wish;
use crate::plan::DeviceFace;
use crate::reason::Refuse;
use crate::slots::Owner;
use crate::slots::SlotRun;
use crate::slots::Slots;
use crate::slots::SlotsError;
use crate::word::Ordering;
use crate::word::Word;

/// The smallest page that an IOMMU may have here: every one that is built has this one.
const LEAST_PAGE: u64 = 4096;

/// One domain of an IOMMU, with its books in words of the caller. Shared by reference between the
/// devices that are behind it and between threads; no locks.
///
/// An address is given out again only after its pages were unmapped and flushed. Where unmapping
/// fails it is never given out again ([`lost`](Self::lost) counts), and what lies there is kept.
/// Address 0 is never given out: too many drivers and devices take it for "none".
pub struct Domain<'m> {
    iommu: &'m (dyn Iommu + 'm),
    window: IovaWindow,
    page: u64,
    slots: Slots<'m>,
    lost: &'m Word,
}

/// What one map holds in a domain. Not `Copy`: who holds it holds the addresses.
#[derive(Debug)]
#[must_use = "addresses that are not unmapped are lost"]
pub(crate) struct Mapped(SlotRun);

/// What could not be unmapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stuck {
    /// The first address.
    pub(crate) addr: DmaAddr,
    /// Bytes, in whole pages.
    pub(crate) len: u64,
    /// Why; none where it was lost before, by a revocation.
    pub(crate) error: Option<IommuError>,
}

impl<'m> Domain<'m> {
    /// Words of storage for a window of `len` bytes in pages of `page` bytes: a bit and a word a
    /// page.
    pub const fn words(len: u64, page: u64) -> usize {
        if page == 0 {
            return usize::MAX;
        }
        Slots::words(len, page).saturating_add(1)
    }

    /// A domain that gives out the addresses of `window`, as far as they are whole pages. `words`
    /// is storage for the bookkeeping, [`words`](Self::words) of it; what it holds is overwritten.
    /// No other domain may use the same driver and window while this one lives (the driver
    /// answers a second map of a page with an error).
    pub fn new(
        iommu: &'m (dyn Iommu + 'm),
        window: IovaWindow,
        words: &'m [Word],
    ) -> Result<Self, DomainError> {
        let page = iommu.page();
        if !page.is_power_of_two() || page < LEAST_PAGE {
            return Err(DomainError::Page(page));
        }
        // Page 0 is no part of it.
        let first = window.base().raw().max(1).checked_next_multiple_of(page);
        let window = first
            .and_then(|first| {
                let unused = first - window.base().raw();
                let len = window.len().checked_sub(unused)? & !(page - 1);
                IovaWindow::new(first, len)
            })
            .ok_or(DomainError::TooSmall)?;
        let (lost, rest) = words
            .split_first()
            .ok_or(DomainError::Storage { wanted: Self::words(window.len(), page), given: 0 })?;
        lost.0.store(0, Ordering::Relaxed);
        let slots = Slots::new(window.len(), page, rest)?;
        slots.open();
        Ok(Self { iommu, window, page, slots, lost })
    }

    /// Takes addresses out of the domain for ever: what the machine uses otherwise (on x86
    /// 0xfee0_0000 to 0xfeef_ffff, which are interrupts and never translated: VT-d 3.14; windows
    /// of PCI bridges; `VIRTIO_IOMMU_PROBE_T_RESV_MEM`; memory that firmware mapped for a device).
    /// What lies outside of the window is passed over. Before the first map, each region once:
    /// false, and nothing is taken, where some of it is in use or reserved already.
    pub fn reserve(&self, addresses: IovaWindow) -> bool {
        let first = addresses.base().max(self.window.base()).raw();
        let last = addresses.last().min(self.window.last()).raw();
        if first > last {
            return true;
        }
        let base = self.window.base().raw();
        let (first, last) = ((first - base) / self.page, (last - base) / self.page);
        match (usize::try_from(first), usize::try_from(last - first + 1)) {
            (Ok(first), Ok(count)) => self.slots.reserve(first, count),
            _ => false,
        }
    }

    /// The smallest page of the IOMMU in bytes.
    pub fn page(&self) -> u64 {
        self.page
    }

    /// The addresses that it gives out.
    pub fn window(&self) -> IovaWindow {
        self.window
    }

    /// Bytes mapped now, in whole pages; while other threads map and unmap, those of some moment.
    pub fn mapped(&self) -> u64 {
        (self.slots.used() as u64).saturating_mul(self.page)
    }

    /// Bytes of addresses that were lost to unmaps that failed, in whole pages.
    pub fn lost(&self) -> u64 {
        (self.lost.0.load(Ordering::Relaxed) as u64).saturating_mul(self.page)
    }

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
        PhysRange::new(PhysAddr::new(base), (last - base).checked_add(1)?)
    }

    /// Takes addresses for `range`, which keep its place in the page, and further low bits of
    /// `original` where the device wants that. Maps nothing. Any context.
    pub(crate) fn take(
        &self,
        range: PhysRange,
        original: u64,
        face: &DeviceFace<'_>,
        owner: Owner,
    ) -> Result<Mapped, Refuse> {
        let offset = self.page - 1;
        let wish = Wish {
            len: range.len(),
            original: (original & !offset) | (range.base().raw() & offset),
            keep: AlignMask::new(face.limits.min_align.raw() | offset).ok_or(Refuse::IovaFull)?,
            align: 1,
            boundary: face.limits.boundary,
        };
        let places = Places::new(self.window.base().raw(), self.in_reach(face.limit()), &wish);
        let run = self.slots.take(&places.ok_or(Refuse::IovaFull)?, owner);
        run.map(Mapped).map_err(|_| Refuse::IovaFull)
    }

    /// Gives addresses back at which nothing was mapped.
    pub(crate) fn give(&self, mapped: &Mapped) {
        self.slots.give(&mapped.0);
    }

    /// Maps the whole pages around `range`, and answers with the address of its first byte. Never
    /// blocks.
    ///
    /// # Safety
    ///
    /// As for [`Iommu::map`], of the whole pages around the range.
    pub(crate) unsafe fn map(
        &self,
        range: PhysRange,
        original: u64,
        entry: Entry,
        face: &DeviceFace<'_>,
        owner: Owner,
    ) -> Result<(DmaAddr, Mapped), Refuse> {
        let mapped = self.take(range, original, face, owner)?;
        let (iova, _) = self.pages_at(&mapped.0);
        let addr = iova.checked_add(range.base().raw() & (self.page - 1));
        let (Some(addr), Some(pages)) = (addr, self.pages_of(range)) else {
            self.give(&mapped);
            return Err(Refuse::InvalidRange);
        };
        // SAFETY: this function's condition; the addresses are ours alone.
        match unsafe { self.iommu.map(iova, pages, entry) } {
            Ok(()) => Ok((addr, mapped)),
            Err(_) => {
                // Nothing changed, by the driver's contract.
                self.give(&mapped);
                Err(Refuse::IommuFailed)
            }
        }
    }

    /// Unmaps and flushes; only then the addresses are free. What was revoked before is unmapped
    /// already. Never blocks.
    ///
    /// # Safety
    ///
    /// The devices have stopped using it.
    pub(crate) unsafe fn unmap(&self, mapped: &Mapped) -> Result<(), Stuck> {
        // SAFETY: this function's condition.
        unsafe { self.end(&mapped.0) }
    }

    /// Unmaps all that an owner holds. What cannot be unmapped is told to `stuck`.
    ///
    /// # Safety
    ///
    /// The device has stopped, and no other thread maps for this owner meanwhile.
    pub(crate) unsafe fn revoke(&self, owner: Owner, mut stuck: impl FnMut(Stuck)) {
        for run in self.slots.runs_of(owner) {
            // SAFETY: this function's condition.
            if let Err(what) = unsafe { self.end(&run) } {
                stuck(what);
            }
        }
    }

    /// # Safety
    ///
    /// The devices have stopped using it.
    unsafe fn end(&self, run: &SlotRun) -> Result<(), Stuck> {
        let (addr, len) = self.pages_at(run);
        // Whoever ends the holding is the one who unmaps.
        if !self.slots.end(run) {
            let lost = self.slots.is_lost(run);
            return if lost { Err(Stuck { addr, len, error: None }) } else { Ok(()) };
        }
        // SAFETY: a run that is held is mapped, by us; this function's condition.
        match unsafe { self.iommu.unmap(addr, len) } {
            Ok(()) => {
                self.slots.free(run);
                Ok(())
            }
            Err(error) => {
                self.slots.lose(run);
                self.lost.0.fetch_add(run.count(), Ordering::Relaxed);
                Err(Stuck { addr, len, error: Some(error) })
            }
        }
    }

    /// The first address and the length in bytes of the pages of a run.
    fn pages_at(&self, run: &SlotRun) -> (DmaAddr, u64) {
        // Within the window, whose end is an address.
        let offset = (run.first() as u64).wrapping_mul(self.page);
        let addr = DmaAddr::new(self.window.base().raw().wrapping_add(offset));
        (addr, (run.count() as u64).wrapping_mul(self.page))
    }
}

impl fmt::Debug for Domain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Domain")
            .field("window", &self.window)
            .field("page", &self.page)
            .field("mapped", &self.mapped())
            .field("lost", &self.lost())
            .finish_non_exhaustive()
    }
}

/// A domain that cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DomainError {
    /// The driver's page in bytes is no power of two, or less than 4096.
    Page(u64),
    /// The window holds not a single whole page.
    TooSmall,
    /// The window has more pages than half a word counts.
    TooLarge,
    /// The storage has fewer words than [`Domain::words`] asks for.
    Storage {
        /// Words needed.
        wanted: usize,
        /// Words given.
        given: usize,
    },
}

impl From<SlotsError> for DomainError {
    fn from(error: SlotsError) -> Self {
        match error {
            SlotsError::TooSmall => Self::TooSmall,
            SlotsError::TooLarge => Self::TooLarge,
            // The first word is not the slots'.
            SlotsError::Storage { wanted, given } => {
                Self::Storage { wanted: wanted.saturating_add(1), given: given.saturating_add(1) }
            }
        }
    }
}

impl fmt::Display for DomainError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Page(page) => {
                write!(f, "an IOMMU page of {page} bytes: not a power of two from 4096 on")
            }
            Self::TooSmall => f.write_str("the window needs room for at least one page"),
            Self::TooLarge => f.write_str("the window is longer than this machine can count"),
            Self::Storage { wanted, given } => {
                write!(f, "the domain's bookkeeping needs {wanted} words, and {given} were given")
            }
        }
    }
}

impl core::error::Error for DomainError {}
