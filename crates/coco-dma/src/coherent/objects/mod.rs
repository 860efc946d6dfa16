//! Pools of small things of one kind in coherent memory: descriptors, command tables, completion
//! records. Linux's `dma_pool`, with two differences: which object is free stands in private memory,
//! never in the object, and every object is zero when it is taken.
// UNSAFETY: objects are parts of memory that a device writes behind the compiler's back.
#![expect(unsafe_code)]

mod layout;
#[cfg(all(test, loom))]
mod models;
mod object;
mod page;

pub use layout::LayoutError;
pub use layout::ObjectLayout;
pub use object::Object;

use core::fmt;

use super::AllocError;
use super::raw::PAGE;
use super::raw::RawCoherent;
use crate::device::Device;
use crate::observe::Event;
use crate::plan;
use crate::platform::Platform;
use crate::reason::Refuse;
use crate::state::Context;
use crate::word::AtomicUsize;
use crate::word::Ordering;
use page::Page;

/// The books of one page of an [`ObjectPool`], as storage that the caller owns: a bit an object, and
/// the record of the page's allocation. A `static` array of them will do.
pub struct ObjectPage(Page<Backing>);

/// What a page is made of.
struct Backing(RawCoherent);

// SAFETY: shared, the record tells where the page is and what kind; the bytes behind its pointer are
// used by who holds an object, each its own.
unsafe impl Sync for Backing {}

impl ObjectPage {
    /// The books of a page that no pool has yet.
    #[cfg(not(loom))]
    #[expect(clippy::new_without_default, reason = "a Default would not be const")]
    pub const fn new() -> Self {
        Self(Page::new())
    }

    /// The books of a page that no pool has yet.
    #[cfg(loom)]
    #[expect(clippy::new_without_default, reason = "as above")]
    pub fn new() -> Self {
        Self(Page::new())
    }
}

impl fmt::Debug for ObjectPage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Some of the books are another pool's, or tell of memory that was kept when theirs was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PagesInUse;

impl fmt::Display for PagesInUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("some of these pages are another pool's, or hold memory that one left behind")
    }
}

impl core::error::Error for PagesInUse {}

/// A pool of objects of one kind for one device. Shared by reference between threads; no lock.
///
/// Its pages are coherent allocations of 4096 bytes (a page of the IOMMU, where that is longer), from
/// the reservoir first. They are allocated when objects are wanted, and kept until
/// [`trim`](Self::trim), [`close`](Self::close) or the end. Dropped, it gives back what it can without
/// converting; pages with objects in use are kept and counted
/// ([`CountersNow::lost`](crate::device::CountersNow::lost)).
#[doc(alias = "dma_pool")]
pub struct ObjectPool<'d, P: Platform + ?Sized = dyn Platform + 'd> {
    device: &'d Device<'d, P>,
    pages: &'d [ObjectPage],
    layout: ObjectLayout,
    page_len: usize,
    /// Objects in a page.
    count: usize,
    /// The page that was of use last: there the next one looks first.
    recent: AtomicUsize,
    lost: AtomicUsize,
}

impl<'d, P: Platform + ?Sized> ObjectPool<'d, P> {
    /// A pool of such objects for `device`, with books for as many pages as it may ever have. Takes
    /// no memory yet. Any context.
    pub fn new(
        device: &'d Device<'d, P>,
        layout: ObjectLayout,
        pages: &'d [ObjectPage],
    ) -> Result<Self, PagesInUse> {
        for (index, page) in pages.iter().enumerate() {
            if !page.0.claim() {
                pages.iter().take(index).for_each(|page| page.0.unclaim());
                return Err(PagesInUse);
            }
        }
        let page_len = usize::try_from(PAGE.max(device.iommu_page())).unwrap_or(0);
        // Objects are in the device's limits, too. One that never is, is refused when it is wanted.
        let within = device.info().limits.boundary.map(|boundary| layout.within(boundary));
        let layout = within.and_then(Result::ok).unwrap_or(layout);
        let count = layout.per_page(page_len);
        let (recent, lost) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Ok(Self { device, pages, layout, page_len, count, recent, lost })
    }

