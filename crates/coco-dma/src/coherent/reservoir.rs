//! Coherent memory out of pools that are kept for it: shared in bulk, once, and not at each
//! allocation.

use super::raw::AllocOptions;
use super::raw::RawCoherent;
use crate::convert::GrowFailed;
use crate::device::Device;
use crate::plan::Extent;
use crate::plan::Reservoir;
use crate::platform::Platform;
use crate::pool::Pool;
use crate::reason::Refuse;
use crate::state::PoolOrigin;

impl<P: Platform + ?Sized> Device<'_, P> {
    /// Memory of the reservoir, grown by a region where plan allows it and room is all that is
    /// missing; or why it has nothing for this device.
    pub(super) fn alloc_reservoir(
        &self,
        reservoir: Reservoir<'_>,
        extent: Extent,
        options: AllocOptions,
    ) -> Result<RawCoherent, Refuse> {
        let taken = self.alloc_slots(reservoir.pools, extent, options);
        // More memory would be no help to a device that has had its share, or wants for something
        // else.
        if !matches!(taken, Err(Refuse::PoolFull | Refuse::PoolClosed)) {
            return taken;
        }
        let pools = reservoir.pools.filter(|_| reservoir.grow);
        for pool in pools.filter_map(|candidate| self.pool(candidate.index)).filter(can_grow) {
            match self.dma().grow(pool) {
                Ok(()) | Err(GrowFailed::Open) => {
                    return self.alloc_slots(reservoir.pools, extent, options);
                }
                // Nobody waits for another CPU's conversion. And a region that is not private, as
                // one that the host did not give back, is no reason to stop at it for good.
                Err(GrowFailed::Busy) => {}
                Err(GrowFailed::Convert(failed)) if failed.is_conflict() => {}
                // A host that refuses is asked once an allocation.
                Err(_) => break,
            }
        }
        taken
    }
}

fn can_grow(pool: &&Pool<'_>) -> bool {
    pool.origin() == PoolOrigin::ConvertedAtAttach && !pool.is_open()
}
