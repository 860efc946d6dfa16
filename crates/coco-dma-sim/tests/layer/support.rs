//! What the tests share: a source of pages that notices what is wrong with what it is given, a
//! platform that asks the test at every call, and safe names for the unsafe steps.
// UNSAFETY: the traits are unsafe to implement, and the raw forms unsafe to use.
#![expect(unsafe_code)]

use std::ptr::NonNull;
use std::sync::Mutex;

use coco_dma::Dma;
use coco_dma::Word;
use coco_dma::addr::Constraints;
use coco_dma::addr::PageConstraints;
use coco_dma::addr::PhysAddr;
use coco_dma::addr::PhysRange;
use coco_dma::attrs::Attrs;
use coco_dma::coherent::AllocError;
use coco_dma::coherent::RawCoherent;
use coco_dma::convert::ConvertFailed;
use coco_dma::device::Attested;
use coco_dma::device::Device;
use coco_dma::ledger::Initial;
use coco_dma::ledger::Tracked;
use coco_dma::platform::ConvertError;
use coco_dma::platform::CpuView;
use coco_dma::platform::NoView;
use coco_dma::platform::PageSource;
use coco_dma::platform::Platform;
use coco_dma::pool::Pool;
use coco_dma::pool::PoolHandle;
use coco_dma::regime::PlatformName;
use coco_dma::regime::Regime;
use coco_dma::state::CacheMode;
use coco_dma::state::Context;
use coco_dma::state::Direction;
use coco_dma::state::PoolLabel;
use coco_dma::state::State;
use coco_dma::stream::MapError;
use coco_dma::stream::RawList;
use coco_dma::stream::RawMapping;
use coco_dma_sim::GranuleState;
use coco_dma_sim::Machine;

pub(crate) const BASE: u64 = 0x4000_0000;
pub(crate) const SIZE: u64 = 1 << 18;
pub(crate) const GRANULE: u64 = 4096;
const PAGE: u64 = 4096;

/// The platforms on which memory converts.
pub(crate) const GUESTS: [PlatformName; 9] = [
    PlatformName::Sev,
    PlatformName::Snp,
    PlatformName::SnpVtom,
    PlatformName::Tdx,
    PlatformName::Cca,
    PlatformName::Pkvm,
    PlatformName::Hyperv,
    PlatformName::S390,
    PlatformName::Pef,
];

pub(crate) fn machine(platform: PlatformName) -> Machine {
    Machine::builder(platform).ram(BASE, SIZE).build().unwrap()
}

pub(crate) fn run(base: u64, len: u64) -> PhysRange {
    PhysRange::new(PhysAddr::new(base), len).unwrap()
}

pub(crate) fn words(count: usize) -> Vec<Word> {
    (0..count).map(|_| Word::new()).collect()
}

/// Storage for the books of all RAM of such a machine.
pub(crate) fn metadata_words(granule: u64) -> Vec<Word> {
    words(Tracked::words(SIZE, granule))
}

/// The books of all RAM, everything private.
pub(crate) fn metadata(granule: u64, words: &[Word]) -> [Tracked<'_>; 1] {
    [Tracked::new(run(BASE, SIZE), granule, Initial::Private, words).unwrap()]
}

/// Pages of a part of RAM, and what was wrong with those that came back.
#[derive(Debug)]
pub(crate) struct Arena {
    machine: Machine,
    run: PhysRange,
    taken: Mutex<Vec<bool>>,
    faults: Mutex<Vec<String>>,
    contexts: Mutex<Vec<Context>>,
}

impl Arena {
    pub(crate) fn new(machine: &Machine, len: u64) -> Self {
        let run = machine.take(len).unwrap();
        let taken = vec![false; usize::try_from(run.len() / PAGE).unwrap()];
        Self {
            machine: machine.clone(),
            run,
            taken: Mutex::new(taken),
            faults: Mutex::default(),
            contexts: Mutex::default(),
        }
    }

    pub(crate) fn run(&self) -> PhysRange {
        self.run
    }

    /// Pages that are given out.
    pub(crate) fn taken(&self) -> usize {
        self.taken.lock().unwrap().iter().filter(|taken| **taken).count()
    }

