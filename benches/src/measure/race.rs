//! Implementations beside each other: window by window in turn, all threads of one at a time.

use core::sync::atomic::AtomicBool;
use core::sync::atomic::AtomicUsize;
use core::sync::atomic::Ordering;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use super::Latency;
use super::cores::CpuPair;
use super::cores::nanos;
use super::cores::pause;
use super::cores::preemptions;
use super::lower_quartile;
use super::median;

/// Of rounds that were disturbed, as many are tried again as were wanted, and twice that.
const TRIES: usize = 3;
/// Single calls are timed in batches of this many.
const CALLS: usize = 250;
/// Pairs that no window exceeds.
const MOST: usize = 1 << 24;

/// How long and how often is measured.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Undisturbed windows of each implementation.
    pub windows: usize,
    /// How long one is, about.
    pub window: Duration,
    /// Calls that are timed one by one; 0 for none.
    pub calls: usize,
}

/// One thread's part of an implementation's work.
pub(crate) trait Lane: Send {
    /// Does so many pairs; the time that counts, `None` where this side's does not.
    fn run(&mut self, pairs: usize) -> Option<Duration>;

    /// Times so many single maps, one by one, in nanoseconds.
    fn calls(&mut self, _count: usize, _times: &mut Vec<f64>) {}
}

/// What is raced: for each implementation its lanes, one a thread.
pub(crate) struct Race<'a> {
    pub(crate) cpus: CpuPair,
    pub(crate) entrants: Vec<Vec<Box<dyn Lane + 'a>>>,
}

/// Nanoseconds a pair of each implementation, round by round.
#[derive(Debug)]
pub(crate) struct Result {
    rounds: Vec<Vec<f64>>,
    latency: Vec<Option<Latency>>,
    /// Rounds in which no window was disturbed; 0 where there were too few, and all count.
    pub(crate) quiet: usize,
}

impl Result {
    /// The lower quartile of an implementation's windows.
    pub(crate) fn ns(&self, entrant: usize) -> Option<f64> {
        lower_quartile(self.of(entrant))
    }

    /// The median over the rounds of how many times longer one takes than another.
    pub(crate) fn ratio(&self, of: usize, to: usize) -> Option<f64> {
        median(self.of(of).zip(self.of(to)).map(|(of, to)| of / to))
    }

    /// Single calls of an implementation.
    pub(crate) fn latency(&self, entrant: usize) -> Option<Latency> {
        self.latency.get(entrant).copied().flatten()
    }

    fn of(&self, entrant: usize) -> impl Iterator<Item = f64> {
        self.rounds.iter().filter_map(move |round| round.get(entrant).copied())
    }
}

/// One window of one implementation, all threads together.
#[derive(Clone, Copy, Default)]
struct Window {
    ns: f64,
    counted: u32,
    disturbed: bool,
}

struct Shared {
    pace: Pace,
    threads: usize,
    arrived: AtomicUsize,
    pairs: Vec<AtomicUsize>,
    ready: AtomicBool,
    stop: AtomicBool,
    rounds: Mutex<Vec<Vec<Window>>>,
}

/// Runs the race.
pub(crate) fn race(race: Race<'_>, pace: Pace) -> Result {
    let count = race.entrants.len();
    let threads = race.entrants.iter().map(Vec::len).max().unwrap_or(1);
    let shared = Shared {
        pace,
        threads,
        arrived: AtomicUsize::new(0),
        pairs: (0..count).map(|_| AtomicUsize::new(1)).collect(),
        ready: AtomicBool::new(false),
        stop: AtomicBool::new(false),
        rounds: Mutex::default(),
    };
    // From lanes of entrants to lanes of threads.
    let mut sides: Vec<Vec<Box<dyn Lane + '_>>> = (0..threads).map(|_| Vec::new()).collect();
    for lanes in race.entrants {
        for (side, lane) in sides.iter_mut().zip(lanes) {
            side.push(lane);
        }
    }
    let latency = thread::scope(|scope| {
        let running: Vec<_> = sides
            .into_iter()
            .enumerate()
            .map(|(side, lanes)| {
                let (shared, cpus) = (&shared, race.cpus);
                scope.spawn(move || {
                    cpus.pin(side);
                    shared.side(side, lanes)
                })
            })
            .collect();
        let done: Vec<_> = running.into_iter().map(|side| side.join()).collect();
        done.into_iter().next().and_then(thread::Result::ok).unwrap_or_default()
    });
    let all = shared.rounds.into_inner().unwrap_or_else(PoisonError::into_inner);
    let is_quiet = |round: &&Vec<Window>| round.iter().all(|window| !window.disturbed);
    let quiet = all.iter().filter(is_quiet).count();
    // On a machine that is never quiet the windows are what they are, and the row says so.
    let enough = quiet >= pace.windows.div_ceil(3);
    let rounds = all.iter().filter(|round| !enough || is_quiet(round)).map(|round| {
        round.iter().map(|window| window.ns / f64::from(window.counted.max(1))).collect()
    });
    Result { rounds: rounds.collect(), latency, quiet: if enough { quiet } else { 0 } }
}

