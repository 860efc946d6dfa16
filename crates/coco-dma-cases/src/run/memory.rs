//! The memory of a case: the driver's buffers, and the source of pages for coherent memory.
// UNSAFETY: views of simulated memory, and a source of pages, are unsafe by contract.
#![expect(unsafe_code)]

use std::collections::BTreeSet;
use std::ptr::NonNull;
use std::sync::{Mutex, MutexGuard, PoisonError};

use coco_dma::addr::PageConstraints;
use coco_dma::addr::{PhysAddr, PhysRange};
use coco_dma::platform::{PageSource, Platform};
use coco_dma::state::{CacheMode, Context, State};
use coco_dma_sim::Machine;

/// A memory of the driver.
#[derive(Debug)]
pub(super) struct Buffer {
    pub(super) range: Option<PhysRange>,
    start: NonNull<u8>,
    pub(super) len: usize,
    /// The bytes of one that lies in no single run: nobody but `start` points there.
    _heap: Option<Vec<u8>>,
    /// What it was filled with.
    pub(super) fill: Vec<u8>,
}

impl Buffer {
    /// A buffer over RAM of the machine.
    pub(super) fn at(
        machine: &Machine,
        range: PhysRange,
        comes: State,
        cache: CacheMode,
    ) -> Option<Self> {
        let start = pointer(machine, range, comes, cache)?;
        let len = usize::try_from(range.len()).ok()?;
        Some(Self { range: Some(range), start, len, _heap: None, fill: Vec::new() })
    }

    /// A buffer that lies in no run of physical memory.
    pub(super) fn unlocated(len: usize) -> Option<Self> {
        let mut heap = vec![0; len];
        let start = NonNull::new(heap.as_mut_ptr())?;
        Some(Self { range: None, start, len, _heap: Some(heap), fill: Vec::new() })
    }

    /// A part of it.
    pub(super) fn part(&self, offset: usize, len: usize) -> Option<NonNull<[u8]>> {
        if offset.checked_add(len)? > self.len {
            return None;
        }
        // SAFETY: the offset lies in the buffer.
        let start = unsafe { self.start.add(offset) };
        Some(NonNull::slice_from_raw_parts(start, len))
    }

    /// Copies bytes out of it.
    pub(super) fn read(&self, offset: usize, len: usize) -> Option<Vec<u8>> {
        let part = self.part(offset, len)?;
        let mut bytes = vec![0; len];
        // SAFETY: the part lies in the buffer, which nobody else touches now; the vector is new.
        unsafe { part.cast::<u8>().copy_to(NonNull::from(bytes.as_mut_slice()).cast(), len) };
        Some(bytes)
    }

    /// Copies bytes into it. False where they do not fit.
    pub(super) fn write(&self, offset: usize, bytes: &[u8]) -> bool {
        let Some(part) = self.part(offset, bytes.len()) else { return false };
        // SAFETY: the part lies in the buffer, which nobody else touches now.
        unsafe { part.cast::<u8>().copy_from(NonNull::from(bytes).cast(), bytes.len()) };
        true
    }
}

/// Where this process sees RAM that is in `state` now.
pub(super) fn pointer(
    machine: &Machine,
    run: PhysRange,
    state: State,
    cache: CacheMode,
) -> Option<NonNull<u8>> {
    // SAFETY: a simulated machine checks the state, and its memory stays where it is.
    let view = unsafe { machine.map_cpu(run, state, cache, Context::Blocking) }.ok()?;
    // SAFETY: the view was made in the line above. The memory outlives it.
    unsafe { machine.unmap_cpu(view, run) };
    Some(view.start)
}

/// The source of pages for coherent memory.
#[derive(Debug)]
pub(super) struct Pages {
    machine: Machine,
    granule: u64,
    /// No run is longer than this, and no two touch.
    longest: Option<u64>,
    /// The granules that are out.
    out: Mutex<BTreeSet<u64>>,
}

impl Pages {
    pub(super) fn new(machine: &Machine, granule: u64, longest: Option<u64>) -> Self {
        Self { machine: machine.clone(), granule, longest, out: Mutex::default() }
    }

    pub(super) fn out(&self) -> MutexGuard<'_, BTreeSet<u64>> {
        self.out.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn granules(&self, run: PhysRange) -> impl Iterator<Item = u64> {
        let granule = self.granule;
        (0..run.len().div_ceil(granule)).map(move |index| run.base().raw() + index * granule)
    }

    /// Takes back what of a run is out: pages, and nothing else.
    pub(super) fn recover(&self, run: PhysRange) {
        for at in self.granules(run) {
            let taken = self.out().remove(&at);
            if let Some(part) = PhysRange::new(PhysAddr::new(at), self.granule).filter(|_| taken) {
                self.machine.free(part);
            }
        }
    }
}

// SAFETY: the machine gives a run to nobody else until it comes back.
unsafe impl PageSource for Pages {
    fn alloc(&self, constraints: &PageConstraints) -> Option<PhysRange> {
        let len = constraints.len;
        // In fragmented memory a granule before each run is nobody's.
        let gap = match self.longest {
            None => 0,
            Some(longest) if len > longest => return None,
            Some(_) => self.granule,
        };
        let fits = |run: PhysRange| run.slice(gap, len).is_some_and(|run| constraints.met_by(run));
        let run = self.machine.take_fitting(len.checked_add(gap)?, fits).ok()?;
        if let Some(gap) = run.slice(0, gap) {
            self.machine.free(gap);
        }
        self.out().extend(self.granules(run.slice(gap, run.len() - gap)?));
        run.slice(gap, len)
    }

    unsafe fn free(&self, run: PhysRange, _: Context) {
        self.recover(run);
    }
}
