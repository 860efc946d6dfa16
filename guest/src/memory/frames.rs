//! Frames of memory, private as they come, and filled with the marker while nobody uses them:
//! what leaves the guest is searched for it.
// UNSAFETY: handing out memory is a promise.
#![expect(unsafe_code)]

use core::cell::Cell;
use core::cell::RefCell;

use coco_dma::addr::PageConstraints;
use coco_dma::addr::PhysAddr;
use coco_dma::addr::PhysRange;
use coco_dma::platform::PageSource;
use coco_dma::state::Context;

use super::FRAMES;
use super::MOST;
use super::PAGE;
use super::private;
use crate::rt::OneCpu;

/// The sixteen bytes that fill private memory.
pub type Marker = [u8; 16];

const WORDS: usize = ((MOST - FRAMES) / PAGE / 64) as usize;

/// The frames: a bit for each that is taken.
#[derive(Debug)]
pub struct Frames {
    end: Cell<u64>,
    marker: Cell<Marker>,
    taken: RefCell<[u64; WORDS]>,
}

/// All of them.
pub static SOURCE: OneCpu<Frames> = OneCpu::new(Frames::new());

impl Frames {
    const fn new() -> Self {
        Self { end: Cell::new(FRAMES), marker: Cell::new([0; 16]), taken: RefCell::new([0; WORDS]) }
    }

    /// All memory up to `end`, filled with the marker.
    pub fn start(&self, end: u64, marker: Marker) {
        self.end.set(end.min(MOST));
        self.marker.set(marker);
        self.mark(FRAMES, self.end.get() - FRAMES);
    }

    /// The marker.
    pub fn marker(&self) -> Marker {
        self.marker.get()
    }

    /// Fills memory of nobody with the marker.
    fn mark(&self, at: u64, len: u64) {
        for page in (at..at + len).step_by(PAGE as usize) {
            let page = private(page).cast::<[Marker; PAGE as usize / 16]>();
            // SAFETY: the frame is private and nobody's; it is aligned to a page.
            unsafe { page.write([self.marker.get(); PAGE as usize / 16]) };
        }
    }

    /// The lowest free run of `len` bytes in `from..=last`.
    pub fn take_from(&self, from: u64, len: u64, align: u64, last: u64) -> Option<PhysRange> {
        let step = align.max(PAGE);
        let mut taken = self.taken.borrow_mut();
        let bit = |page: u64| {
            let frame = (page - FRAMES) / PAGE;
            ((frame / 64) as usize, 1_u64 << (frame % 64))
        };
        let mut at = from.max(FRAMES).checked_next_multiple_of(step)?;
        loop {
            let end = at.checked_add(len)?;
            if end > self.end.get() || end - 1 > last {
                return None;
            }
            let busy = (at..end).step_by(PAGE as usize).find(|page| {
                let (word, mask) = bit(*page);
                taken[word] & mask != 0
            });
            match busy {
                Some(page) => at = (page + PAGE).checked_next_multiple_of(step)?,
                None => break,
            }
        }
        for page in (at..at + len).step_by(PAGE as usize) {
            let (word, mask) = bit(page);
            taken[word] |= mask;
        }
        PhysRange::new(PhysAddr::new(at), len)
    }
}

// SAFETY: a frame is taken once until it is given back, and nothing else uses frames. They are
// private at the start, and who gives one back has reclaimed it.
unsafe impl PageSource for OneCpu<Frames> {
    fn alloc(&self, constraints: &PageConstraints) -> Option<PhysRange> {
        let PageConstraints { len, align, first, last, .. } = *constraints;
        let run = self.take_from(FRAMES.max(first.raw()), len, align, last.raw())?;
        if !constraints.met_by(run) {
            self.give_back(run);
            return None;
        }
        Some(run)
    }

    unsafe fn free(&self, run: PhysRange, _: Context) {
        self.give_back(run);
    }
}

impl Frames {
    fn give_back(&self, run: PhysRange) {
        self.mark(run.base().raw(), run.len());
        let mut taken = self.taken.borrow_mut();
        for page in (run.base().raw()..=run.last().raw()).step_by(PAGE as usize) {
            let frame = (page - FRAMES) / PAGE;
            taken[(frame / 64) as usize] &= !(1 << (frame % 64));
        }
    }
}