    /// What was wrong.
    pub(crate) fn faults(&self) -> Vec<String> {
        self.faults.lock().unwrap().clone()
    }

    /// From which contexts pages were asked for.
    pub(crate) fn contexts(&self) -> Vec<Context> {
        self.contexts.lock().unwrap().clone()
    }

    /// Takes back what a retry recovered, as its owner would: the pages of it that are the arena's
    /// (a run may lie across what was two owners').
    pub(crate) fn recovered(&self, run: PhysRange) {
        for page in (0..run.len() / PAGE).filter_map(|page| run.slice(page * PAGE, PAGE)) {
            if self.run.contains(page) {
                // SAFETY: the page was lost to quarantine, and is ours again.
                unsafe { self.free(page, Context::Blocking) };
            }
        }
    }

    fn fault(&self, text: String) {
        self.faults.lock().unwrap().push(text);
    }
}

// SAFETY: pages of RAM that the machine gave to this arena alone, each to one taker at a time.
unsafe impl PageSource for Arena {
    fn alloc(&self, constraints: &PageConstraints) -> Option<PhysRange> {
        let PageConstraints { len, context, .. } = *constraints;
        self.contexts.lock().unwrap().push(context);
        let mut taken = self.taken.lock().unwrap();
        let count = usize::try_from(len / PAGE).unwrap();
        let free = |first: &usize| {
            let base = self.run.base().raw() + u64::try_from(*first).unwrap() * PAGE;
            let run = PhysRange::new(PhysAddr::new(base), len);
            run.is_some_and(|run| constraints.met_by(run))
                && taken.get(*first..first + count).is_some_and(|pages| !pages.contains(&true))
        };
        // From the top, so that whoever forgets a limit is given memory past it.
        let first = (0..taken.len()).rev().find(free)?;
        taken[first..first + count].fill(true);
        self.run.slice(u64::try_from(first).unwrap() * PAGE, len)
    }

    unsafe fn free(&self, run: PhysRange, _: Context) {
        let boot = if self.machine.regime().is_guest() {
            State::PRIVATE
        } else {
            self.machine.regime().states()[0]
        };
        let granule = self.machine.regime().granule();
        for page in 0..run.len() / PAGE {
            let at = run.base().checked_add(page * PAGE).unwrap();
            let index = usize::try_from((at.raw() - self.run.base().raw()) / PAGE).unwrap();
            match self.taken.lock().unwrap().get_mut(index) {
                Some(taken) if *taken => *taken = false,
                _ => self.fault(format!("{at} was given back and nobody had it")),
            }
            let state = self.machine.state(at);
            if state != Some(GranuleState::In(boot)) {
                self.fault(format!("{at} was given back {state:?}, granules of {granule:#x}"));
            }
        }
    }
}

pub(crate) fn adopt<'m>(
    machine: &Machine,
    label: PoolLabel,
    run: PhysRange,
    words: &'m [Word],
) -> Pool<'m> {
    let memory = machine.adopt_pool_at(label, run).unwrap();
    // SAFETY: the machine gave the memory to this pool alone, in that state, and every test keeps
    // its machine until the pool is gone.
    unsafe { Pool::adopt(label, memory.range, memory.view, words) }.unwrap()
}

/// A pool over memory of the machine that is the test's own.
pub(crate) fn convertible<'m>(label: PoolLabel, run: PhysRange, words: &'m [Word]) -> Pool<'m> {
    // SAFETY: while it is open, no test uses the memory in another way.
    unsafe { Pool::convertible(label, run, words) }.unwrap()
}

pub(crate) fn vouch() -> Attested {
    // SAFETY: a simulated device is whatever the test says.
    unsafe { Attested::vouch() }
}

pub(crate) fn share<P: Platform>(dma: &Dma<'_, P>, run: PhysRange) -> Result<(), ConvertFailed> {
    // SAFETY: simulated memory, which nobody holds references into.
    unsafe { dma.share(run) }
}

