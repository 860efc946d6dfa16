//! What the machine implements: one trait, object-safe, of which a kernel author writes an
//! instance in an afternoon.
// UNSAFETY: the trait is unsafe to implement, since memory safety rests on what it answers.
#![expect(unsafe_code)]

use core::fmt;
use core::ptr::NonNull;

use crate::addr::MemoryMap;
use crate::addr::PageConstraints;
use crate::addr::PhysRange;
use crate::regime::Regime;
use crate::state::CacheMode;
use crate::state::Context;
use crate::state::Direction;
use crate::state::State;

/// The machine under the layer.
///
/// # Safety
///
/// 1. `regime` never changes.
/// 2. `locate` answers with the memory that really lies behind the bytes, for as long as the
///    bytes are valid.
/// 3. `convert` returns `Ok` only when every granule of the run is in the wanted state, and its
///    error tells the truth about the rest.
/// 4. `map_cpu` returns a pointer through which the whole run can be read and written with the
///    protection of the state and as the memory type, until `unmap_cpu`. Where that is not
///    write-back, the caches hold nothing of the run any more when it answers: what other mappings
///    wrote has reached memory.
pub unsafe trait Platform: Sync {
    /// The rules of this machine. Never blocks; asked once.
    fn regime(&self) -> Regime;

    /// The one run of physical memory behind `bytes`; `None` where it is in no single run (it
    /// can then be copied, never mapped in place). May be called in atomic context.
    fn locate(&self, bytes: NonNull<[u8]>) -> Option<PhysRange>;

    /// Where memory is, and how far it may ever reach. Answers about what a device can do
    /// ([`Device::required_mask`](crate::device::Device::required_mask) and the like) rest on it:
    /// where nothing is told, they are on the safe side. Any context; does not block.
    fn memory(&self) -> MemoryMap<'_> {
        MemoryMap::UNKNOWN
    }

    /// Changes `run`, which is made of whole granules, from one state to the other: between private
    /// and shared in a guest; on an SME host between encrypted and plain, for the layer's own
    /// allocations alone. Blocking context only.
    ///
    /// The default converts nothing and says so, for machines on which nothing converts.
    ///
    /// # Safety
    ///
    /// The run belongs to the caller, no reference points into it, no device has a map of it, and
    /// it is in the state `from`, or in doubt between the two.
    unsafe fn convert(&self, run: PhysRange, from: State, to: State) -> Result<(), ConvertError> {
        let _ = (run, from, to);
        Err(ConvertError { done: 0, doubt: 0, code: 0, verdict: ConvertVerdict::Never })
    }

    /// A pointer through which the CPU reads and writes `run` with the protection of `state`, as
    /// memory of type `cache`: the linear map, an alias, a window. Does not block in atomic context;
    /// where it would have to, there is no view. Views of the same memory live side by side, of
    /// other types too: a pool has its own, cached one for as long as it is open, and slots of it may
    /// have an uncached one.
    ///
    /// The default has no view of anything. An open machine without it bounces through pools that
    /// it adopted, and allocates from them.
    ///
    /// # Safety
    ///
    /// The run is memory or registers of this machine in that state, and the caller ends the view
    /// before the state changes.
    unsafe fn map_cpu(
        &self,
        run: PhysRange,
        state: State,
        cache: CacheMode,
        context: Context,
    ) -> Result<CpuView, NoView> {
        let _ = (run, state, cache, context);
        Err(NoView)
    }

    /// Ends a view. Any context, since memory that converts nothing is freed in any: what would
    /// block is put off. The default does nothing.
    ///
    /// # Safety
    ///
    /// `map_cpu` answered with `view` for this run, and nobody uses the pointer any more.
    unsafe fn unmap_cpu(&self, view: CpuView, run: PhysRange) {
        let _ = (view, run);
    }

    /// The number of the CPU that this runs on, from 0 on, as a hint: it chooses the cache of a pool
    /// ([`Pool::with_caches`](crate::pool::Pool::with_caches)). A wrong one, or one that is stale
    /// at once, costs speed and nothing else. Any context.
    #[inline]
    fn cpu(&self) -> usize {
        0
    }

    /// Promises that code stays on its CPU while the layer works (rule 5), as a kernel can that
    /// runs with preemption off. Nothing rests on it yet; what per-CPU caches save by it is planned.
    #[inline]
    fn cpu_is_stable(&self) -> bool {
        false
    }

    /// The bytes go to the device: makes the CPU's writes visible to it, with cache work where
    /// `cache_work` says that the device does not see the caches. Any context.
    ///
    /// The default orders them before whatever the driver writes next, for devices that are as
    /// close as another CPU (on x86 that takes no instruction). A platform whose devices are
    /// farther away orders by its own barrier (Arm: `dmb oshst`).
    fn sync_for_device(&self, bytes: NonNull<[u8]>, direction: Direction, cache_work: bool) {
        let _ = (bytes, direction, cache_work);
        core::sync::atomic::fence(core::sync::atomic::Ordering::Release);
    }

    /// The bytes come back from the device: makes its writes visible to the CPU. Any context.
    ///
    /// The default orders them behind whatever the driver read last (Arm, farther away: `dmb
    /// oshld`).
    fn sync_for_cpu(&self, bytes: NonNull<[u8]>, direction: Direction, cache_work: bool) {
        let _ = (bytes, direction, cache_work);
        core::sync::atomic::fence(core::sync::atomic::Ordering::Acquire);
    }
}

