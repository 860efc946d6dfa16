//! The reference as a pool with bytes: what Linux's map and unmap of a bounced buffer do.
// UNSAFETY: the originals of mappings are kept as numbers, as Linux keeps them.
#![expect(unsafe_code)]

use core::ptr;
use core::ptr::NonNull;

use crate::hand::Subject;
use crate::hand::Worker;
use crate::memory::Region;
use crate::memory::copy;
use crate::memory::zero;
use crate::reference::Ask;
use crate::reference::Reference;
use crate::reference::SLOT;
use crate::terms::AtMap;
use crate::terms::Terms;

/// The reference over a region of memory.
#[derive(Debug)]
pub struct Linux<'r> {
    slots: Reference,
    region: &'r Region,
    terms: Terms,
}

impl<'r> Linux<'r> {
    /// Areas: as many as there are CPUs here.
    pub const AREAS: usize = 2;

    /// A pool over `region`; `None` where that is not made of whole sets.
    pub fn new(region: &'r Region, terms: Terms) -> Option<Self> {
        let base = region.start().addr().get();
        let slots = Reference::new(base, region.len() / SLOT, Self::AREAS)?;
        Some(Self { slots, region, terms })
    }
}

impl Subject for Linux<'_> {
    type Worker<'s>
        = LinuxHand<'s>
    where
        Self: 's;

    fn worker(&self, cpu: usize) -> Option<LinuxHand<'_>> {
        Some(LinuxHand { pool: self, cpu })
    }

    fn used(&self) -> usize {
        self.slots.used()
    }
}

/// A CPU that maps through the reference.
#[derive(Debug)]
pub struct LinuxHand<'s> {
    pool: &'s Linux<'s>,
    cpu: usize,
}

/// What a driver keeps of a map under Linux: the address that it was given, and the length.
#[derive(Debug)]
pub struct Given {
    at: usize,
    len: usize,
}

impl LinuxHand<'_> {
    /// Both ends of a copy, found from the address alone.
    #[inline]
    fn ends(&self, given: &Given) -> Option<(NonNull<u8>, NonNull<u8>, usize)> {
        let Linux { slots, region, terms } = self.pool;
        let found = slots.copyable(given.at, given.len, terms.min_align_mask)?;
        let original = NonNull::new(ptr::with_exposed_provenance_mut(found.original))?;
        let bounced = region.at(given.at - region.start().addr().get(), found.len);
        Some((original, bounced, found.len))
    }
}

impl Worker for LinuxHand<'_> {
    type Record = Given;

    #[inline(always)]
    unsafe fn map(&mut self, buffer: NonNull<[u8]>) -> Option<Given> {
        let (original, len) = (buffer.cast::<u8>().addr().get(), buffer.len());
        let keep_mask = self.pool.terms.min_align_mask;
        let at = self.pool.slots.map(self.cpu, &Ask { keep_mask, ..Ask::of(original, len) })?;
        let given = Given { at, len };
        match self.pool.terms.at_map() {
            AtMap::Nothing => {}
            AtMap::Copy => {
                if let Some((original, bounced, len)) = self.ends(&given) {
                    // SAFETY: the buffer is readable by this function's condition, the slots are
                    // the mapping's, and pools and buffers are apart.
                    unsafe { copy(original, bounced, len) };
                }
            }
            AtMap::Zero => {
                if let Some((_, bounced, len)) = self.ends(&given) {
                    // SAFETY: the slots are the mapping's.
                    unsafe { zero(bounced, len) };
                }
            }
        }
        Some(given)
    }

    #[inline(always)]
    unsafe fn unmap(&mut self, given: Given) {
        if self.pool.terms.copies_back()
            && let Some((original, bounced, len)) = self.ends(&given)
        {
            // SAFETY: the buffer is writable by this function's condition, the slots are still the
            // mapping's, and pools and buffers are apart.
            unsafe { copy(bounced, original, len) };
        }
        let unmapped = self.pool.slots.unmap(given.at, self.pool.terms.min_align_mask);
        debug_assert!(unmapped, "a mapping ends once");
    }

    fn offset(&self, given: &Given) -> usize {
        given.at - self.pool.region.start().addr().get()
    }
}
