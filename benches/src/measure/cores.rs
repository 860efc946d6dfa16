//! The processors: which ones there are, how far apart they are, and what the scheduler did.
// UNSAFETY: asks the kernel for this thread's context switches.
#![expect(unsafe_code)]

use core::cell::Cell;
use core::mem::MaybeUninit;
use core::sync::atomic::AtomicUsize;
use core::sync::atomic::Ordering;
use std::thread;
use std::time::Instant;

use rustix::thread::CpuSet;
use serde::Serialize;

/// Under this a cache line goes round between two cores that are near, in nanoseconds. (Far ones
/// were never seen below 350, near ones never above 120.)
const NEAR: f64 = 220.0;
/// Spins of a waiting thread before it gives its processor to others.
const SPINS: usize = 1 << 10;

/// How two cores stand to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Placement {
    /// A line goes round in little more than a hundred nanoseconds.
    Near,
    /// It takes several times that: other core complexes, other sockets.
    Far,
}

/// The distance of the two cores, measured now: a hypervisor may move them at any time.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Cores {
    /// How long a cache line takes there and back.
    pub ping_pong_ns: f64,
    /// What that means.
    pub placement: Placement,
}

/// Two processors of this process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CpuPair([usize; 2]);

impl CpuPair {
    /// The first two processors that this process may use; the same twice where it has one.
    pub(crate) fn here() -> std::io::Result<(Self, usize)> {
        let set = rustix::thread::sched_getaffinity(None)?;
        let all: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect();
        let first = all.first().copied().unwrap_or(0);
        Ok((Self([first, all.get(1).copied().unwrap_or(first)]), all.len()))
    }

    /// Keeps this thread on the processor with this index.
    pub(crate) fn pin(&self, index: usize) {
        stand_for(index);
        let mut set = CpuSet::new();
        let [first, second] = self.0;
        set.set(if index == 0 { first } else { second });
        // Where it is forbidden the scheduler does what it does, and windows are discarded.
        let _ = rustix::thread::sched_setaffinity(None, &set);
    }

    /// How far apart they are.
    pub(crate) fn distance(&self) -> Cores {
        const TURNS: usize = 2_000;
        let line = AtomicUsize::new(0);
        let rounds = |side: usize, turns: usize| {
            self.pin(side);
            let mut times = Vec::new();
            for batch in 0..turns / 100 {
                let start = Instant::now();
                for turn in 0..100 {
                    let turn = 2 * (batch * 100 + turn) + side;
                    pause(|| line.load(Ordering::Acquire) == turn);
                    line.store(turn + 1, Ordering::Release);
                }
                times.push(nanos(start) / 100.0);
            }
            times
        };
        let times = thread::scope(|scope| {
            let other = scope.spawn(|| rounds(1, TURNS));
            let here = scope.spawn(|| rounds(0, TURNS));
            let _ = other.join();
            here.join().unwrap_or_default()
        });
        let ping_pong_ns = super::median(times).unwrap_or(0.0);
        let placement = if ping_pong_ns < NEAR { Placement::Near } else { Placement::Far };
        Cores { ping_pong_ns, placement }
    }
}

thread_local! {
    /// As a kernel keeps it: near at hand for each CPU.
    static CPU: Cell<usize> = const { Cell::new(0) };
}

/// From now on this thread counts as the processor with this index, wherever it runs: whoever sets
/// up what another thread will do does it in that one's name.
pub(crate) fn stand_for(index: usize) {
    CPU.set(index);
}

/// The index of the processor that this thread stands for; the first where nobody said.
#[inline]
pub(crate) fn cpu() -> usize {
    CPU.get()
}

/// Waits until something holds.
#[inline]
pub(crate) fn pause(mut holds: impl FnMut() -> bool) {
    let mut spins = 0;
    while !holds() {
        spins += 1;
        if spins < SPINS {
            core::hint::spin_loop();
        } else {
            thread::yield_now();
        }
    }
}

/// How often this thread lost its processor against its will.
pub(super) fn preemptions() -> i64 {
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the pointer is to a whole `rusage`.
    let told = unsafe { libc::getrusage(libc::RUSAGE_THREAD, usage.as_mut_ptr()) };
    if told != 0 {
        return 0;
    }
    // SAFETY: the kernel filled it in, and all zeroes are one too.
    unsafe { usage.assume_init() }.ru_nivcsw
}

#[expect(clippy::cast_precision_loss, reason = "no window lasts 2^53 nanoseconds")]
pub(super) fn nanos(start: Instant) -> f64 {
    start.elapsed().as_nanos() as f64
}
