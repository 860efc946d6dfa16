//! The search for a run in one area, and giving it back: both under the area's lock.

use super::Ask;
use super::PAGE;
use super::Reference;
use super::SET;
use super::SLOT;

/// A request in the terms of the search.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    /// Slots.
    pub(super) count: usize,
    size: usize,
    original: usize,
    /// The kept bits that fall into the first slot.
    within: usize,
    align_mask: usize,
    keep_mask: usize,
    stride: usize,
    boundary_mask: usize,
}

impl Wanted {
    #[inline]
    pub(super) fn new(ask: &Ask, size: usize) -> Self {
        // Historic: what asks for nothing and has a page or more is aligned to a page.
        let historic = ask.align_mask == 0 && ask.keep_mask == 0 && size >= PAGE;
        let align_mask = if historic { PAGE - 1 } else { ask.align_mask } | (SLOT - 1);
        let keep_mask = ask.keep_mask & !align_mask;
        Self {
            count: size.div_ceil(SLOT),
            size,
            original: ask.original,
            within: ask.original & ask.keep_mask & (SLOT - 1),
            align_mask,
            keep_mask,
            stride: align_mask.max(keep_mask) / SLOT + 1,
            boundary_mask: ask.boundary_mask,
        }
    }

    /// Whether slot addresses like this one do, kept bits and all.
    fn suits(&self, addr: usize) -> bool {
        let kept = self.original == 0 || (addr ^ self.original) & self.keep_mask == 0;
        addr & self.align_mask == 0 && kept
    }

    /// Whether a run from this address would cross the segment boundary.
    fn crosses(&self, addr: usize) -> bool {
        let slots = (self.boundary_mask / SLOT).wrapping_add(1);
        ((addr / SLOT) & (slots - 1)) + self.count > slots
    }
}

impl Reference {
    /// Takes a run in one area: from where the last search ended, once around.
    pub(super) fn take(&self, area: usize, wanted: &Wanted) -> Option<usize> {
        let first = area * self.area_slots;
        let turn = self.area(area)?.lock();
        if wanted.count > self.area_slots - turn.used() {
            return None;
        }
        let base = self.base & wanted.boundary_mask;
        let wrap = |index: usize| if index >= self.area_slots { 0 } else { index };
        let (mut index, mut checked) = (turn.index(), 0);
        let slot = loop {
            if checked >= self.area_slots {
                return None;
            }
            let slot = first + index;
            let addr = base + slot * SLOT;
            let step = if !wanted.suits(addr) {
                1
            } else if !wanted.crosses(addr)
                && usize::from(self.slots.get(slot)?.list()) >= wanted.count
            {
                break slot;
            } else {
                wanted.stride
            };
            index = wrap(index + step);
            checked += step;
        };
        let run = self.slots.get(slot..slot + wanted.count)?;
        for (place, taken) in run.iter().enumerate() {
            taken.take(wanted.size.wrapping_sub(wanted.within + place * SLOT));
        }
        self.renumber(slot, 0);
        turn.set_index(wrap(slot - first + wanted.count));
        turn.set_used(turn.used() + wanted.count);
        Some(slot)
    }

    /// Gives a run of one area back.
    pub(super) fn give(&self, first: usize, count: usize) {
        let Some(area) = self.area(first / self.area_slots) else { return };
        let turn = area.lock();
        let end = first + count;
        // Free slots behind the run join it, as far as they are of its set.
        let mut free = match self.slots.get(end) {
            Some(next) if !end.is_multiple_of(SET) => next.list(),
            _ => 0,
        };
        for slot in self.slots.get(first..end).unwrap_or_default().iter().rev() {
            free += 1;
            slot.give(free);
        }
        self.renumber(first, free);
        turn.set_used(turn.used().saturating_sub(count));
    }

    /// Numbers the free slots before `slot`, back to a used one or to the start of the set, where
    /// `free` ones follow them.
    fn renumber(&self, slot: usize, mut free: u16) {
        let mut at = slot;
        while !at.is_multiple_of(SET)
            && let Some(before) = self.slots.get(at - 1)
            && before.list() != 0
        {
            free += 1;
            before.set_list(free);
            at -= 1;
        }
    }
}
