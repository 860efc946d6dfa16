//! A domain: what addresses it gives out, on whose driver, with which books.

use core::fmt;

use super::DomainError;
use super::Iommu;
use super::IovaWindow;
use crate::slots::Slots;
use crate::waiters::CapacityListener;
use crate::waiters::Waiters;
use crate::waiters::Watch;
use crate::word::Ordering;
use crate::word::Word;

/// The smallest page that an IOMMU may have here: every one that is built has this one.
const LEAST_PAGE: u64 = 4096;

/// One domain of an IOMMU, with its books in words of the caller. Shared by reference between the
/// devices that are behind it and between threads; no locks.
///
/// An address is given out again only after its pages were unmapped and flushed. Where unmapping
/// fails ([`lost`](Self::lost) counts) what lies there is kept, until the one who holds the record
/// tries again and succeeds.
/// Address 0 is never given out: too many drivers and devices take it for "none".
pub struct Domain<'m> {
    pub(super) iommu: &'m (dyn Iommu + 'm),
    pub(super) window: IovaWindow,
    pub(super) page: u64,
    pub(super) slots: Slots<'m>,
    pub(super) lost: &'m Word,
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

    /// The same domain with a listener, who is told when there may be addresses again for those who
    /// asked. Call it before the domain is used.
    #[must_use]
    pub fn with_listener(self, listener: &'m dyn CapacityListener) -> Self {
        Self { slots: self.slots.with_listener(listener), ..self }
    }

    /// Asks that the listener be told when there may be addresses in this domain again: see
    /// [`Device::watch_capacity`](crate::device::Device::watch_capacity). Never blocks; any context.
    pub fn watch_capacity(&self) -> Watch {
        self.slots.watch()
    }

    /// Those who wait for its addresses.
    pub(crate) fn waiters(&self) -> &Waiters<'m> {
        self.slots.waiters()
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
        let shift = self.page.trailing_zeros();
        let (first, last) = ((first - base) >> shift, (last - base) >> shift);
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

    /// Bytes of addresses whose unmap failed, and did not succeed since, in whole pages.
    pub fn lost(&self) -> u64 {
        (self.lost.0.load(Ordering::Relaxed) as u64).saturating_mul(self.page)
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
