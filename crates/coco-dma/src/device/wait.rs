//! A device that was refused, and waits.

use super::Device;
use crate::iommu::Domain;
use crate::platform::Platform;
use crate::reason::Refuse;
use crate::waiters::Watch;
use crate::word::Ordering;
use crate::word::fence;

impl<P: Platform + ?Sized> Device<'_, P> {
    /// Asks to be told when a map or an allocation that was refused for this reason may succeed:
    /// for `pool-full` and `pool-closed` by the listeners of the device's pools, all of which need one, for `quota` by
    /// the device's own, for `iova-full` by its domain's. Never blocks; any context.
    ///
    /// Nothing is missed by who keeps this order: is refused, asks, tries once more if the answer is
    /// [`Watch::Set`], sleeps if that is refused for the same reason. Whatever is given back after
    /// the answer is told of, and so is that the device was revoked or distrusted; for another
    /// reason ask again. Nothing is kept for who waits: a map that comes between gets the slots.
    /// What a device is sure to get is a pool of its own.
    pub fn watch_capacity(&self, refused: Refuse) -> Watch {
        match refused {
            Refuse::PoolFull | Refuse::PoolClosed => {
                let answers = self.pools.iter().flatten().map(|pool| pool.watch_capacity());
                answers.reduce(Watch::and).unwrap_or(Watch::Never)
            }
            Refuse::Quota => self.quota.waiters().ask(),
            Refuse::IovaFull => self.domain.map_or(Watch::Never, Domain::watch_capacity),
            _ => Watch::Never,
        }
    }

    /// Nobody waits for something that the device will not get any more.
    pub(super) fn stop_waiting(&self) {
        // In the one order: who asked before is seen here, who asks later sees why.
        fence(Ordering::SeqCst);
        self.quota.waiters().given();
        self.pools.iter().flatten().for_each(|pool| pool.waiters().given());
        if let Some(domain) = self.domain {
            domain.waiters().given();
        }
    }
}
