//! One point: one way through the core, the reference, and the floors of both.

use core::ptr::NonNull;
use core::sync::atomic::AtomicUsize;
use core::sync::atomic::Ordering;
use std::time::Duration;

use super::Ground;
use crate::aims;
use crate::hand::Handle;
use crate::hand::Subject;
use crate::hand::Way;
use crate::measure::CpuPair;
use crate::measure::Lane;
use crate::measure::Pace;
use crate::measure::Race;
use crate::measure::race;
use crate::measure::stand_for;
use crate::memory::Buffers;
use crate::memory::Region;
use crate::reference::SLOT;
use crate::row::Point;
use crate::row::Row;
use crate::row::Work;
use crate::subjects::Linux;
use crate::subjects::Visit;
use crate::work::Failing;
use crate::work::Floor;
use crate::work::Steady;
use crate::work::active;
use crate::work::fill;
use crate::work::handoff;

/// Pairs that are traced for the floor: at least a full turn of a pool, within reason.
const TRACE: std::ops::RangeInclusive<usize> = 1 << 10..=1 << 19;

/// What is measured of one way at one point.
pub(super) struct Contest<'a> {
    pub(super) point: &'a Point,
    pub(super) ground: &'a Ground,
    pub(super) buffers: &'a Buffers,
    pub(super) cpus: CpuPair,
    pub(super) pace: Pace,
    pub(super) way: Way,
    pub(super) handle: Handle,
}

/// The lanes of one implementation, and those of its floor.
struct Entry<'a> {
    lanes: Lanes<'a>,
    floor: Option<Lanes<'a>>,
}

/// A thread that has nothing to do.
struct Idle;

impl Lane for Idle {
    fn run(&mut self, _: usize) -> Option<Duration> {
        None
    }
}

/// What one entrant runs: a lane a thread.
type Lanes<'a> = Vec<Box<dyn Lane + 'a>>;

/// Enters lanes, where there are any; their number.
fn enter<'a>(entrants: &mut Vec<Lanes<'a>>, lanes: Option<Lanes<'a>>) -> Option<usize> {
    entrants.push(lanes?);
    Some(entrants.len() - 1)
}

impl Visit for Contest<'_> {
    type Out = Option<Row>;

    /// `None` where the core's pool has no room for the point.
    fn visit<S: Subject>(self, subject: &S) -> Option<Row> {
        let point = self.point;
        let reference = Linux::new(&self.ground.reference, point.terms())?;
        let capacity = point.pool_size / SLOT;
        let filled = point.occupancy > 0 && point.work != Work::Failing;
        // Kept until all is measured.
        let (percent, room) = (point.occupancy, (point.live(), point.size));
        let _ours = filled.then(|| fill::fill(subject, percent, capacity, self.buffers, room));
        let _theirs = filled.then(|| fill::fill(&reference, percent, capacity, self.buffers, room));

        let refused = [AtomicUsize::new(0), AtomicUsize::new(0)];
        let [refused_ours, refused_theirs] = &refused;
        let ours = self.entry(subject, &self.ground.ours, refused_ours)?;
        let theirs = self.entry(&reference, &self.ground.reference, refused_theirs);
        let ours = Some(ours).filter(|_| refused_ours.load(Ordering::Relaxed) == 0)?;
        let theirs = theirs.filter(|_| refused_theirs.load(Ordering::Relaxed) == 0);

        // In the order in which they run: ours, its floor, theirs, its floor.
        let mut entrants = vec![ours.lanes];
        let floor = enter(&mut entrants, ours.floor);
        let (lanes, their_floor) =
            theirs.map_or((None, None), |entry| (Some(entry.lanes), entry.floor));
        let theirs = enter(&mut entrants, lanes);
        let their_floor = enter(&mut entrants, their_floor);

        let cores = (point.threads > 1).then(|| self.cpus.distance());
        let calls = if point.threads == 1 { self.pace.calls } else { 0 };
        let result = race(Race { cpus: self.cpus, entrants }, Pace { calls, ..self.pace });
        if refused_ours.load(Ordering::Relaxed) > 0 {
            return None;
        }
        let fair = refused_theirs.load(Ordering::Relaxed) == 0;
        let theirs = theirs.filter(|_| fair);
        let ns = result.ns(0)?;
        let reference_ns = theirs.and_then(|theirs| result.ns(theirs));
        let placement = cores.map(|cores| cores.placement);
        Some(Row {
            point: *point,
            way: self.way,
            handle: self.handle,
            ns,
            floor_ns: floor.and_then(|floor| result.ns(floor)).unwrap_or(0.0),
            reference_ns,
            reference_floor_ns: their_floor.filter(|_| fair).and_then(|floor| result.ns(floor)),
            ratio: reference_ns.map(|reference_ns| reference_ns / ns),
            ratio_median: theirs.and_then(|theirs| result.ratio(theirs, 0)),
            latency: result.latency(0),
            reference_latency: theirs.and_then(|theirs| result.latency(theirs)),
            cores,
            quiet_rounds: result.quiet,
            // They are for the pool alone.
            aims: match self.way {
                Way::Pool => aims::aims(point, self.handle, placement),
                Way::Whole => Vec::new(),
            },
        })
    }
}

