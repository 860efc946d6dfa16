//! The machine: RAM, the platform's rules, and a memory of all that was done to it.

mod builder;
mod mapping;
mod memory;
mod platform;
mod record;

pub use builder::BuildError;
pub use builder::Builder;
pub use mapping::CpuMapping;
pub use memory::GuestBuffer;
pub use memory::NoMemory;
pub use memory::PoolMemory;
pub use record::MachineCounts;
pub use record::Violation;
pub use record::code;

use std::fmt;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::thread;
use std::thread::ThreadId;

use coco_dma::addr::PhysAddr;
use coco_dma::addr::PhysRange;
use coco_dma::regime::PlatformName;
use coco_dma::regime::Regime;
use coco_dma::state::State;

use crate::device::Access;
use crate::eye::Eye;
use crate::eye::HostRun;
use crate::eye::Leak;
use crate::eye::Marker;
use crate::eye::Moment;
use crate::hardware::Effect;
use crate::hardware::Hardware;
use crate::hardware::OnPrivate;
use crate::hardware::Sight;
use crate::number;
use crate::ram::GranuleState;
use crate::ram::Outcome;
use crate::ram::Path;
use crate::ram::Ram;
use record::View;

/// A machine. Clones are handles of the same one.
#[derive(Clone)]
pub struct Machine {
    inner: Arc<Inner>,
}

struct Inner {
    name: PlatformName,
    regime: Regime,
    hardware: Hardware,
    present: Box<[PhysRange]>,
    ceiling: Option<PhysAddr>,
    /// The number of the CPU that the layer is told.
    cpu: AtomicUsize,
    live: Mutex<Live>,
}

/// The host: it has the rights of the outside, and CPUs that see each other's caches.
const HOST: (Sight, Path) = (Sight::Outside, Path::Coherent);

/// What changes.
pub(crate) struct Live {
    pub(crate) ram: Ram,
    pub(crate) eye: Eye,
    pub(crate) accesses: Vec<Access>,
    counts: MachineCounts,
    violations: Vec<Violation>,
    views: Vec<View>,
    atomic: Vec<ThreadId>,
}

impl Machine {
    /// A machine of this platform; say what RAM it has.
    pub fn builder(platform: PlatformName) -> Builder {
        Builder::new(platform)
    }

    /// What the layer does from now on it does on the CPU with this number.
    pub fn set_cpu(&self, cpu: usize) {
        self.inner.cpu.store(cpu, Ordering::Relaxed);
    }

    /// Its platform.
    pub fn name(&self) -> PlatformName {
        self.inner.name
    }

    /// What the host gets of private memory.
    pub fn on_private(&self) -> OnPrivate {
        self.inner.hardware.on_private
    }

    /// What sharing makes of the bytes.
    pub fn on_share(&self) -> Effect {
        self.inner.hardware.on_share
    }

    /// What reclaiming makes of the bytes.
    pub fn on_reclaim(&self) -> Effect {
        self.inner.hardware.on_reclaim
    }

    /// The true state of the granule around `at`; `None` where no memory is.
    pub fn state(&self, at: PhysAddr) -> Option<GranuleState> {
        self.live().ram.state(at)
    }

    /// Whether every granule that `run` touches is truly in `state`.
    pub fn all_in(&self, run: PhysRange, state: State) -> bool {
        self.live().ram.first_not(run, state).is_none()
    }

    /// Every run of memory that is shared with the host, whoever shared it.
    pub fn shared(&self) -> Vec<PhysRange> {
        self.live().ram.runs_in(GranuleState::In(State::SHARED))
    }

    /// Puts whole granules into a state by the machine's own hand, before the layer knows of them:
    /// what firmware shared, what the guest never accepted. The bytes stay as they are. `false`
    /// where `run` is not made of whole granules of RAM.
    pub fn set_up(&self, run: PhysRange, state: GranuleState) -> bool {
        let mut live = self.live();
        let good = live.ram.has(run) && run.is_aligned(self.inner.regime.granule());
        if good {
            live.ram.set_state(run, state);
        }
        good
    }

    /// Reads as the host does. What does not come reads as ones.
    pub fn host_read(&self, at: PhysAddr, into: &mut [u8]) -> Outcome {
        self.live().ram.read(HOST, at.raw(), into).0
    }

    /// Writes as the host does.
    pub fn host_write(&self, at: PhysAddr, from: &[u8]) -> Outcome {
        self.live().ram.write(HOST, at.raw(), from).0
    }

