//! A host that means harm: it writes shared memory whenever bytes change hands, and stops
//! conversions where it likes.
// UNSAFETY: the trait is unsafe to implement.
#![expect(unsafe_code)]

use std::ptr::NonNull;
use std::sync::Mutex;

use coco_dma::addr::MemoryMap;
use coco_dma::addr::PhysRange;
use coco_dma::platform::ConvertError;
use coco_dma::platform::ConvertVerdict;
use coco_dma::platform::CpuView;
use coco_dma::platform::NoView;
use coco_dma::platform::Platform;
use coco_dma::regime::Regime;
use coco_dma::state::CacheMode;
use coco_dma::state::Context;
use coco_dma::state::Direction;
use coco_dma::state::State;

use super::lock;
use super::partial::convert_some;
use crate::machine::Machine;
use crate::machine::code;
use crate::noise::Rng;
use crate::ram::Outcome;

/// A platform on a hostile host. What it does follows from the seed alone.
#[derive(Debug)]
pub struct Adversary<P> {
    inner: P,
    machine: Machine,
    malice: Malice,
    rng: Mutex<Rng>,
}

/// What the host does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Malice {
    /// Bytes that it changes in what is handed over or taken back, each time, as far as it can
    /// write there.
    pub flips_handed: u32,
    /// Bytes that it changes anywhere in shared memory each time.
    pub flips_shared: u32,
    /// How often it stops a conversion somewhere, in 256ths. The answer is true: what is done is
    /// done, what follows the doubt is unchanged, and of what is in doubt some is converted.
    pub stops: u16,
    /// How often the answer makes no sense, in 256ths: lengths past the run, or that are no
    /// granules, or whose sum wraps. Any part of the run is converted.
    pub nonsense: u16,
}

impl<P: Platform> Adversary<P> {
    /// `inner`, on a host whose hands are in `machine`.
    pub fn new(inner: P, machine: &Machine, malice: Malice, seed: u64) -> Self {
        Self { inner, machine: machine.clone(), malice, rng: Mutex::new(Rng::new(seed)) }
    }

    /// The platform inside.
    pub fn inner(&self) -> &P {
        &self.inner
    }

    fn meddle(&self, bytes: NonNull<[u8]>) {
        if let Some(run) = self.inner.locate(bytes) {
            (0..self.malice.flips_handed).for_each(|_| self.flip(run));
        }
        if self.malice.flips_shared > 0 {
            let shared = self.machine.shared();
            for _ in 0..self.malice.flips_shared {
                let count = u64::try_from(shared.len()).unwrap_or(0);
                let index = lock(&self.rng).below(count);
                if let Some(run) = usize::try_from(index).ok().and_then(|index| shared.get(index)) {
                    self.flip(*run);
                }
            }
        }
    }

    /// Changes a byte of `run`, if the host sees it in clear.
    fn flip(&self, run: PhysRange) {
        let (offset, noise) = {
            let mut rng = lock(&self.rng);
            (rng.below(run.len()), rng.below(255))
        };
        let Some(at) = run.base().checked_add(offset) else { return };
        let mut byte = [0];
        if self.machine.host_read(at, &mut byte) == Outcome::Clear {
            let mask = u8::try_from(noise + 1).unwrap_or(1);
            self.machine.host_write(at, &byte.map(|byte| byte ^ mask));
        }
    }

    /// What is really converted, and what is said, where the host does not let a conversion pass.
    fn stop(&self, run: PhysRange) -> Option<(Vec<bool>, ConvertError)> {
        let mut rng = lock(&self.rng);
        let granule = self.inner.regime().granule();
        let count = run.len() / granule;
        let dice = rng.below(256);
        if dice < u64::from(self.malice.nonsense) {
            let picks = (0..count).map(|_| rng.below(2) == 0).collect();
            let odd = [run.len() + 1, u64::MAX, u64::MAX - run.len(), granule - 1, granule / 2 + 1];
            let mut length = || {
                let index = usize::try_from(rng.below(5)).unwrap_or(0);
                odd.get(index).copied().unwrap_or(u64::MAX)
            };
            let (done, doubt) = (length(), length());
            return Some((
                picks,
                ConvertError { done, doubt, code: code::HOSTILE, verdict: ConvertVerdict::Retry },
            ));
        }
        if dice < u64::from(self.malice.nonsense) + u64::from(self.malice.stops) {
            let done = rng.below(count);
            let doubt = rng.below(count - done + 1);
            let picks = (0..count)
                .map(|number| number < done || (number < done + doubt && rng.below(2) == 0))
                .collect();
            let (done, doubt) = (done * granule, doubt * granule);
            return Some((
                picks,
                ConvertError { done, doubt, code: code::HOSTILE, verdict: ConvertVerdict::Retry },
            ));
        }
        None
    }
}

// SAFETY: 1, 2 and 4 are the inner platform's, asked each time. 3. is broken by nonsense on
// purpose; the memory of a simulated machine stays memory in every state.
unsafe impl<P: Platform> Platform for Adversary<P> {
    fn regime(&self) -> Regime {
        self.inner.regime()
    }

    fn memory(&self) -> MemoryMap<'_> {
        self.inner.memory()
    }

    fn cpu(&self) -> usize {
        self.inner.cpu()
    }

    fn locate(&self, bytes: NonNull<[u8]>) -> Option<PhysRange> {
        self.inner.locate(bytes)
    }

    unsafe fn convert(&self, run: PhysRange, from: State, to: State) -> Result<(), ConvertError> {
        let Some((picks, error)) = self.stop(run) else {
            // SAFETY: the caller's condition.
            return unsafe { self.inner.convert(run, from, to) };
        };
        let picked = |number| {
            let index = usize::try_from(number).ok();
            index.and_then(|index| picks.get(index)) == Some(&true)
        };
        // SAFETY: the caller's condition.
        unsafe { convert_some(&self.inner, run, (from, to), picked) };
        Err(error)
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

    fn sync_for_device(&self, bytes: NonNull<[u8]>, direction: Direction, cache_work: bool) {
        self.inner.sync_for_device(bytes, direction, cache_work);
        self.meddle(bytes);
    }

    fn sync_for_cpu(&self, bytes: NonNull<[u8]>, direction: Direction, cache_work: bool) {
        self.meddle(bytes);
        self.inner.sync_for_cpu(bytes, direction, cache_work);
    }
}