impl Contest<'_> {
    /// The lanes of one implementation at this point, its floor traced. `None` where it cannot
    /// play.
    fn entry<'s, S: Subject>(
        &'s self,
        subject: &'s S,
        region: &'s Region,
        refused: &'s AtomicUsize,
    ) -> Option<Entry<'s>> {
        let point = self.point;
        match point.work {
            Work::Own => {
                let mut entry = Entry { lanes: Vec::new(), floor: Some(Vec::new()) };
                for thread in 0..point.threads {
                    let buffers = self.some(thread * point.depth..(thread + 1) * point.depth);
                    let (lane, floor) = self.steady(subject, thread, buffers, region, refused)?;
                    entry.lanes.push(Box::new(lane));
                    entry.floor.as_mut()?.push(Box::new(floor));
                }
                Some(entry)
            }
            Work::Handoff | Work::Device => {
                let buffers = self.some(0..point.live());
                // Its hand is given back before the lanes take theirs.
                let (mut lane, floor) =
                    self.steady(subject, 0, buffers.clone(), region, refused)?;
                lane.clear();
                drop(lane);
                let lanes = if point.work == Work::Handoff {
                    handoff(subject.worker(0)?, subject.worker(1)?, buffers)
                } else {
                    active(subject.worker(0)?, buffers, region, point.direction, refused)
                };
                Some(Entry { lanes, floor: Some(vec![Box::new(floor), Box::new(Idle)]) })
            }
            Work::Failing => {
                let (small, large) = (self.buffers.scratch(64), self.buffers.get(0));
                let lane = Failing::new(subject.worker(0)?, small, large)?;
                Some(Entry { lanes: vec![Box::new(lane)], floor: None })
            }
        }
    }

    /// A lane in the steady state, and the copies of a full turn of it.
    fn steady<'s, S: Subject>(
        &self,
        subject: &'s S,
        cpu: usize,
        buffers: Vec<NonNull<[u8]>>,
        region: &'s Region,
        refused: &'s AtomicUsize,
    ) -> Option<(Steady<'s, S::Worker<'s>>, Floor<'s>)> {
        let point = self.point;
        let turn = point.pool_size / point.size.next_multiple_of(SLOT);
        let pairs = (turn + 2 * point.depth).clamp(*TRACE.start(), *TRACE.end());
        // Copies of a whole turn of large mappings take long; a few hundred megabytes will do.
        let pairs = pairs.min(((512 << 20) / point.size).max(4 * point.live()));
        let mut lane = Steady::new(subject.worker(cpu)?, buffers.clone(), point.order, refused);
        stand_for(cpu);
        let floor = Floor::new(lane.trace(pairs), buffers, region, point.terms());
        Some((lane, floor))
    }

    fn some(&self, which: std::ops::Range<usize>) -> Vec<NonNull<[u8]>> {
        which.map(|index| self.buffers.get(index)).collect()
    }
}
