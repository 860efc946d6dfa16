//! A machine whose host never converts some granules, and converts everything else.
// UNSAFETY: the trait is unsafe to implement.
#![expect(unsafe_code)]

use std::ptr::NonNull;
use std::sync::Mutex;

use coco_dma::addr::PhysRange;
use coco_dma::platform::ConvertError;
use coco_dma::platform::ConvertVerdict;
use coco_dma::platform::CpuView;
use coco_dma::platform::NoView;
use coco_dma::platform::Platform;
use coco_dma::regime::Regime;
use coco_dma::state::CacheMode;
use coco_dma::state::Context;
use coco_dma::state::State;
use coco_dma_sim::Machine;

use crate::support::GRANULE;

pub(crate) struct Stubborn {
    pub(crate) inner: Machine,
    stuck: Mutex<Vec<PhysRange>>,
    asked: Mutex<usize>,
}

impl Stubborn {
    pub(crate) fn new(inner: &Machine) -> Self {
        Self { inner: inner.clone(), stuck: Mutex::default(), asked: Mutex::default() }
    }

    /// From now on these granules stay what they are.
    pub(crate) fn stick(&self, runs: &[PhysRange]) {
        *self.stuck.lock().unwrap() = runs.to_vec();
    }

    /// Conversions that were asked for.
    pub(crate) fn asked(&self) -> usize {
        *self.asked.lock().unwrap()
    }
}

// SAFETY: every answer is the machine's, or that it was not asked.
unsafe impl Platform for Stubborn {
    fn regime(&self) -> Regime {
        self.inner.regime()
    }

    fn locate(&self, bytes: NonNull<[u8]>) -> Option<PhysRange> {
        self.inner.locate(bytes)
    }

    unsafe fn convert(&self, run: PhysRange, from: State, to: State) -> Result<(), ConvertError> {
        *self.asked.lock().unwrap() += 1;
        let stuck = self.stuck.lock().unwrap();
        let parts = (0..run.len() / GRANULE).filter_map(|part| run.slice(part * GRANULE, GRANULE));
        for part in parts {
            let done = part.base().raw() - run.base().raw();
            if stuck.iter().any(|stuck| stuck.overlaps(part)) {
                return Err(ConvertError {
                    done,
                    doubt: 0,
                    code: 7,
                    verdict: ConvertVerdict::Retry,
                });
            }
            // SAFETY: the caller's condition.
            unsafe { self.inner.convert(part, from, to) }?;
        }
        Ok(())
    }

    unsafe fn map_cpu(
        &self,
        run: PhysRange,
        state: State,
        cache: CacheMode,
        context: Context,
    ) -> Result<CpuView, NoView> {
        // SAFETY: the caller's condition.
        unsafe { self.inner.map_cpu(run, state, cache, context) }
    }

    unsafe fn unmap_cpu(&self, view: CpuView, run: PhysRange) {
        // SAFETY: the caller's condition.
        unsafe { self.inner.unmap_cpu(view, run) };
    }
}
