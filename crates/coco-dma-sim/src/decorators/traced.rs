//! A log of what the layer asked of its platform.
// UNSAFETY: the trait is unsafe to implement.
#![expect(unsafe_code)]

use std::ptr::NonNull;
use std::sync::Mutex;

use coco_dma::addr::MemoryMap;
use coco_dma::addr::PhysRange;
use coco_dma::platform::ConvertError;
use coco_dma::platform::CpuView;
use coco_dma::platform::NoView;
use coco_dma::platform::Platform;
use coco_dma::regime::Regime;
use coco_dma::state::CacheMode;
use coco_dma::state::Context;
use coco_dma::state::Direction;
use coco_dma::state::State;

use super::lock;

/// A platform that writes down every call with its answer.
#[derive(Debug)]
pub struct Traced<P> {
    inner: P,
    calls: Mutex<Vec<Call>>,
}

/// One call of the platform.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// `regime`.
    Regime,
    /// `locate`.
    Locate {
        /// Bytes asked about.
        len: usize,
        /// The answer.
        found: Option<PhysRange>,
    },
    /// `convert`.
    Convert {
        /// The run.
        run: PhysRange,
        /// The state that it was in.
        from: State,
        /// Which it was to be in.
        to: State,
        /// The answer.
        answer: Result<(), ConvertError>,
    },
    /// `map_cpu`.
    View {
        /// The run.
        run: PhysRange,
        /// The state.
        state: State,
        /// The memory type.
        cache: CacheMode,
        /// The context.
        context: Context,
        /// Whether there was one.
        given: bool,
    },
    /// `unmap_cpu`.
    Unview {
        /// The run.
        run: PhysRange,
    },
    /// `sync_for_device`.
    HandOver {
        /// Where the bytes lie, if they are RAM.
        at: Option<PhysRange>,
        /// Which way they go.
        direction: Direction,
        /// Whether caches need work.
        cache_work: bool,
    },
    /// `sync_for_cpu`.
    TakeBack {
        /// Where the bytes lie, if they are RAM.
        at: Option<PhysRange>,
        /// Which way they go.
        direction: Direction,
        /// Whether caches need work.
        cache_work: bool,
    },
}

impl<P: Platform> Traced<P> {
    /// `inner`, with an empty log.
    pub fn new(inner: P) -> Self {
        Self { inner, calls: Mutex::default() }
    }

    /// The platform inside.
    pub fn inner(&self) -> &P {
        &self.inner
    }

    /// The calls so far, in the order in which they were answered.
    pub fn calls(&self) -> Vec<Call> {
        lock(&self.calls).clone()
    }

    /// The calls since the last time, which are forgotten.
    pub fn take_calls(&self) -> Vec<Call> {
        std::mem::take(&mut *lock(&self.calls))
    }

    fn note(&self, call: Call) {
        lock(&self.calls).push(call);
    }
}

// SAFETY: every answer is the inner platform's.
unsafe impl<P: Platform> Platform for Traced<P> {
    fn regime(&self) -> Regime {
        self.note(Call::Regime);
        self.inner.regime()
    }

    fn memory(&self) -> MemoryMap<'_> {
        self.inner.memory()
    }

    fn cpu(&self) -> usize {
        self.inner.cpu()
    }

    fn locate(&self, bytes: NonNull<[u8]>) -> Option<PhysRange> {
        let found = self.inner.locate(bytes);
        self.note(Call::Locate { len: bytes.len(), found });
        found
    }

    unsafe fn convert(&self, run: PhysRange, from: State, to: State) -> Result<(), ConvertError> {
        // SAFETY: the caller's condition.
        let answer = unsafe { self.inner.convert(run, from, to) };
        self.note(Call::Convert { run, from, to, answer });
        answer
    }

    unsafe fn map_cpu(
        &self,
        run: PhysRange,
        state: State,
        cache: CacheMode,
        context: Context,
    ) -> Result<CpuView, NoView> {
        // SAFETY: the caller's condition.
        let answer = unsafe { self.inner.map_cpu(run, state, cache, context) };
        self.note(Call::View { run, state, cache, context, given: answer.is_ok() });
        answer
    }

    unsafe fn unmap_cpu(&self, view: CpuView, run: PhysRange) {
        self.note(Call::Unview { run });
        // SAFETY: the caller's condition.
        unsafe { self.inner.unmap_cpu(view, run) };
    }

    fn sync_for_device(&self, bytes: NonNull<[u8]>, direction: Direction, cache_work: bool) {
        self.note(Call::HandOver { at: self.inner.locate(bytes), direction, cache_work });
        self.inner.sync_for_device(bytes, direction, cache_work);
    }

    fn sync_for_cpu(&self, bytes: NonNull<[u8]>, direction: Direction, cache_work: bool) {
        self.note(Call::TakeBack { at: self.inner.locate(bytes), direction, cache_work });
        self.inner.sync_for_cpu(bytes, direction, cache_work);
    }
}