pub(crate) fn reclaim<P: Platform>(dma: &Dma<'_, P>, run: PhysRange) -> Result<(), ConvertFailed> {
    // SAFETY: as above.
    unsafe { dma.reclaim(run) }
}

/// The memory of a machine by its address: the linear map that a guest has.
pub(crate) fn bytes_at(machine: &Machine, run: PhysRange) -> NonNull<[u8]> {
    let state = match machine.state(run.base()) {
        Some(GranuleState::In(state)) => state,
        other => panic!("no bytes at {run}: {other:?}"),
    };
    // SAFETY: asking is harmless to a simulated machine.
    let view =
        unsafe { machine.map_cpu(run, state, CacheMode::WriteBack, Context::Blocking) }.unwrap();
    // SAFETY: the view is this one's; the memory stays where it is without one.
    unsafe { machine.unmap_cpu(view, run) };
    NonNull::slice_from_raw_parts(view.start, usize::try_from(run.len()).unwrap())
}

pub(crate) fn map<P: Platform>(
    device: &Device<'_, P>,
    bytes: NonNull<[u8]>,
    direction: Direction,
    attrs: Attrs,
) -> Result<RawMapping, MapError> {
    // SAFETY: the memory is the machine's, and devices act only when told.
    unsafe { device.map_raw(bytes, direction, attrs) }
}

/// The same by a handle of a pool.
pub(crate) fn map_with<P: Platform>(
    device: &Device<'_, P>,
    handle: &mut PoolHandle<'_>,
    bytes: NonNull<[u8]>,
    direction: Direction,
    attrs: Attrs,
) -> Result<RawMapping, MapError> {
    // SAFETY: as above.
    unsafe { device.map_raw_with(handle, bytes, direction, attrs) }
}

/// Ends a map by a handle.
pub(crate) fn finish_with<P: Platform>(
    device: &Device<'_, P>,
    handle: &mut PoolHandle<'_>,
    mapping: RawMapping,
    written: usize,
) {
    // SAFETY: as above.
    unsafe { device.unmap_raw_with(handle, mapping, written) }.unwrap();
}

/// Makes a handle keep nothing: who finds no room for all of a pool gives back what it keeps, and
/// there is none while one slot is taken.
pub(crate) fn empty(handle: &mut PoolHandle<'_>) {
    let all = handle.pool().range().len();
    if let Ok(one) = handle.alloc_raw(&Constraints::of(1)) {
        assert!(handle.alloc_raw(&Constraints::of(all)).is_err());
        // SAFETY: it was taken just now, and nobody used it.
        assert!(unsafe { handle.free_raw(one) });
    }
}

pub(crate) fn map_list<'s, P: Platform>(
    device: &Device<'_, P>,
    bytes: &[NonNull<[u8]>],
    direction: Direction,
    entries: &'s mut [Option<RawMapping>],
) -> Option<RawList<'s>> {
    // SAFETY: as above.
    unsafe { device.map_list(bytes, direction, Attrs::NONE, entries) }.ok()
}

pub(crate) fn unmap_list<P: Platform>(device: &Device<'_, P>, list: RawList<'_>, written: usize) {
    // SAFETY: as above.
    unsafe { device.unmap_list(list, written) }.unwrap();
}

pub(crate) fn finish<P: Platform>(device: &Device<'_, P>, mapping: RawMapping, written: usize) {
    // SAFETY: as above.
    unsafe { device.unmap_raw(mapping, written) }.unwrap();
}

pub(crate) fn sync_cpu<P: Platform>(device: &Device<'_, P>, mapping: &RawMapping, len: usize) {
    // SAFETY: as above.
    unsafe { device.sync_for_cpu(mapping, 0..len) };
}

pub(crate) fn sync_device<P: Platform>(device: &Device<'_, P>, mapping: &RawMapping, len: usize) {
    // SAFETY: as above.
    unsafe { device.sync_for_device(mapping, 0..len) };
}

pub(crate) fn revoke<P: Platform>(device: &Device<'_, P>) -> usize {
    // SAFETY: a simulated device acts only when told.
    unsafe { device.revoke() }
}

