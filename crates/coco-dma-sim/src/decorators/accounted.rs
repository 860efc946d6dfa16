//! An account of what is shared, by whom: it has to come out at zero in the end.
// UNSAFETY: the trait is unsafe to implement.
#![expect(unsafe_code)]

use std::collections::BTreeMap;
use std::ptr::NonNull;
use std::sync::Mutex;
use std::thread;
use std::thread::ThreadId;

use coco_dma::addr::MemoryMap;
use coco_dma::addr::PhysAddr;
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
use crate::number;

/// A platform that keeps the account of its conversions and views, by what they answer.
#[derive(Debug)]
pub struct Accounted<P> {
    inner: P,
    metadata: Mutex<Books>,
}

#[derive(Debug, Default)]
struct Books {
    owners: Vec<(ThreadId, String)>,
    granules: BTreeMap<PhysAddr, Entry>,
    account: Account,
}

#[derive(Debug)]
struct Entry {
    owner: String,
    doubtful: bool,
}

/// The account at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Bytes that are shared, for each owner that has any.
    pub shared: BTreeMap<String, u64>,
    /// Bytes whose state nobody knows, for each owner that has any.
    pub doubtful: BTreeMap<String, u64>,
    /// Views that have not ended.
    pub views: u64,
    /// Memory that one owner converted under another's hands.
    pub crossings: Vec<Crossing>,
}

/// A granule converted by somebody else than who shared it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Crossing {
    /// The granule.
    pub granule: PhysRange,
    /// Who shared it.
    pub owner: String,
    /// Who converted it.
    pub by: String,
    /// Where to.
    pub to: State,
}

impl Account {
    /// Whether nothing is shared, in doubt or viewed, and nobody crossed anybody.
    pub fn is_zero(&self) -> bool {
        *self == Self::default()
    }
}

impl<P: Platform> Accounted<P> {
    /// `inner`, with an account at zero.
    pub fn new(inner: P) -> Self {
        Self { inner, metadata: Mutex::default() }
    }

    /// The platform inside.
    pub fn inner(&self) -> &P {
        &self.inner
    }

    /// Runs `work`; what this thread converts in it is `owner`'s. Elsewhere the owner is nobody,
    /// by the name "".
    pub fn on_behalf<T>(&self, owner: &str, work: impl FnOnce() -> T) -> T {
        let me = thread::current().id();
        lock(&self.metadata).owners.push((me, owner.to_owned()));
        let answer = work();
        let mut metadata = lock(&self.metadata);
        if let Some(place) = metadata.owners.iter().rposition(|(thread, _)| *thread == me) {
            metadata.owners.remove(place);
        }
        answer
    }

    /// The account now.
    pub fn account(&self) -> Account {
        let metadata = lock(&self.metadata);
        let granule = self.inner.regime().granule();
        let mut account = metadata.account.clone();
        for entry in metadata.granules.values() {
            let side = if entry.doubtful { &mut account.doubtful } else { &mut account.shared };
            *side.entry(entry.owner.clone()).or_default() += granule;
        }
        account
    }
}

impl Books {
    fn owner(&self) -> String {
        let me = thread::current().id();
        let mine = self.owners.iter().rfind(|(thread, _)| *thread == me);
        mine.map(|(_, owner)| owner.clone()).unwrap_or_default()
    }

    /// The platform says that `granule` is in state `to` now, or that nobody knows.
    fn enter(&mut self, granule: PhysRange, to: State, doubtful: bool) {
        let by = self.owner();
        if let Some(entry) = self.granules.get(&granule.base())
            && entry.owner != by
        {
            let owner = entry.owner.clone();
            self.account.crossings.push(Crossing { granule, owner, by: by.clone(), to });
        }
        if matches!(to, State::PRIVATE | State::ENCRYPTED) && !doubtful {
            self.granules.remove(&granule.base());
            return;
        }
        let entry = self.granules.entry(granule.base());
        entry.or_insert(Entry { owner: by, doubtful }).doubtful = doubtful;
    }
}

// SAFETY: every answer is the inner platform's.
unsafe impl<P: Platform> Platform for Accounted<P> {
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
        // SAFETY: the caller's condition.
        let answer = unsafe { self.inner.convert(run, from, to) };
        let (done, doubt) = match answer {
            Ok(()) => (run.len(), 0),
            Err(error) => (error.done, error.doubt),
        };
        let mut metadata = lock(&self.metadata);
        let mut end = 0;
        for granule in number::granules(run, self.inner.regime().granule()) {
            let start = end;
            end += granule.len();
            if end <= done {
                metadata.enter(granule, to, false);
            } else if start < done.saturating_add(doubt) {
                metadata.enter(granule, to, true);
            }
        }
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
        if answer.is_ok() {
            lock(&self.metadata).account.views += 1;
        }
        answer
    }

    unsafe fn unmap_cpu(&self, view: CpuView, run: PhysRange) {
        // SAFETY: the caller's condition.
        unsafe { self.inner.unmap_cpu(view, run) };
        let views = &mut lock(&self.metadata).account.views;
        *views = views.saturating_sub(1);
    }

    fn sync_for_device(&self, bytes: NonNull<[u8]>, direction: Direction, cache_work: bool) {
        self.inner.sync_for_device(bytes, direction, cache_work);
    }

    fn sync_for_cpu(&self, bytes: NonNull<[u8]>, direction: Direction, cache_work: bool) {
        self.inner.sync_for_cpu(bytes, direction, cache_work);
    }
}
