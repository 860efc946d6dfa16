//! The reference: a slot allocator that follows the published algorithm of Linux's swiotlb
//! (`kernel/dma/swiotlb.c` of 6.12 and 7.3), written anew from a description of it. Areas are
//! chosen by CPU, slots have 2 KiB, no run leaves its set of 128 slots, every free slot counts the
//! free ones behind it, the search goes on where the last one ended, padding slots make up for
//! alignment, and each area has a lock. It exists to be measured and to be an oracle; the core
//! neither knows nor needs it.

mod book;
mod search;
#[cfg(test)]
mod vectors;

use core::sync::atomic::AtomicUsize;
use core::sync::atomic::Ordering;

use book::Area;
use book::INVALID;
use book::Line;
use book::Slot;
use search::Wanted;

/// A slot in bytes (`IO_TLB_SIZE`).
pub const SLOT: usize = 2048;
/// Slots in a set (`IO_TLB_SEGSIZE`): the longest run, 256 KiB.
pub const SET: usize = 128;
/// The page whose alignment a mapping of its size or more gets where no other is asked for.
const PAGE: usize = 4096;

/// What is asked of the reference.
#[derive(Clone, Copy, Debug)]
pub struct Ask {
    /// The address of the original bytes.
    pub original: usize,
    /// Their length in bytes.
    pub len: usize,
    /// Alignment of the whole allocation, less one (an IOMMU's granule); 0 for none.
    pub align_mask: usize,
    /// Low bits of the original's address that have to be kept (`min_align_mask`).
    pub keep_mask: usize,
    /// The segment boundary, less one, that may not be crossed.
    pub boundary_mask: usize,
}

impl Ask {
    /// `len` bytes anywhere.
    pub const fn of(original: usize, len: usize) -> Self {
        Self { original, len, align_mask: 0, keep_mask: 0, boundary_mask: usize::MAX }
    }
}

/// The reference allocator over one pool, of which it knows addresses alone.
#[derive(Debug)]
pub struct Reference {
    base: usize,
    areas: Vec<Line>,
    area_count: usize,
    area_slots: usize,
    slots: Vec<Slot>,
    // Beside the fields that every map reads, as in Linux.
    total: AtomicUsize,
    high_water: AtomicUsize,
}

/// Where bytes of a mapping lie: at `original` in the driver's memory, and `len` of them may be
/// copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copyable {
    /// The address of the driver's bytes.
    pub original: usize,
    /// The length asked for, cut off at the end of the allocation.
    pub len: usize,
}

impl Reference {
    /// A pool of `slots` slots at `base` in `areas` areas; `None` unless the areas are a power of
    /// two and each is made of whole sets.
    pub fn new(base: usize, slots: usize, areas: usize) -> Option<Self> {
        let area_slots = slots.checked_div(areas)?;
        if !areas.is_power_of_two() || area_slots == 0 || !slots.is_multiple_of(areas * SET) {
            return None;
        }
        let list = |slot: usize| u16::try_from(SET - slot % SET).unwrap_or(0);
        Some(Self {
            base,
            areas: (0..areas.div_ceil(4)).map(|_| Line::new()).collect(),
            area_count: areas,
            area_slots,
            slots: (0..slots).map(|slot| Slot::free(list(slot))).collect(),
            total: AtomicUsize::new(0),
            high_water: AtomicUsize::new(0),
        })
    }

    /// Takes slots and enters the original in them: what a map does before it copies. The address
    /// of the mapping, or `None` where no area has room. `cpu` says which area is tried first.
    #[inline]
    pub fn map(&self, cpu: usize, ask: &Ask) -> Option<usize> {
        let kept = ask.original & ask.keep_mask & (ask.align_mask | (SLOT - 1));
        let size = ask.len.checked_add(kept)?.checked_add(ask.align_mask)? & !ask.align_mask;
        let wanted = Wanted::new(ask, size);
        let first_area = cpu & (self.area_count - 1);
        let mut slot = None;
        for turn in 0..self.area_count {
            slot = self.take((first_area + turn) & (self.area_count - 1), &wanted);
            if slot.is_some() {
                break;
            }
        }
        let slot = slot?;
        self.count_up(wanted.count);
        let (pad, within) = (kept / SLOT, kept % SLOT);
        let real = self.slots.get(slot + pad..slot + wanted.count)?;
        if let Some(first) = real.first() {
            first.set_pad(u16::try_from(pad).unwrap_or(0));
        }
        for (place, slot) in real.iter().enumerate() {
            slot.set_original(ask.original + place * SLOT);
        }
        Some(self.base + (slot + pad) * SLOT + within)
    }

    /// What a copy of `len` bytes at `at` touches of the driver's memory: at a map, at its end,
    /// and at a sync of a part of it. `None` where nothing is mapped there.
    #[inline]
    pub fn copyable(&self, at: usize, len: usize, keep_mask: usize) -> Option<Copyable> {
        let slot = self.slots.get(at.checked_sub(self.base)? / SLOT)?;
        let original = slot.original();
        if original == INVALID {
            return None;
        }
        // Below zero where a part begins in a later slot of a mapping that kept low bits: the
        // sums come out right all the same.
        let offset = (at % SLOT).wrapping_sub(original & keep_mask & (SLOT - 1));
        let left = slot.len().wrapping_sub(offset);
        Some(Copyable { original: original.wrapping_add(offset), len: len.min(left) })
    }

    /// Gives the slots of the mapping at `at` back; false where there is none.
    #[inline]
    pub fn unmap(&self, at: usize, keep_mask: usize) -> bool {
        let within = at & keep_mask & (SLOT - 1);
        let place = at.checked_sub(within).and_then(|start| start.checked_sub(self.base));
        let Some((index, slot)) =
            place.and_then(|place| Some((place / SLOT, self.slots.get(place / SLOT)?)))
        else {
            return false;
        };
        let Some(first) = index.checked_sub(usize::from(slot.pad())) else { return false };
        let Some(head) = self.slots.get(first) else { return false };
        if head.len() == 0 {
            return false;
        }
        let count = head.len().wrapping_add(within).div_ceil(SLOT);
        self.give(first, count);
        self.total.fetch_sub(count, Ordering::Relaxed);
        true
    }

    /// The bytes of its books for each slot: 24, and nothing to speak of for areas.
    pub const BYTES_A_SLOT: usize = size_of::<Slot>();

    /// Slots in all.
    pub fn capacity(&self) -> usize {
        self.slots.len()
    }

    /// Slots in use.
    pub fn used(&self) -> usize {
        self.total.load(Ordering::Relaxed)
    }

    /// The total and its high water (`used_hiwater`), both shared by all CPUs.
    fn count_up(&self, count: usize) {
        let used = self.total.fetch_add(count, Ordering::Relaxed) + count;
        let mut seen = self.high_water.load(Ordering::Relaxed);
        while used > seen {
            match self.high_water.compare_exchange(seen, used, Ordering::Relaxed, Ordering::Relaxed)
            {
                Ok(_) => break,
                Err(now) => seen = now,
            }
        }
    }

    fn area(&self, index: usize) -> Option<&Area> {
        self.areas.get(index / 4)?.0.get(index % 4)
    }
}