pub(crate) fn alloc<P: Platform>(
    device: &Device<'_, P>,
    len: usize,
    context: Context,
) -> Result<RawCoherent, AllocError> {
    device.alloc_raw(len, context)
}

pub(crate) fn free<P: Platform>(device: &Device<'_, P>, memory: RawCoherent) {
    // SAFETY: as above.
    unsafe { device.free_raw(memory) }.unwrap();
}

/// A machine that calls the test back before every view.
pub(crate) struct Hooked<'t> {
    pub(crate) inner: Machine,
    pub(crate) at_view: Box<dyn Fn() + Send + Sync + 't>,
}

// SAFETY: every answer is the machine's.
unsafe impl Platform for Hooked<'_> {
    fn regime(&self) -> Regime {
        self.inner.regime()
    }

    fn locate(&self, bytes: NonNull<[u8]>) -> Option<PhysRange> {
        self.inner.locate(bytes)
    }

    unsafe fn convert(&self, run: PhysRange, from: State, to: State) -> Result<(), ConvertError> {
        // SAFETY: the caller's condition.
        unsafe { self.inner.convert(run, from, to) }
    }

    unsafe fn map_cpu(
        &self,
        run: PhysRange,
        state: State,
        cache: CacheMode,
        context: Context,
    ) -> Result<CpuView, NoView> {
        (self.at_view)();
        // SAFETY: the caller's condition.
        unsafe { self.inner.map_cpu(run, state, cache, context) }
    }

    unsafe fn unmap_cpu(&self, view: CpuView, run: PhysRange) {
        // SAFETY: the caller's condition.
        unsafe { self.inner.unmap_cpu(view, run) };
    }
}

/// A pool over a part of memory that was adopted already.
pub(crate) fn adopt_part<'m>(
    machine: &Machine,
    label: PoolLabel,
    run: PhysRange,
    words: &'m [Word],
) -> Pool<'m> {
    let view = bytes_at(machine, run).cast();
    // SAFETY: as for `adopt`: nothing else uses the part.
    unsafe { Pool::adopt(label, run, view, words) }.unwrap()
}

impl Arena {
    /// Whether nobody has a page of `run`.
    pub(crate) fn is_free(&self, run: PhysRange) -> bool {
        let first = usize::try_from((run.base().raw() - self.run.base().raw()) / PAGE).unwrap();
        let count = usize::try_from(run.len() / PAGE).unwrap();
        !self.taken.lock().unwrap()[first..first + count].contains(&true)
    }
}

/// A part of some bytes of a machine.
pub(crate) fn part_of(bytes: NonNull<[u8]>, at: usize, len: usize) -> NonNull<[u8]> {
    assert!(at + len <= bytes.len());
    // SAFETY: it lies in them, as was just looked at.
    NonNull::slice_from_raw_parts(unsafe { bytes.cast::<u8>().add(at) }, len)
}

/// Writes to the start of an allocation, and reads all of it.
pub(crate) fn ring(memory: &RawCoherent, bytes: &[u8]) -> Vec<u8> {
    // SAFETY: its device is there, and nobody else looks.
    let ring = unsafe { memory.shared_bytes() };
    ring.write(0, bytes).unwrap();
    let mut all = vec![0; ring.len()];
    ring.read(0, &mut all).unwrap();
    all
}

impl Arena {
    /// Whether `len` bytes are to be had, aligned to `align`.
    pub(crate) fn has_room(&self, len: usize, align: usize) -> bool {
        let taken = self.taken.lock().unwrap();
        let (page, count) = (usize::try_from(PAGE).unwrap(), len.div_ceil(4096));
        let base = usize::try_from(self.run.base().raw()).unwrap();
        let aligned = |first: &usize| (base + first * page).is_multiple_of(align);
        (0..taken.len())
            .filter(aligned)
            .any(|first| taken.get(first..first + count).is_some_and(|run| !run.contains(&true)))
    }
}

/// Shares memory past the layer.
pub(crate) fn convert(machine: &Machine, run: PhysRange) {
    // SAFETY: simulated memory, which nobody holds references into.
    unsafe { machine.convert(run, State::PRIVATE, State::SHARED) }.unwrap();
}
