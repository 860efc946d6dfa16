//! One run: every point, every way that the core offers, beside the reference and the floor.

mod contest;

use std::io;

use crate::aims;
use crate::hand::Subject;
use crate::measure::CpuPair;
use crate::measure::Pace;
use crate::memory::Buffers;
use crate::memory::Region;
use crate::menu::Choice;
use crate::menu::has_room;
use crate::reference::SLOT;
use crate::row::Fragmentation;
use crate::row::Point;
use crate::row::Report;
use crate::subjects::Linux;
use crate::subjects::OFFERED;
use crate::subjects::Visit;
use crate::subjects::suits;
use crate::subjects::with;
use crate::terms::Terms;
use crate::work::lasts_to;
use contest::Contest;

/// Pool memory of both sides: each has its own, so that neither finds the other's lines.
struct Ground {
    ours: Region,
    reference: Region,
}

impl Ground {
    fn new(len: usize) -> io::Result<Self> {
        // Both, and the largest set of buffers beside them.
        let wanted = 2 * len + (256 << 20);
        if available().is_some_and(|available| available < wanted) {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        Ok(Self { ours: Region::new(len, true)?, reference: Region::new(len, true)? })
    }
}

/// The pool of the fragmentation test, and the mappings that it tries.
const FRAGMENTED: usize = 64 << 20;
const LARGE: [usize; 2] = [64 << 10, 256 << 10];

/// Measures what was chosen. `progress` is told before each point how many are done, and of how
/// many. Blocks for as long as it takes; starts threads of its own.
pub fn bench(
    choice: &Choice,
    pace: Pace,
    mut progress: impl FnMut(usize, usize, &Point),
) -> io::Result<Report> {
    let (cpus, count) = CpuPair::here()?;
    let points = choice.points();
    let mut report = Report {
        cores: (count > 1).then(|| cpus.distance()),
        windows: pace.windows,
        window_us: pace.window.as_secs_f64() * 1e6,
        rows: Vec::new(),
        fragmentation: Vec::new(),
        left_out: Vec::new(),
    };
    let mut ground: Option<Ground> = None;
    for (done, point) in points.iter().enumerate() {
        progress(done, points.len(), point);
        if point.threads > 1 && count < 2 {
            report.left_out.push(format!("{point}: this process has one processor"));
            continue;
        }
        if !has_room(point) {
            report.left_out.push(format!("{point}: the pool has no room for that"));
            continue;
        }
        if ground.as_ref().is_none_or(|ground| ground.ours.len() != point.pool_size) {
            // The old one goes first.
            drop(ground.take());
            ground = Ground::new(point.pool_size).ok();
        }
        let Some(ground) = &ground else {
            let mib = point.pool_size >> 20;
            report.left_out.push(format!("{point}: no memory for two pools of {mib} MiB"));
            continue;
        };
        let buffers = Buffers::new(point.live(), point.size)?;
        for (way, handle) in OFFERED.iter().copied() {
            if !suits(way, &point.terms()) {
                continue;
            }
            let contest = Contest { point, ground, buffers: &buffers, cpus, pace, way, handle };
            match with((way, handle), &ground.ours, &buffers, point.terms(), contest)? {
                Some(row) => report.rows.push(row),
                None => report.left_out.push(format!("{point}: ours has no room for that")),
            }
        }
    }
    // A question of its own, that is asked unless somebody asked for something else.
    let everything = [&choice.threads, &choice.sizes, &choice.depths, &choice.occupancies];
    if everything.iter().all(|list| list.is_empty()) {
        drop(ground);
        report.fragmentation = fragmentation(if choice.quick { 2 } else { 8 })?;
    }
    Ok(report)
}

fn fragmentation(churns: usize) -> io::Result<Vec<Fragmentation>> {
    // Nothing is copied by the clock here: pages that are touched come when they are.
    let regions = (Region::new(FRAGMENTED, false)?, Region::new(FRAGMENTED, false)?);
    let buffers = Buffers::new(1, 1)?;
    let terms = Terms::TO_DEVICE;
    let wrong = io::ErrorKind::InvalidInput;
    let reference = Linux::new(&regions.1, Terms { sync: false, ..terms }).ok_or(wrong)?;
    let theirs = lasts_to(&reference, FRAGMENTED / SLOT, &buffers, LARGE, churns);
    let mut all = Vec::new();
    for (way, handle) in OFFERED.iter().copied() {
        let ours = with((way, handle), &regions.0, &buffers, terms, Fragment(&buffers, churns))?;
        for ((size, occupancy), reference_occupancy) in LARGE.into_iter().zip(ours).zip(theirs) {
            let aim = aims::fragmentation(size);
            let pool_size = FRAGMENTED;
            all.push(Fragmentation {
                size,
                pool_size,
                way,
                handle,
                occupancy,
                reference_occupancy,
                aim,
            });
        }
    }
    Ok(all)
}

struct Fragment<'a>(&'a Buffers, usize);

impl Visit for Fragment<'_> {
    type Out = [usize; LARGE.len()];

    fn visit<S: Subject>(self, subject: &S) -> Self::Out {
        lasts_to(subject, FRAGMENTED / SLOT, self.0, LARGE, self.1)
    }
}

/// Bytes of memory that the kernel has for us.
fn available() -> Option<usize> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: usize = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    kib.checked_mul(1 << 10)
}
