//! The plain model: for every slot whether it is taken, and the rules of places written down anew.

use coco_dma::addr::SLOT;

use crate::machine::COMES;
use crate::machine::POOLS;

/// What a place has to keep.
#[derive(Debug)]
pub(crate) struct Rules {
    pub(crate) len: u64,
    pub(crate) original: u64,
    /// The low bits that are those of the original.
    pub(crate) keep: u64,
    /// The address is a multiple of it, but for the bits that are kept.
    pub(crate) align: u64,
    /// 0 for none.
    pub(crate) boundary: u64,
}

impl Rules {
    fn hold_at(&self, addr: u64) -> bool {
        let last = addr + self.len - 1;
        (addr ^ self.original) & self.keep == 0
            && (addr & !self.keep).is_multiple_of(self.align)
            && (self.boundary == 0 || addr / self.boundary == last / self.boundary)
    }
}

/// Slots of a pool.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    pub(crate) pool: usize,
    pub(crate) first: usize,
    pub(crate) count: usize,
}

pub(crate) struct Model {
    taken: [Vec<bool>; 3],
    used: [usize; 3],
    most: [usize; 3],
    pub(crate) open: [bool; 3],
    refused: usize,
    took: usize,
}

impl Model {
    pub(crate) fn new() -> Self {
        let taken = POOLS.map(|(_, slots)| vec![false; slots as usize]);
        let mut open = [true; 3];
        open[COMES] = false;
        Self { taken, used: [0; 3], most: [0; 3], open, refused: 0, took: 0 }
    }

    /// In which pool an address lies, and how far; it keeps the rules.
    pub(crate) fn place(&self, addr: u64, rules: &Rules) -> (usize, usize) {
        assert!(rules.hold_at(addr), "{addr:#x} for {rules:x?}");
        let inside =
            |(base, slots): (u64, u64)| addr >= base && addr + rules.len <= base + slots * SLOT;
        let pool = POOLS.into_iter().position(inside).expect("inside a pool");
        assert!(self.open[pool], "a pool that is closed");
        (pool, (addr - POOLS[pool].0) as usize)
    }

    pub(crate) fn take(&mut self, pool: usize, offset: usize, len: usize) -> Span {
        let slot = SLOT as usize;
        let (first, end) = (offset / slot, (offset + len).div_ceil(slot));
        for taken in &mut self.taken[pool][first..end] {
            assert!(!*taken, "a slot given twice");
            *taken = true;
        }
        let count = end - first;
        self.used[pool] += count;
        self.most[pool] = self.most[pool].max(self.used[pool]);
        self.took += 1;
        Span { pool, first, count }
    }

    pub(crate) fn free(&mut self, span: &Span) {
        for taken in &mut self.taken[span.pool][span.first..span.first + span.count] {
            assert!(std::mem::take(taken), "it was held");
        }
        self.used[span.pool] -= span.count;
    }

    pub(crate) fn used(&self, pool: usize) -> usize {
        self.used[pool]
    }

    pub(crate) fn most(&self, pool: usize) -> usize {
        self.most[pool]
    }

    /// Whether a pool has a place by these rules that is free. (In a slot the first address that
    /// has the right low bits is the one that crosses a boundary last.)
    pub(crate) fn has_room(&mut self, pool: usize, rules: &Rules) -> bool {
        self.refused += 1;
        let ((base, slots), taken) = (POOLS[pool], &self.taken[pool]);
        if !self.open[pool] {
            return false;
        }
        let grid = (rules.keep | (rules.align - 1)) + 1;
        let wanted = rules.original & rules.keep;
        (0..slots).any(|slot| {
            let start = base + slot * SLOT;
            let addr = start + (wanted.wrapping_sub(start) & (grid - 1));
            let end = addr - base + rules.len;
            // The next slots have their own turn.
            addr < start + SLOT
                && end <= slots * SLOT
                && rules.hold_at(addr)
                && !taken[slot as usize..end.div_ceil(SLOT) as usize].contains(&true)
        })
    }

    /// Steps that met nothing would prove nothing.
    pub(crate) fn says_what_was_met(&self, steps: usize) {
        let (took, refused) = (self.took, self.refused);
        println!("{steps} steps: {took} runs taken, {refused} refusals looked at");
        assert!(took > steps / 4 && refused > steps / 100, "{took} {refused}");
        for (pool, (most, (_, slots))) in self.most.into_iter().zip(POOLS).enumerate() {
            assert!(most as u64 * 10 > slots * 9, "pool {pool} was filled to {most} slots alone");
        }
    }
}
