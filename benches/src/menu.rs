//! Which points are measured.

use coco_dma::state::Direction;

use crate::reference::SLOT;
use crate::row::Order;
use crate::row::Point;
use crate::row::Work;
use crate::terms::Rules;

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
const GIB: usize = 1 << 30;

/// What somebody wants to see. An empty list wants everything on the menu.
#[derive(Clone, Debug, Default)]
pub struct Choice {
    /// The short menu.
    pub quick: bool,
    /// Threads.
    pub threads: Vec<usize>,
    /// Bytes.
    pub sizes: Vec<usize>,
    /// Mappings at once.
    pub depths: Vec<usize>,
    /// Percent.
    pub occupancies: Vec<usize>,
}

impl Choice {
    /// The points: those of the menu that were asked for; and what was asked for and is not on the
    /// menu, in the setting of [`Point::START`].
    pub fn points(&self) -> Vec<Point> {
        let mut points = if self.quick { quick() } else { full() };
        points.retain(|point| {
            let has = |list: &[usize], value| list.is_empty() || list.contains(&value);
            has(&self.threads, point.threads)
                && has(&self.sizes, point.size)
                && has(&self.depths, point.depth)
                && has(&self.occupancies, point.occupancy)
        });
        let or = |list: &[usize], value| if list.is_empty() { vec![value] } else { list.to_vec() };
        for threads in or(&self.threads, 1) {
            for size in or(&self.sizes, 64) {
                for depth in or(&self.depths, 1) {
                    for occupancy in or(&self.occupancies, 0) {
                        let point = Point { threads, size, depth, occupancy, ..Point::START };
                        let there = points.iter().any(|p| {
                            (p.threads, p.size, p.depth, p.occupancy)
                                == (threads, size, depth, occupancy)
                        });
                        if !there {
                            points.push(point);
                        }
                    }
                }
            }
        }
        // One pool after the other.
        points.sort_by_key(|point| point.pool_size);
        points
    }
}

/// Whether a pool has room for what lives at once at a point, padding included.
pub(crate) fn has_room(point: &Point) -> bool {
    let slots = point.size.div_ceil(SLOT) + usize::from(point.min_align_mask >= SLOT);
    let free = point.pool_size / SLOT * (100 - point.occupancy) / 100;
    point.live().checked_mul(slots).is_some_and(|slots| slots <= free)
}

const fn of(size: usize) -> Point {
    Point { size, ..Point::START }
}

const fn deep(size: usize, depth: usize) -> Point {
    Point { depth, order: Order::Random, ..of(size) }
}

const fn two(work: Work, size: usize, depth: usize) -> Point {
    Point { work, threads: 2, depth, ..of(size) }
}

const fn full_to(occupancy: usize, point: Point) -> Point {
    Point { occupancy, ..point }
}

const fn failing(pool_size: usize) -> Point {
    Point { work: Work::Failing, pool_size, occupancy: 50, ..of(16 * KIB) }
}

/// Under a minute: every regime of issue 6 in the small pool.
fn quick() -> Vec<Point> {
    let mut points: Vec<Point> = [64, 1536, 4 * KIB, 64 * KIB, 256 * KIB].map(of).into();
    points.extend([deep(64, 32), deep(4 * KIB, 32), deep(64, 256), deep(16 * KIB, 256)]);
    points.extend([50, 90, 99].map(|occupancy| full_to(occupancy, of(64))));
    points.extend([
        full_to(99, of(16 * KIB)),
        Point { direction: Direction::FromDevice, ..of(4 * KIB) },
        Point { direction: Direction::FromDevice, rules: Rules::Ours, ..of(4 * KIB) },
        Point { sync: false, ..of(64) },
        Point { sync: false, ..of(256 * KIB) },
        two(Work::Own, 64, 1),
        two(Work::Handoff, 64, 1),
        two(Work::Handoff, 4 * KIB, 1),
        two(Work::Device, 64, 32),
        two(Work::Device, 4 * KIB, 32),
        failing(64 * MIB),
    ]);
    points
}

const SIZES: [usize; 9] = [64, 512, 1536, 4 * KIB, 16 * KIB, 64 * KIB, 256 * KIB, MIB, 4 * MIB];

/// Every axis.
fn full() -> Vec<Point> {
    let mut points = Vec::new();
    for size in SIZES {
        points.push(of(size));
        points.push(Point { sync: false, ..of(size) });
        for direction in [Direction::FromDevice, Direction::Both] {
            points.push(Point { direction, ..of(size) });
        }
        points.push(Point { direction: Direction::FromDevice, rules: Rules::Ours, ..of(size) });
        for depth in [32, 256] {
            points.extend([Point { depth, ..of(size) }, deep(size, depth)]);
            points.push(Point { sync: false, ..deep(size, depth) });
        }
        points.push(two(Work::Own, size, 1));
        points.push(two(Work::Own, size, 32));
        points.push(two(Work::Handoff, size, 1));
    }
    for size in [64, 1536, 4 * KIB, 16 * KIB] {
        points.extend([50, 90, 99].map(|occupancy| full_to(occupancy, of(size))));
        points.push(full_to(90, deep(size, 32)));
        for point in [of(size), deep(size, 32)] {
            points.push(Point { min_align_mask: 0xfff, ..point });
        }
        points.push(Point { pool_size: GIB, ..full_to(99, of(size)) });
    }
    points.extend([64, 1536, 4 * KIB, 16 * KIB, 64 * KIB].map(|s| two(Work::Device, s, 32)));
    for direction in [Direction::FromDevice, Direction::Both] {
        points.push(Point { direction, ..two(Work::Device, 4 * KIB, 32) });
    }
    for point in [of(64), of(4 * KIB), of(256 * KIB), deep(256 * KIB, 32), deep(256 * KIB, 256)] {
        points.push(Point { pool_size: GIB, ..point });
    }
    points.extend([failing(64 * MIB), failing(GIB)]);
    points.retain(has_room);
    points
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_point_is_measured_twice() {
        for points in [quick(), full()] {
            for (index, point) in points.iter().enumerate() {
                assert!(!points[..index].contains(point), "{point:?}");
            }
        }
    }

    #[test]
    fn the_quick_menu_fits_and_starts_where_everybody_looks() {
        assert!(quick().iter().all(has_room));
        for size in [64, 4 * KIB, 64 * KIB] {
            assert!(quick().contains(&of(size)));
        }
    }

    #[test]
    fn what_is_asked_for_is_measured_though_it_is_not_on_the_menu() {
        let choice = Choice { sizes: vec![64, 3000], depths: vec![1, 7], ..Choice::default() };
        let points = choice.points();
        assert!(points.contains(&Point { depth: 7, ..of(3000) }));
        assert!(points.contains(&of(3000)));
        assert!(points.iter().all(|p| [64, 3000].contains(&p.size) && [1, 7].contains(&p.depth)));
        assert_eq!(points.iter().filter(|point| **point == of(64)).count(), 1);
    }
}
