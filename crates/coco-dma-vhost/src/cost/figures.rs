//! From windows to figures.

use coco_dma::state::Direction;

use super::{DEPTHS, DIRECTIONS, SIZES, Way};

/// Where something is measured.
#[derive(Clone, Copy, Debug)]
pub(super) struct Point {
    pub(super) size: usize,
    pub(super) depth: usize,
    pub(super) direction: Direction,
}

impl Point {
    /// All points, in the order of the report.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        SIZES.into_iter().flat_map(|size| {
            DEPTHS.into_iter().flat_map(move |depth| {
                DIRECTIONS.into_iter().map(move |direction| Self { size, depth, direction })
            })
        })
    }
}

/// What one window came to, in nanoseconds a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    pub(super) requests: u64,
    pub(super) ns: f64,
    pub(super) cpu_ns: f64,
}

/// One way at one point.
#[derive(Clone, Debug)]
pub struct CostRow {
    /// Bytes of a request.
    pub size: usize,
    /// Requests in flight.
    pub depth: usize,
    /// Which way the bytes go.
    pub direction: Direction,
    /// Where the buffers lie.
    pub way: Way,
    /// Nanoseconds from one completion to the next: the lower quartile of the windows. The device's
    /// own work is in it.
    pub ns: f64,
    /// Nanoseconds of processor time of this process a request, without the device's: the lower
    /// quartile.
    pub cpu_ns: f64,
    /// Requests a second, from `ns`.
    pub iops: f64,
    /// `ns` of this way by that of the direct way next to it, the median over the windows; 1 in the
    /// direct row.
    pub ratio: f64,
    /// The same of `cpu_ns`.
    pub cpu_ratio: f64,
    /// Requests in all windows.
    pub requests: u64,
}

/// The two rows of a point, from its pairs of windows, the bounced one first.
pub(super) fn rows(point: Point, pairs: &[[Sample; 2]]) -> [CostRow; 2] {
    let Point { size, depth, direction } = point;
    let by = |of: fn(&Sample) -> f64| {
        let ratios = pairs.iter().map(|[bounced, direct]| of(bounced) / of(direct));
        at(ratios.collect(), 0.5)
    };
    let row = |way, samples: Vec<&Sample>| {
        let quartile =
            |of: fn(&Sample) -> f64| at(samples.iter().map(|one| of(one)).collect(), 0.25);
        let (ratio, cpu_ratio) = match way {
            Way::Bounced => (by(|one| one.ns), by(|one| one.cpu_ns)),
            Way::Direct => (1.0, 1.0),
        };
        let (ns, cpu_ns) = (quartile(|one| one.ns), quartile(|one| one.cpu_ns));
        let requests = samples.iter().map(|one| one.requests).sum();
        let iops = 1e9 / ns;
        CostRow { size, depth, direction, way, ns, cpu_ns, iops, ratio, cpu_ratio, requests }
    };
    [
        row(Way::Bounced, pairs.iter().map(|[bounced, _]| bounced).collect()),
        row(Way::Direct, pairs.iter().map(|[_, direct]| direct).collect()),
    ]
}

/// The value below which so large a part of the others lies; not a number without any.
fn at(mut values: Vec<f64>, part: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let last = values.len().saturating_sub(1);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a place in a list of some dozens"
    )]
    let place = (last as f64 * part).round() as usize;
    values.get(place).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_of_each_way_and_the_median_of_pairs() {
        let sample = |ns| Sample { requests: 2, ns, cpu_ns: ns / 2.0 };
        // The machine was half as fast in the last three windows.
        let pairs = [10.0, 10.0, 20.0, 20.0, 20.0].map(|ns| [sample(ns * 3.0), sample(ns)]);
        let point = Point { size: 4096, depth: 1, direction: Direction::ToDevice };
        let [bounced, direct] = rows(point, &pairs);
        assert_eq!((bounced.way, bounced.ns, bounced.cpu_ns), (Way::Bounced, 30.0, 15.0));
        assert_eq!((direct.way, direct.ns, direct.iops), (Way::Direct, 10.0, 1e8));
        assert_eq!((bounced.ratio, bounced.cpu_ratio, direct.ratio), (3.0, 3.0, 1.0));
        assert_eq!((bounced.requests, direct.requests), (10, 10));
    }

    #[test]
    fn every_point_once() {
        assert_eq!(Point::all().count(), 8);
    }
}
