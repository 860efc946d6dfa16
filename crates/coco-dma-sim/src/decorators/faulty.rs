//! Failures by script: what a conversion says, and what it really did.
// UNSAFETY: the trait is unsafe to implement.
#![expect(unsafe_code)]

use std::collections::BTreeMap;
use std::collections::BTreeSet;
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
use coco_dma::state::Cipher;
use coco_dma::state::Context;
use coco_dma::state::Direction;
use coco_dma::state::State;
use coco_dma::state::Visibility;

use super::lock;
use super::partial::convert_some;
use crate::machine::code;

/// A platform whose conversions and views fail as a script says. Without a script nothing fails.
#[derive(Debug)]
pub struct Faulty<P> {
    inner: P,
    script: Mutex<Script>,
}

#[derive(Debug, Default)]
struct Script {
    /// Conversions and views so far; each entry below is keyed by the number of its call.
    converts: u64,
    views: u64,
    faults: BTreeMap<u64, ConvertFault>,
    no_views: BTreeSet<u64>,
    refusals: [Option<Refusal>; 2],
}

/// One conversion that fails, or lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConvertFault {
    /// What the platform answers.
    pub says: Result<(), ConvertError>,
    /// What it has done.
    pub really: Really,
}

/// What was really converted, told by granules from the start of the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Really {
    /// As much as the answer says is done, and nothing of what is in doubt.
    Done,
    /// As much as the answer says is done, and all of what is in doubt.
    DoneAndDoubt,
    /// Nothing.
    Nothing,
    /// All of it.
    All,
    /// So many.
    First(u64),
    /// Those whose bit is set, of the first 64.
    Mask(u64),
}

/// How every conversion fails from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Nothing is changed, and the answer says so: however often it is tried, no progress.
    Unchanged,
    /// Nothing is changed, and the answer says that all is in doubt.
    InDoubt,
}

impl ConvertFault {
    /// A conversion that stops and tells the truth: `done` bytes are converted, of `doubt` bytes
    /// after them none.
    pub const fn stopped(done: u64, doubt: u64, code: u64) -> Self {
        Self {
            says: Err(ConvertError { done, doubt, code, verdict: ConvertVerdict::Retry }),
            really: Really::Done,
        }
    }

    /// The same answer over another truth.
    #[must_use]
    pub const fn really(self, really: Really) -> Self {
        Self { really, ..self }
    }

    /// A conversion that says that all went well.
    pub const fn lie(really: Really) -> Self {
        Self { says: Ok(()), really }
    }

    fn picks(&self, granule: u64, number: u64) -> bool {
        let (done, doubt) = match self.says {
            Ok(()) => (u64::MAX, 0),
            Err(error) => (error.done, error.doubt),
        };
        let end = number.saturating_add(1).saturating_mul(granule);
        match self.really {
            Really::Done => end <= done,
            Really::DoneAndDoubt => end <= done.saturating_add(doubt),
            Really::Nothing => false,
            Really::All => true,
            Really::First(count) => number < count,
            Really::Mask(mask) => number < 64 && mask >> number & 1 == 1,
        }
    }
}

impl<P: Platform> Faulty<P> {
    /// `inner`, without a script.
    pub fn new(inner: P) -> Self {
        Self { inner, script: Mutex::default() }
    }

    /// The platform inside.
    pub fn inner(&self) -> &P {
        &self.inner
    }

    /// The conversion after the `skip` next ones goes as `fault` says.
    pub fn fail_convert(&self, skip: u64, fault: ConvertFault) {
        let mut script = lock(&self.script);
        let number = script.converts.saturating_add(skip);
        script.faults.insert(number, fault);
    }

    /// The view after the `skip` next ones is refused.
    pub fn fail_view(&self, skip: u64) {
        let mut script = lock(&self.script);
        let number = script.views.saturating_add(skip);
        script.no_views.insert(number);
    }

    /// Every conversion to `to` fails from now on, unless a script has something for it.
    pub fn refuse(&self, to: Visibility, refusal: Refusal) {
        if let Some(entry) = lock(&self.script).refusals.get_mut(index(State::Guest(to))) {
            *entry = Some(refusal);
        }
    }

    /// Nothing fails any more.
    pub fn heal(&self) {
        let mut script = lock(&self.script);
        script.faults.clear();
        script.no_views.clear();
        script.refusals = [None; 2];
    }

    /// Conversions asked for so far, failed ones included.
    pub fn converts(&self) -> u64 {
        lock(&self.script).converts
    }

    /// Scripted failures that have not happened yet.
    pub fn waiting(&self) -> usize {
        let script = lock(&self.script);
        script.faults.len() + script.no_views.len()
    }

    fn next_convert(&self, run: PhysRange, to: State) -> Option<ConvertFault> {
        let mut script = lock(&self.script);
        let number = script.converts;
        script.converts += 1;
        let scripted = script.faults.remove(&number);
        let refusal = script.refusals.get(index(to)).copied().flatten();
        scripted.or(refusal.map(|refusal| match refusal {
            Refusal::Unchanged => ConvertFault::stopped(0, 0, code::REFUSED),
            Refusal::InDoubt => ConvertFault::stopped(0, run.len(), code::REFUSED),
        }))
    }
}

/// Which of the two ways a conversion goes.
const fn index(to: State) -> usize {
    match to {
        State::Guest(Visibility::Shared) | State::Host(Cipher::Plain) => 1,
        _ => 0,
    }
}

// SAFETY: 1, 2 and 4 are the inner platform's, asked each time. 3. is broken by scripts on purpose,
// as a hostile host would; the memory of a simulated machine stays memory in every state.
unsafe impl<P: Platform> Platform for Faulty<P> {
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
        let Some(fault) = self.next_convert(run, to) else {
            // SAFETY: the caller's condition.
            return unsafe { self.inner.convert(run, from, to) };
        };
        let granule = self.regime().granule();
        // SAFETY: the caller's condition.
        unsafe {
            convert_some(&self.inner, run, (from, to), |number| fault.picks(granule, number))
        };
        fault.says
    }

    unsafe fn map_cpu(
        &self,
        run: PhysRange,
        state: State,
        cache: CacheMode,
        context: Context,
    ) -> Result<CpuView, NoView> {
        {
            let mut script = lock(&self.script);
            let number = script.views;
            script.views += 1;
            if script.no_views.remove(&number) {
                return Err(NoView);
            }
        }
        // SAFETY: the caller's condition.
        unsafe { self.inner.map_cpu(run, state, cache, context) }
    }

    unsafe fn unmap_cpu(&self, view: CpuView, run: PhysRange) {
        // SAFETY: the caller's condition: the view came from the inner platform.
        unsafe { self.inner.unmap_cpu(view, run) };
    }

    fn sync_for_device(&self, bytes: NonNull<[u8]>, direction: Direction, cache_work: bool) {
        self.inner.sync_for_device(bytes, direction, cache_work);
    }

    fn sync_for_cpu(&self, bytes: NonNull<[u8]>, direction: Direction, cache_work: bool) {
        self.inner.sync_for_cpu(bytes, direction, cache_work);
    }
}