    /// Takes an object, zeroed. Never blocks where a page has one free; where none has, a page is
    /// allocated as the context allows ([`Device::alloc_raw`]). Refused with
    /// [`PoolFull`](Refuse::PoolFull) where there are no books for another page. (A page that
    /// another thread is allocating or giving back at that moment is passed over: it waits for
    /// nobody.)
    pub fn alloc(&self, context: Context) -> Result<Object<'_, P>, AllocError> {
        if let Some(reason) = self.device.stopped() {
            return Err(self.refused(reason));
        }
        match self.alloc_open() {
            Some(object) => Ok(object),
            None => self.alloc_page(context),
        }
    }

    /// An object of a page that is there.
    fn alloc_open(&self) -> Option<Object<'_, P>> {
        // Relaxed: a hint.
        let recent = self.recent.load(Ordering::Relaxed);
        let (before, after) = self.pages.split_at_checked(recent).unwrap_or((&[], self.pages));
        let page = after.iter().chain(before).enumerate();
        page.into_iter().find_map(|(turn, page)| {
            let index = page.0.alloc()?;
            if turn > 0 {
                let place = recent.saturating_add(turn);
                let wrapped = place.checked_sub(self.pages.len()).unwrap_or(place);
                self.recent.store(wrapped, Ordering::Relaxed);
            }
            self.object(page, index)
        })
    }

    /// The first object of a new page.
    fn alloc_page(&self, context: Context) -> Result<Object<'_, P>, AllocError> {
        let mut empty = self.pages.iter().enumerate().filter(|(_, page)| page.0.start());
        let Some((place, page)) = empty.next() else {
            // What was being allocated or given back may be there again.
            return self.alloc_open().ok_or_else(|| self.refused(Refuse::PoolFull));
        };
        let memory = match self.device.alloc_raw(self.layout.size(), context) {
            Ok(memory) => memory,
            Err(error) => {
                page.0.abandon();
                return Err(error);
            }
        };
        let suits = memory.addr().raw().is_multiple_of(self.layout.page_align() as u64);
        if !suits || memory.bytes().len() < self.page_len {
            // A window of the bus that does not begin at a page: no alignment comes through it.
            // There is no page to keep it in, should an IOMMU not unmap it.
            // SAFETY: no device was given the address, and the memory is this device's.
            if unsafe { self.device.free_raw(memory) }.is_err() {
                self.device.count().lost();
            }
            page.0.abandon();
            return Err(self.refused(Refuse::NoReachablePool));
        }
        page.0.open(Backing(memory), self.count);
        self.recent.store(place, Ordering::Relaxed);
        self.object(page, 0).ok_or_else(|| self.refused(Refuse::NoReachablePool))
    }

    /// The object `index` of `page`, which was just taken, zeroed: what its last owner left is for
    /// nobody, not for the driver nor for the device.
    fn object<'p>(&'p self, page: &'p ObjectPage, index: usize) -> Option<Object<'p, P>> {
        let mut object = Object::new(self, page, index)?;
        let zeroed = object.bytes().zero(0, self.layout.size());
        debug_assert!(zeroed.is_ok(), "it is all of the object");
        Some(object)
    }

    fn refused(&self, reason: Refuse) -> AllocError {
        let (device, len) = (self.device.name(), self.layout.size());
        self.device.count().refused();
        self.device.dma().notify(&Event::Refused { device, len, reason });
        AllocError { device: device.into(), reason, len }
    }

    /// Gives back the pages of which nothing is in use; answers how many. In atomic context not
    /// those that were converted for it, and never those that an IOMMU cannot unmap: no object of
    /// such a page is handed out any more, and the next call tries again. Otherwise it may block.
    pub fn trim(&self, context: Context) -> usize {
        let may = |page: &Backing| plan::free(page.0.converts_on_free(), context, &mut ()).is_ok();
        let give = |Backing(memory): Backing| {
            // SAFETY: every object of it was given back, by who had stopped the device for it.
            let freed = unsafe { self.device.free_raw(memory) };
            freed.map_err(|error| Backing(error.memory))
        };
        self.pages.iter().filter(|page| page.0.close(self.count, may, give)).count()
    }

    /// Gives all memory back, and may block.
    ///
    /// # Errors
    ///
    /// The pool: objects are in use, the context forbids the conversion, or an IOMMU could not
    /// unmap.
    pub fn close(self, context: Context) -> Result<(), Self> {
        self.trim(context);
        if self.pages() > 0 { Err(self) } else { Ok(()) }
    }

    /// What its objects have in common.
    pub fn layout(&self) -> ObjectLayout {
        self.layout
    }

    /// The device whose memory it is.
    pub fn device(&self) -> &'d Device<'d, P> {
        self.device
    }

    /// Objects in use; while others take and give, those of some moment.
    pub fn used(&self) -> usize {
        self.pages.iter().map(|page| page.0.used(self.count)).sum()
    }

    /// Objects that were dropped without being given back: they stay in use.
    pub fn lost(&self) -> usize {
        self.lost.load(Ordering::Relaxed)
    }

    /// Pages that it has now.
    pub fn pages(&self) -> usize {
        self.pages.iter().filter(|page| page.0.has_memory()).count()
    }

    /// The most objects there can be.
    pub fn capacity(&self) -> usize {
        self.pages.len().saturating_mul(self.count)
    }
}

impl<P: Platform + ?Sized> Drop for ObjectPool<'_, P> {
    fn drop(&mut self) {
        self.trim(Context::Atomic);
        for page in self.pages {
            if page.0.has_memory() {
                self.device.count().lost();
            }
            page.0.unclaim();
        }
    }
}

impl<P: Platform + ?Sized> fmt::Debug for ObjectPool<'_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectPool")
            .field("device", &self.device.name())
            .field("layout", &self.layout)
            .field("used", &self.used())
            .field("pages", &self.pages())
            .finish_non_exhaustive()
    }
}
