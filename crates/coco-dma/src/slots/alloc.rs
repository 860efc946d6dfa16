//! Taking and giving: from what the CPU keeps if it can be, else from the bitmap.

use super::CacheGuard;
use super::Full;
use super::Owner;
use super::Shape;
use super::SlotRun;
use super::Slots;
use super::cache::Put;
use crate::addr::Placements;
use crate::word::Ordering;
use crate::word::Word;

impl<'m> Slots<'m> {
    /// The turn to use what a CPU keeps; `None` where CPUs keep nothing, or somebody has the turn.
    /// A wrong number costs speed and nothing else.
    #[inline]
    pub(crate) fn enter(&self, cpu: usize) -> Option<CacheGuard<'m>> {
        if self.ways == 0 {
            return None;
        }
        // Nearly always the number is in range as it is.
        let caches = self.caches;
        let number = if cpu < caches.len() { cpu } else { cpu.checked_rem(caches.len())? };
        caches.get(number)?.enter(number, self.ways)
    }

    /// Takes a run at one of `places`, on this CPU: the lowest there is, but for what is at hand.
    #[inline]
    pub(crate) fn alloc(
        &self,
        cpu: usize,
        places: &Placements,
        owner: Owner,
    ) -> Result<SlotRun, Full> {
        match self.enter(cpu) {
            Some(mut turn) => self.alloc_with(&mut turn, places, owner),
            None => self.alloc_shared(places, owner),
        }
    }

    /// The same for whoever has the turn.
    #[inline]
    pub(crate) fn alloc_with(
        &self,
        turn: &mut CacheGuard<'_>,
        places: &Placements,
        owner: Owner,
    ) -> Result<SlotRun, Full> {
        if let Some(shape) = Shape::of(places, self.shift)
            && let Some(run) = self.alloc_fast(turn, &shape, owner)
        {
            return Ok(run);
        }
        self.alloc_slow(turn, places, owner)
    }

    /// Takes a run that lies in one word of the bitmap, best of all one that the CPU has at hand;
    /// or, where it is longer, one of whole words.
    #[inline]
    pub(crate) fn alloc_fast(
        &self,
        turn: &mut CacheGuard<'_>,
        shape: &Shape,
        owner: Owner,
    ) -> Option<SlotRun> {
        let at_hand = if shape.count <= Word::BITS { turn.alloc(shape) } else { None };
        let first = match at_hand {
            Some(first) => first,
            None => self.alloc_shape(turn, shape)?,
        };
        Some(self.mark(first, shape, owner))
    }

    /// The same without the turn to use a cache: where [`alloc`](Self::alloc) takes it, too.
    #[inline(never)]
    pub(crate) fn alloc_fast_shared(&self, shape: &Shape, owner: Owner) -> Option<SlotRun> {
        let first = if shape.count <= Word::BITS && (shape.count == 1 || self.ways > 0) {
            self.map.claim_shape(shape)
        } else {
            self.map.claim_run(shape.count, |slot| shape.next(slot))
        }?;
        self.count_used(shape.count);
        Some(self.mark(first, shape, owner))
    }

    /// What is not at hand.
    #[inline(never)]
    fn alloc_shape(&self, turn: &mut CacheGuard<'_>, shape: &Shape) -> Option<usize> {
        let taken = self.find_shape(turn, shape);
        // What else came into the cache with it.
        self.keep_nothing_back(turn);
        taken
    }

    /// A run from the lowest word of all, one that the CPU keeps or one that it keeps from now on; or
    /// of whole words.
    fn find_shape(&self, turn: &mut CacheGuard<'_>, shape: &Shape) -> Option<usize> {
        if shape.count > Word::BITS {
            return turn.alloc_long(shape).or_else(|| {
                let first = self.map.claim_words(shape)?;
                self.count_used(shape.count);
                Some(first)
            });
        }
        let kept = turn.lowest(shape);
        let mut from = 0;
        while let Some(word) = self.map.with_capacity(from, shape) {
            if kept.is_some_and(|(kept, _)| kept <= word) {
                break;
            }
            let more = self.keep(turn, word, shape.count);
            if let Some(first) = turn.alloc(shape) {
                if more {
                    self.look_at_used();
                }
                return Some(first);
            }
            // Somebody else was faster.
            from = word + 1;
        }
        turn.alloc_from(kept?.1, shape)
    }

    /// Gives the slots of a run back, on this CPU. False where they were revoked before: then they
    /// may be somebody else's, and nothing happens.
    #[inline]
    pub(crate) fn free(&self, cpu: usize, run: &SlotRun) -> bool {
        match self.enter(cpu) {
            Some(mut turn) => self.free_with(&mut turn, run),
            None => self.free_shared(run),
        }
    }

    /// The same without the turn to use a cache.
    pub(crate) fn free_shared(&self, run: &SlotRun) -> bool {
        let held = self.unmark(run);
        if held {
            self.clear(run);
        }
        held
    }

    /// The same for whoever has the turn.
    #[inline]
    pub(crate) fn free_with(&self, turn: &mut CacheGuard<'_>, run: &SlotRun) -> bool {
        if !self.unmark(run) {
            return false;
        }
        match turn.put(self.first(run), run.count()) {
            Put::Kept => {}
            Put::Elsewhere => self.clear(run),
            Put::Whole(word) => self.release_bits(word, !0),
        }
        self.keep_nothing_back(turn);
        true
    }

    /// Frees the slots of a run whose holding was ended by the caller.
    #[inline(never)]
    pub(crate) fn clear(&self, run: &SlotRun) {
        self.release(self.first(run), run.count());
    }

    /// Takes these slots out of use for ever, if they are all free.
    pub(crate) fn reserve(&self, first: usize, count: usize) -> bool {
        self.map.claim(first, count).is_ok()
    }

    /// Takes what lies in no single word, and if all else fails from what CPUs keep.
    #[inline(never)]
    pub(crate) fn alloc_slow(
        &self,
        turn: &mut CacheGuard<'_>,
        places: &Placements,
        owner: Owner,
    ) -> Result<SlotRun, Full> {
        if Shape::of(places, self.shift).is_none_or(|shape| shape.count > 1)
            && let Ok(run) = self.alloc_crossing(places, owner)
        {
            return Ok(run);
        }
        let (own, others) = (self.empty(turn), self.empty_caches());
        if own || others { self.alloc_from_bitmap(places, owner) } else { Err(Full) }
    }

    /// Takes a run without the turn to use a cache.
    #[inline(never)]
    pub(super) fn alloc_shared(&self, places: &Placements, owner: Owner) -> Result<SlotRun, Full> {
        self.alloc_from_bitmap(places, owner).or_else(|Full| {
            // Once more when the CPUs have given back what they keep, if they keep anything.
            if self.empty_caches() { self.alloc_from_bitmap(places, owner) } else { Err(Full) }
        })
    }

    /// Takes a run from the bitmap: the lowest, where no CPU keeps any; else the lowest inside a
    /// word, if there is one. (Small pools are filled to the last slot, large ones quickly.)
    fn alloc_from_bitmap(&self, places: &Placements, owner: Owner) -> Result<SlotRun, Full> {
        if let Some(shape) = Shape::of(places, self.shift)
            && (shape.count == 1 || self.ways > 0)
            && let Some(first) = self.map.claim_shape(&shape)
        {
            self.count_used(shape.count);
            return Ok(self.mark(first, &shape, owner));
        }
        self.alloc_crossing(places, owner)
    }

    /// Takes a run from the bitmap, wherever it lies.
    fn alloc_crossing(&self, places: &Placements, owner: Owner) -> Result<SlotRun, Full> {
        let count = to_usize(places.units_at(places.lowest(), self.shift)).ok_or(Full)?;
        let at = |slot: usize| places.from((slot as u64) << self.shift);
        let place = |slot: usize| to_usize(at(slot)? >> self.shift);
        let first = self.map.claim_run(count, place).ok_or(Full)?;
        self.count_used(count);
        let Some(offset) = at(first).and_then(to_usize) else {
            self.release(first, count);
            return Err(Full);
        };
        Ok(self.hold(first, SlotRun { mark: owner.mark(count), offset }))
    }

    /// Keeps all free bits of a word on this CPU; whether more slots are out than ever before.
    fn keep(&self, turn: &mut CacheGuard<'_>, word: usize, count: usize) -> bool {
        let free = self.map.claim_all(word);
        let more = self.count_out(free.count_ones() as usize);
        if let Some((old, bits)) = turn.keep(word, free, count) {
            self.release_bits(old, bits);
        }
        more
    }

    /// The run that was taken from `first` on.
    #[inline]
    fn mark(&self, first: usize, shape: &Shape, owner: Owner) -> SlotRun {
        let offset = (first << self.shift) + shape.within;
        self.hold(first, SlotRun { mark: owner.mark(shape.count), offset })
    }

    /// Notes whose the run is. Relaxed: read again only by its holder, and by a revocation that
    /// the caller orders behind all maps.
    #[inline]
    fn hold(&self, first: usize, run: SlotRun) -> SlotRun {
        if let Some(mark) = self.marks.get(first) {
            mark.0.store(run.mark.get(), Ordering::Relaxed);
        }
        run
    }

    /// The number of its first slot.
    #[inline]
    pub(super) fn first(&self, run: &SlotRun) -> usize {
        run.offset >> self.shift
    }

    /// Ends the holding of a run by its only holder; false where it was ended before.
    #[inline]
    fn unmark(&self, run: &SlotRun) -> bool {
        let Some(mark) = self.marks.get(self.first(run)) else { return false };
        // No step of its own: who revokes sees to it that nobody gives back meanwhile.
        let held = mark.0.load(Ordering::Relaxed) == run.mark.get();
        if held {
            mark.0.store(0, Ordering::Relaxed);
        }
        held
    }
}

fn to_usize(value: u64) -> Option<usize> {
    usize::try_from(value).ok()
}
