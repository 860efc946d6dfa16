//! A device that was refused, and waits.

use super::Device;
use crate::platform::Platform;
use crate::reason::Refuse;
use crate::space::Watch;

impl<P: Platform + ?Sized> Device<'_, P> {
    /// Asks to be told when a map or an allocation that was refused for this reason may succeed:
    /// for `pool-full` by the listeners of the device's pools, for `quota` by the device's own.
    /// Never blocks; any context.
    ///
    /// Nothing is missed by who keeps this order: refused, asks, tries once more if the answer is
    /// [`Watch::Set`], sleeps if that is refused for the same reason. Whatever is given back after
    /// the answer is told of; for another reason ask again. Nothing is kept for who waits: a map
    /// that comes between gets the slots. What a device is sure to get is a pool of its own.
    pub fn watch_space(&self, refused: Refuse) -> Watch {
        match refused {
            Refuse::Quota if self.quota.watch() => Watch::Set,
            Refuse::PoolFull => {
                let pools = self.pools.iter().flatten().map(|pool| pool.watch_space());
                pools.fold(Watch::Never, |all, one| match (all, one) {
                    (Watch::Retry, _) | (_, Watch::Retry) => Watch::Retry,
                    (Watch::Set, _) | (_, Watch::Set) => Watch::Set,
                    (Watch::Never, Watch::Never) => Watch::Never,
                })
            }
            _ => Watch::Never,
        }
    }
}
