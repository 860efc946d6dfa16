//! The ways through the layer that a map and its end take, drawn at each step: one model for all.

use std::ptr::NonNull;

use coco_dma::attrs::Attrs;
use coco_dma::device::Device;
use coco_dma::pool::Pool;
use coco_dma::pool::PoolHandle;
use coco_dma::state::Direction;
use coco_dma::stream::MapError;
use coco_dma::stream::RawMapping;
use proptest::prelude::*;

use super::world::Host;
use super::world::World;
use crate::support::empty;
use crate::support::finish;
use crate::support::finish_with;
use crate::support::map;
use crate::support::map_with;

/// A way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Path {
    /// With slots that the CPU keeps.
    Cache,
    /// With slots of the bitmap: somebody else has the turn at what the CPU keeps.
    Bitmap,
    /// By a handle.
    Handle,
    /// The whole way.
    Slow,
}

/// Draws one.
pub(super) fn path() -> impl Strategy<Value = Path> {
    prop_oneof![Just(Path::Cache), Just(Path::Bitmap), Just(Path::Handle), Just(Path::Slow)]
}

/// The CPU's cache of a pool, with nothing in it: all that is free is in the bitmap.
fn emptied<'p>(pool: &'p Pool<'_>) -> PoolHandle<'p> {
    let mut handle = pool.claim(0).unwrap();
    empty(&mut handle);
    handle
}

impl World<'_> {
    /// Maps on the way of this step; `pool` is where the slots come from by the model.
    pub(super) fn map_by(
        &mut self,
        device: usize,
        buffer: NonNull<[u8]>,
        direction: Direction,
        attrs: Attrs,
        pool: Option<usize>,
    ) -> Result<RawMapping, MapError> {
        let device = &self.devices[device];
        let (pool, before) = (pool.map(|pool| self.pools[pool]), device.bounces());
        let made = match (self.path, pool) {
            (Path::Handle, Some(pool)) => {
                map_with(device, &mut pool.claim(0).unwrap(), buffer, direction, attrs)
            }
            (Path::Bitmap, Some(pool)) => {
                let _turn = emptied(pool);
                map(device, buffer, direction, attrs)
            }
            // An attribute that makes no difference to a map that is made.
            (Path::Slow, Some(_)) => map(device, buffer, direction, attrs.with(Attrs::NO_WARN)),
            _ => map(device, buffer, direction, attrs),
        };
        let now = device.bounces();
        let taken = match self.path {
            Path::Cache | Path::Handle => now.cached > before.cached,
            Path::Bitmap => now.bitmap > before.bitmap,
            Path::Slow => now.slow > before.slow,
        };
        if taken {
            self.met(format!("path {:?}", self.path));
        }
        made
    }

    /// Ends a map on the way of this step.
    pub(super) fn finish_by(
        &self,
        device: &Device<'_, Host>,
        mapping: RawMapping,
        written: usize,
        pool: Option<usize>,
    ) {
        match (self.path, pool.map(|pool| self.pools[pool])) {
            (Path::Handle, Some(pool)) => {
                finish_with(device, &mut pool.claim(0).unwrap(), mapping, written);
            }
            (Path::Bitmap, Some(pool)) => {
                let _turn = emptied(pool);
                finish(device, mapping, written);
            }
            _ => finish(device, mapping, written),
        }
    }

    /// What is free lies in the bitmap, so that the lowest slots are the next ones.
    pub(super) fn empty_caches(&self) {
        for pool in &self.pools {
            drop(emptied(pool));
        }
    }
}
