//! How much of an image is on its way at once.

use crate::disk::{FRAME, MAX_DEPTH, QUEUE_BYTES, SECTOR, slots};
use crate::memory::{MAX_ARENA, room};
use coco_dma::addr::SLOT;

/// Requests in flight, when nothing else is said.
pub const DEFAULT_DEPTH: usize = 32;
/// Bytes of a request, when nothing else is said.
pub const DEFAULT_REQUEST: usize = 64 << 10;

/// Disks of a copy.
const DISKS: u64 = 2;

/// Buffers and their size: what a copy holds in memory.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Shape {
    /// Buffers, each of them in flight on one of the two disks.
    pub depth: usize,
    /// Bytes of a buffer, a multiple of 512.
    pub request: usize,
}

/// A shape that no copy can have.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ShapeError {
    /// The pool is too small for the queues and one request.
    #[error(
        "a pool of {pool} bytes is too small for one request of {request} bytes: it needs \
         {needed} at least"
    )]
    PoolTooSmall {
        /// Bytes of the pool.
        pool: u64,
        /// Bytes of a request.
        request: usize,
        /// Bytes that would do.
        needed: u64,
    },
    /// No request in flight, or one that is no whole sectors or too long for the arena.
    #[error(
        "{depth} requests of {request} bytes make no copy: at least one, of whole sectors of 512 \
         bytes, in private memory of at most 4352 KiB"
    )]
    Impossible {
        /// Requests asked for.
        depth: usize,
        /// Bytes of each.
        request: usize,
    },
}

impl Shape {
    /// As many requests of `request` bytes in flight, up to `depth`, as a pool of `pool` bytes,
    /// a queue and the private arena hold.
    ///
    /// # Errors
    ///
    /// [`ShapeError::PoolTooSmall`] where that is none, [`ShapeError::Impossible`].
    pub fn fit(pool: u64, depth: usize, request: usize) -> Result<Self, ShapeError> {
        let impossible = ShapeError::Impossible { depth, request };
        if depth == 0 || request == 0 || !request.is_multiple_of(SECTOR) {
            return Err(impossible);
        }
        let len = u64::try_from(request).map_err(|_| impossible)?;
        // `request` is bounded by the arena, so that nothing below wraps.
        let one = Self { depth: 1, request };
        if request > MAX_ARENA || one.arena() > MAX_ARENA {
            return Err(impossible);
        }
        let (queues, each) = (DISKS * QUEUE_BYTES, slots(len) * SLOT);
        let fits = pool.saturating_sub(queues) / each;
        if fits == 0 {
            return Err(ShapeError::PoolTooSmall { pool, request, needed: queues + each });
        }
        let held = MAX_ARENA / one.arena();
        let depth = depth.min(MAX_DEPTH).min(usize::try_from(fits).unwrap_or(usize::MAX)).min(held);
        Ok(Self { depth, request })
    }

    /// Bytes of private memory that a copy of this shape needs: the buffers, and header and
    /// status of each request of either disk.
    #[must_use]
    pub fn arena(&self) -> usize {
        room([self.request, FRAME, FRAME].into_iter()).saturating_mul(self.depth)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_what_pool_queue_and_arena_hold() {
        let fit = |pool, depth, request| Shape::fit(pool, depth, request);
        let depth = |pool, wanted| fit(pool, wanted, 65536).map(|shape| shape.depth);
        assert_eq!(depth(64 << 20, 32), Ok(32));
        // 34 slots a request, 12 for the queues.
        assert_eq!(depth((12 + 34 * 3) * 2048, 32), Ok(3));
        assert_eq!(depth((12 + 34 * 3) * 2048 - 1, 32), Ok(2));
        let needed = (12 + 34) * 2048;
        assert_eq!(depth(needed, 32), Ok(1));
        assert_eq!(
            depth(needed - 1, 32),
            Err(ShapeError::PoolTooSmall { pool: needed - 1, request: 65536, needed })
        );
        assert_eq!(depth(1 << 30, 1000), Ok(MAX_DEPTH));
        // The arena holds 34 of them and not their headers.
        assert_eq!(fit(1 << 30, 1000, 128 << 10).map(|shape| shape.depth), Ok(33));
        assert_eq!(fit(1 << 30, 1000, 512).map(|shape| shape.depth), Ok(MAX_DEPTH));
        for (depth, request) in [(0, 512), (1, 0), (1, 100), (1, MAX_ARENA), (1, usize::MAX - 511)]
        {
            assert_eq!(
                fit(1 << 30, depth, request),
                Err(ShapeError::Impossible { depth, request })
            );
        }
    }

    #[test]
    fn an_arena_of_any_shape_is_within_the_limit() {
        for request in [512, 4096, 65536, 1 << 20, 4 << 20, MAX_ARENA - 512] {
            let shape = Shape::fit(1 << 30, 1000, request).unwrap();
            assert!(shape.arena() <= MAX_ARENA, "{shape:?}");
        }
    }
}