    /// Reads as the guest's own CPU does through its caches, of memory in any state. `false` where
    /// not all of it is RAM; then nothing is read.
    pub fn guest_read(&self, at: PhysAddr, into: &mut [u8]) -> bool {
        self.live().ram.copy_out(Path::Cpu, at.raw(), into)
    }

    /// Writes as the guest's own CPU does, into its caches. `false` where not all of it is RAM; then
    /// nothing is written.
    pub fn guest_write(&self, at: PhysAddr, from: &[u8]) -> bool {
        self.live().ram.copy_in(Path::Cpu, at.raw(), from)
    }

    /// Fills all RAM that is not shared with copies of `marker`, end to end from the start of each
    /// granule: the secrets that nobody may see.
    pub fn fill_private(&self, marker: &[u8]) {
        let granule = number::size(self.inner.regime.granule());
        let copies: Vec<u8> = marker.iter().copied().cycle().take(granule).collect();
        let mut live = self.live();
        for run in live.ram.runs_in(GranuleState::In(self.inner.hardware.at_boot)) {
            for part in number::granules(run, self.inner.regime.granule()) {
                live.ram.bare_write(part.base().raw(), &copies);
            }
        }
    }

    /// Everything that the host could read at this moment. Takes time; see
    /// [`watch_for`](Self::watch_for) for every moment.
    pub fn host_snapshot(&self) -> Vec<HostRun> {
        let live = self.live();
        let read = |range: PhysRange| {
            let mut bytes = vec![0; number::size(range.len())];
            live.ram.read(HOST, range.base().raw(), &mut bytes);
            HostRun { range, bytes }
        };
        live.ram.readable_runs().into_iter().map(read).collect()
    }

    /// Everywhere where the host could read `marker` at this moment.
    pub fn search(&self, marker: &[u8]) -> Vec<PhysRange> {
        let marker = Marker::new(marker);
        let found = |run: HostRun| marker.finds_in(run.range, &run.bytes).collect::<Vec<_>>();
        self.host_snapshot().into_iter().flat_map(found).collect()
    }

    /// From now on looks for `marker` in all that is clear to the host: in each conversion before,
    /// between and after the two things that it changes, at each access of a device, when bytes are
    /// handed over or taken back, and when a view begins or ends. The number is the one that
    /// [`Leak::marker`] carries.
    pub fn watch_for(&self, marker: &[u8]) -> usize {
        let mut live = self.live();
        let number = live.eye.watch(marker);
        live.look(Moment::Look);
        number
    }

    /// What the watch saw, now included.
    pub fn leaks(&self) -> Vec<Leak> {
        let mut live = self.live();
        live.look(Moment::Look);
        live.eye.leaks().to_vec()
    }

    /// Every access of every device of this machine so far.
    pub fn accesses(&self) -> Vec<Access> {
        self.live().accesses.clone()
    }

    /// Forgets the accesses so far.
    pub fn forget_accesses(&self) {
        self.live().accesses.clear();
    }

    /// What was done to the machine that a platform's contract forbids.
    pub fn violations(&self) -> Vec<Violation> {
        self.live().violations.clone()
    }

    /// What was done so far.
    pub fn counts(&self) -> MachineCounts {
        self.live().counts
    }

    /// Views that have not ended.
    pub fn open_views(&self) -> usize {
        self.live().views.len()
    }

    /// Runs `work` in atomic context: a conversion by this thread is a violation.
    pub fn atomic<T>(&self, work: impl FnOnce() -> T) -> T {
        let me = thread::current().id();
        self.live().atomic.push(me);
        let answer = work();
        let mut live = self.live();
        if let Some(place) = live.atomic.iter().rposition(|thread| *thread == me) {
            live.atomic.remove(place);
        }
        answer
    }

    pub(crate) fn hardware(&self) -> &Hardware {
        &self.inner.hardware
    }

    pub(crate) fn rules(&self) -> &Regime {
        &self.inner.regime
    }

    pub(crate) fn live(&self) -> MutexGuard<'_, Live> {
        // A test that failed in another thread has left nothing half done here.
        self.inner.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Live {
    /// The eye looks at everything.
    pub(crate) fn look(&mut self, moment: Moment) {
        self.eye.look(&self.ram, moment);
    }
}

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let live = self.live();
        f.debug_struct("Machine")
            .field("name", &self.inner.name)
            .field("counts", &live.counts)
            .field("violations", &live.violations)
            .finish_non_exhaustive()
    }
}