impl Shared {
    /// All threads are here.
    fn meet(&self) {
        let target =
            (self.arrived.fetch_add(1, Ordering::AcqRel) / self.threads + 1) * self.threads;
        pause(|| self.arrived.load(Ordering::Acquire) >= target);
    }

    /// One thread's part: find how many pairs fill a window, then rounds of windows.
    fn side(&self, side: usize, mut lanes: Vec<Box<dyn Lane + '_>>) -> Vec<Option<Latency>> {
        let leads = side == 0;
        for (lane, pairs) in lanes.iter_mut().zip(&self.pairs) {
            self.fit(leads, lane.as_mut(), pairs);
        }
        for round in 0..self.pace.windows * TRIES {
            for (entrant, (lane, pairs)) in lanes.iter_mut().zip(&self.pairs).enumerate() {
                self.window(round, entrant, lane.as_mut(), pairs.load(Ordering::Relaxed));
            }
            self.meet();
            if leads {
                let rounds = self.rounds.lock().unwrap_or_else(PoisonError::into_inner);
                let quiet = rounds.iter().filter(|round| round.iter().all(|w| !w.disturbed));
                self.stop.store(quiet.count() >= self.pace.windows, Ordering::Relaxed);
            }
            self.meet();
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
        }
        if leads { self.latency(&mut lanes) } else { Vec::new() }
    }

    /// Finds how many pairs fill a window.
    fn fit(&self, leads: bool, lane: &mut dyn Lane, pairs: &AtomicUsize) {
        loop {
            let count = pairs.load(Ordering::Relaxed);
            self.meet();
            let start = Instant::now();
            lane.run(count);
            let took = start.elapsed();
            self.meet();
            if leads {
                let full = took * 2 >= self.pace.window || count >= MOST;
                let wanted = self.pace.window.as_nanos() * count as u128 / took.as_nanos().max(1);
                let wanted = usize::try_from(wanted).unwrap_or(MOST).clamp(1, MOST);
                pairs.store(wanted.min(count.saturating_mul(16)), Ordering::Relaxed);
                self.ready.store(full, Ordering::Relaxed);
            }
            self.meet();
            if self.ready.load(Ordering::Relaxed) {
                return;
            }
        }
    }

    /// One window: warm up, and measure.
    fn window(&self, round: usize, entrant: usize, lane: &mut dyn Lane, pairs: usize) {
        self.meet();
        lane.run(pairs.div_ceil(4));
        self.meet();
        let before = preemptions();
        let took = lane.run(pairs);
        let disturbed = preemptions() != before;
        let mut rounds = self.rounds.lock().unwrap_or_else(PoisonError::into_inner);
        if rounds.len() <= round {
            rounds.resize(round + 1, vec![Window::default(); self.pairs.len()]);
        }
        if let Some(window) = rounds.get_mut(round).and_then(|round| round.get_mut(entrant)) {
            window.disturbed |= disturbed;
            if let Some(took) = took {
                #[expect(clippy::cast_precision_loss, reason = "nobody counts to 2^53 here")]
                let ns = took.as_nanos() as f64 / pairs as f64;
                window.ns += ns;
                window.counted += 1;
            }
        }
    }

    /// Single calls of each lane, in batches that nothing came between.
    fn latency(&self, lanes: &mut [Box<dyn Lane + '_>]) -> Vec<Option<Latency>> {
        let timer = median((0..1001).map(|_| nanos(Instant::now()))).unwrap_or(0.0);
        let mut times: Vec<Vec<f64>> = lanes.iter().map(|_| Vec::new()).collect();
        for _ in 0..self.pace.calls.div_ceil(CALLS) {
            for (lane, times) in lanes.iter_mut().zip(&mut times) {
                let (before, kept) = (preemptions(), times.len());
                lane.calls(CALLS, times);
                if preemptions() != before {
                    times.truncate(kept);
                }
            }
        }
        times.into_iter().map(|times| Latency::of(times, timer)).collect()
    }
}
