//! What a device answers before a driver builds a request. Linux's names: `dma_max_mapping_size`,
//! `dma_opt_mapping_size`, `dma_get_required_mask`, `dma_addressing_limited`, `dma_need_sync`.
//! [`plan::Question`] decides each; none blocks, and any context may ask.

use super::Device;
use crate::addr::AddressLimit;
use crate::plan;
use crate::plan::DomainInfo;
use crate::platform::Platform;

impl<P: Platform + ?Sized> Device<'_, P> {
    /// The longest single mapping in bytes that works wherever the buffer lies, 0 where none is
    /// sure to: see [`Question::max_mapping`](plan::Question::max_mapping).
    pub fn max_mapping(&self) -> u64 {
        self.question().max_mapping()
    }

    /// The size in bytes up to which mappings are cheap: see
    /// [`Question::opt_mapping`](plan::Question::opt_mapping).
    pub fn opt_mapping(&self) -> u64 {
        self.question().opt_mapping()
    }

    /// The smallest mask that reaches all memory that the machine may ever have, in every form that
    /// this device is given; behind an IOMMU, all addresses of its domain.
    pub fn required_mask(&self) -> AddressLimit {
        self.question().required_mask()
    }

    /// Whether the device cannot address some of the memory that the machine may ever have, for its
    /// mask, its bus limit or the windows of its bus. Behind an IOMMU it can.
    pub fn addressing_limited(&self) -> bool {
        self.question().addressing_limited()
    }

    /// Whether the device can touch no memory of the machine where it lies, as drivers are handed
    /// it: see [`Question::cannot_reach_memory`](plan::Question::cannot_reach_memory).
    pub fn cannot_reach_memory(&self) -> bool {
        self.question().cannot_reach_memory()
    }

    /// Whether a driver has to sync what it maps: its bytes may be bounced, or its device does not
    /// see the caches.
    pub fn needs_sync(&self) -> bool {
        self.question().needs_sync()
    }

    /// What the answers depend on, for showing or thinking one through.
    pub fn question(&self) -> plan::Question<'_> {
        let domain = self.domain().map(|domain| DomainInfo {
            page: domain.page(),
            first: domain.window().base().raw(),
            last: domain.window().last().raw(),
            in_reach: domain.in_reach(self.info().limit()),
        });
        plan::Question {
            regime: self.regime(),
            device: self.info(),
            memory: self.platform().memory(),
            pools: self.pool_infos(),
            domain,
        }
    }
}
