//! What issue 6 asks for: the ratios to the reference that must be, and those to aim at. All hold
//! for the pool alone; the whole way is shown beside them.

use serde::Serialize;

use crate::hand::Handle;
use crate::measure::Placement;
use crate::row::Order;
use crate::row::Point;
use crate::row::Work;

/// What must be, and what to aim at.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Aim {
    /// At least this (of nanoseconds at most).
    pub must: f64,
    /// At best this.
    pub aim: f64,
    /// Of what.
    pub of: Measure,
}

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Measure {
    /// The reference's time for a pair by ours.
    Ratio,
    /// The reference's p99 of a map by ours.
    P99Ratio,
    /// Nanoseconds a pair above the floor: at most.
    AboveFloor,
    /// A percentage of the pool.
    Occupancy,
}

const KIB: usize = 1 << 10;
const GIB: usize = 1 << 30;

/// The aims of a point.
pub(crate) fn aims(point: &Point, handle: Handle, placement: Option<Placement>) -> Vec<Aim> {
    let above = Aim { must: 20.0, aim: 8.0, of: Measure::AboveFloor };
    let of_floor = *point == Point { size: 4 * KIB, ..Point::START };
    let above = (of_floor && handle == Handle::Exclusive).then_some(above);
    aim(point, handle, placement).into_iter().chain(above).collect()
}

/// The aim of a point, if issue 6 has one. (64 MiB, to the device, with copies, without a mask,
/// unless it says otherwise.)
fn aim(point: &Point, handle: Handle, placement: Option<Placement>) -> Option<Aim> {
    let plain = Point {
        work: point.work,
        size: point.size,
        threads: point.threads,
        depth: point.depth,
        occupancy: point.occupancy,
        pool_size: point.pool_size,
        order: point.order,
        ..Point::START
    };
    if *point != plain {
        return None;
    }
    let exclusive = handle == Handle::Exclusive;
    let (size, depth, huge) = (point.size, point.depth, point.pool_size == GIB);
    let far = placement == Some(Placement::Far);
    let (must, aim) = match (point.work, point.threads) {
        (Work::Failing, _) => return ratio(if huge { (500.0, 2500.0) } else { (200.0, 700.0) }),
        (Work::Own, 1) if point.occupancy == 99 => match (size, depth) {
            (64, 1) if huge => (6.0, 35.0),
            (64, 1) => (4.0, 17.0),
            (0x4000, 1) => {
                let (must, aim) = if huge { (300.0, 1300.0) } else { (30.0, 85.0) };
                return Some(Aim { must, aim, of: Measure::P99Ratio });
            }
            _ => return None,
        },
        _ if huge => return None,
        (Work::Own, 1) => return ratio(alone(point, exclusive)?),
        (Work::Own, 2) if (size, depth, point.occupancy) == (64, 1, 0) => {
            let (shared, owned) = if far { (40.0, 170.0) } else { (8.0, 29.0) };
            (shared, owned)
        }
        (Work::Handoff, _) if point.occupancy == 0 && !far => match size {
            64 => (5.0, 15.0),
            1536 => (2.5, 4.0),
            4096 => (1.3, 2.2),
            _ => return None,
        },
        (Work::Device, _) if depth == 32 && point.occupancy == 0 => match size {
            _ if far => (0.8, 1.0),
            64 => (3.0, 5.5),
            4096 => (2.0, 2.5),
            0x1_0000 => (1.1, 1.4),
            _ => return None,
        },
        _ => return None,
    };
    ratio((must, aim))
}

/// One thread, each its own.
fn alone(point: &Point, exclusive: bool) -> Option<(f64, f64)> {
    let by_handle = |owned, shared| Some(if exclusive { owned } else { shared });
    let random = point.order == Order::Random;
    match (point.size, point.depth, point.occupancy) {
        (64, 1, 0) => by_handle((10.0, 17.0), (5.0, 6.5)),
        (64, 1, 50..=90) => by_handle((6.0, 9.0), (3.0, 3.5)),
        (64, 32, 0) if random => by_handle((2.5, 4.0), (2.0, 2.5)),
        _ if !exclusive => None,
        (1536, 1, 0) => Some((8.0, 16.0)),
        (4096, 1, 0) => Some((5.0, 9.0)),
        (1536, 32, 0) if random => Some((4.0, 6.0)),
        (4096, 32, 0) if random => Some((3.5, 5.0)),
        (0x1_0000, 1, 0) => Some((2.5, 4.0)),
        (0x4_0000, 1, 0) => Some((2.2, 3.8)),
        (64, 256, 0) if random => Some((2.0, 4.0)),
        (1536, 256, 0) if random => Some((3.5, 5.0)),
        (4096, 256, 0) if random => Some((2.0, 3.0)),
        (0x4000, 256, 0) if random => Some((1.7, 2.0)),
        (0x1_0000, 256, 0) if random => Some((1.1, 1.25)),
        _ => None,
    }
}

fn ratio((must, aim): (f64, f64)) -> Option<Aim> {
    Some(Aim { must, aim, of: Measure::Ratio })
}

/// How long a large mapping is to be had under churn, in percent of occupancy.
pub(crate) fn fragmentation(size: usize) -> Option<Aim> {
    let (must, aim) = match size / KIB {
        64 => (95.0, 99.0),
        256 => (90.0, 98.0),
        _ => return None,
    };
    Some(Aim { must, aim, of: Measure::Occupancy })
}

#[cfg(test)]
mod tests {
    use coco_dma::state::Direction;

    use super::*;

    #[test]
    fn aims_are_for_their_points_alone() {
        let musts = |point: &Point, handle| aim(point, handle, None).map(|aim| aim.must);
        assert_eq!(musts(&Point::START, Handle::Exclusive), Some(10.0));
        assert_eq!(musts(&Point::START, Handle::Shared), Some(5.0));
        for other in [
            Point { direction: Direction::FromDevice, ..Point::START },
            Point { sync: false, ..Point::START },
            Point { min_align_mask: 0xfff, ..Point::START },
            Point { pool_size: GIB, ..Point::START },
            Point { size: 128, ..Point::START },
        ] {
            assert_eq!(musts(&other, Handle::Exclusive), None, "{other:?}");
        }
        let full = Point { occupancy: 99, size: 16 * KIB, pool_size: GIB, ..Point::START };
        let of = aim(&full, Handle::Shared, None);
        assert_eq!(of, Some(Aim { must: 300.0, aim: 1300.0, of: Measure::P99Ratio }));
    }
}