/// How the CPU sees a run of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuView {
    /// The first byte.
    pub start: NonNull<u8>,
    /// The platform's own word about the view, which it gets back with it: an index, a slot of a
    /// window, or 0.
    pub cookie: usize,
}

impl From<NonNull<u8>> for CpuView {
    /// A view of which the platform has nothing to remember.
    fn from(start: NonNull<u8>) -> Self {
        Self { start, cookie: 0 }
    }
}

/// Where pages of our own come from, for coherent memory.
///
/// # Safety
///
/// What `alloc` answers belongs to the caller alone until `free`: nothing uses it, no reference
/// points into it. It is private in a guest, encrypted on an SME host, and as memory is elsewhere.
pub unsafe trait PageSource: Sync {
    /// A run of pages that meets the constraints. Must not block where their context is atomic.
    fn alloc(&self, constraints: &PageConstraints) -> Option<PhysRange>;

    /// Takes back what `alloc` gave, or a part of it. Must not block where the context is atomic:
    /// memory that converted nothing is freed from any context.
    ///
    /// # Safety
    ///
    /// The run is one that `alloc` gave or a part of one, and the caller has stopped using it.
    unsafe fn free(&self, run: PhysRange, context: Context);
}

/// A conversion that did not go through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConvertError {
    /// Bytes from the start of the run that are surely in the wanted state now.
    pub done: u64,
    /// Bytes after those whose state nobody knows. What follows is surely unchanged.
    pub doubt: u64,
    /// The platform's own code, for people.
    pub code: u64,
    /// Whether it is worth another try.
    pub verdict: ConvertVerdict,
}

/// Whether a conversion that failed may succeed later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ConvertVerdict {
    /// The host may do it another time.
    Retry,
    /// It will not: the machine converts nothing, or what was answered is evidence of an attack.
    Never,
}

impl fmt::Display for ConvertError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { done, doubt, code, verdict: _ } = self;
        write!(f, "the conversion stopped after {done:#x} bytes with {doubt:#x} bytes in doubt ")?;
        write!(f, "(code {code:#x})")
    }
}

impl core::error::Error for ConvertError {}

/// The platform cannot give the CPU a view of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoView;

impl fmt::Display for NoView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the platform has no view of the run in that state")
    }
}

impl core::error::Error for NoView {}
