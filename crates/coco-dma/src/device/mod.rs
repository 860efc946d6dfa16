//! Devices: what the bus says of one ([`Endpoint`]), what its driver says ([`Limits`]), and the two
//! bound together for good ([`Device`]). Trust, limits and pools are fixed before a
//! [`Device`] exists: another mask is another `Device`.

mod counters;
mod endpoint;
mod handle;
mod iommu;
mod lifecycle;
mod limits;
mod query;
mod slots;
mod table;
mod teardown;
mod wait;

#[doc(hidden)]
pub use counters::Bounces;
pub use counters::Counters;
pub use counters::CountersNow;
pub use endpoint::Attested;
pub use endpoint::BindError;
pub use endpoint::Endpoint;
pub(crate) use handle::Answerable;
pub use handle::AnyDevice;
pub use handle::DeviceRef;
use lifecycle::Life;
use lifecycle::Quota;
pub(crate) use table::DefaultPool;
use table::FastPathTable;
pub(crate) use table::TableEntry;

use core::fmt;

use crate::addr::DmaAddr;
use crate::addr::PhysRange;
use crate::dma::Dma;
use crate::iommu::Domain;
use crate::plan;
use crate::plan::DeviceInfo;
use crate::plan::Limits;
use crate::plan::PoolInfo;
use crate::platform::Platform;
use crate::pool::CurrentCpu;
use crate::pool::Owner;
use crate::pool::Pool;
use crate::reason::Refuse;
use crate::regime::Regime;
use crate::state::PoolLabel;

/// The most pools that one device can have, its own and the machine's together.
pub const MAX_POOLS: usize = 8;

impl<'m, P: Platform + ?Sized> Dma<'m, P> {
    /// Binds a device: what the bus says of it and what its driver says, together and for good.
    /// May be called in any context.
    pub fn bind<'d>(
        &'d self,
        endpoint: Endpoint<'d>,
        limits: Limits,
    ) -> Result<Device<'d, P>, BindError>
    where
        'm: 'd,
    {
        Device::new(self, endpoint, limits)
    }
}

/// One device, bound: everything that its maps are decided by, and its counters. Shared by
/// reference between threads; nothing in it but the counters ever changes.
#[repr(C)]
pub struct Device<'d, P: Platform + ?Sized = dyn Platform + 'd> {
    // The open machine's path first and in this order: it touches one cache line.
    open_past: u64,
    open_offset: u64,
    dma: &'d Dma<'d, P>,
    name: &'d str,
    owner: Owner,
    quota: Quota<'d>,
    life: Life,
    info: DeviceInfo<'d>,
    pools: [Option<&'d Pool<'d>>; MAX_POOLS],
    pool_infos: [PoolInfo; MAX_POOLS],
    pool_count: usize,
    domain: Option<&'d Domain<'d>>,
    table: FastPathTable<'d>,
    counters: Counters,
}

impl<'d, P: Platform + ?Sized> Device<'d, P> {
    fn new(dma: &'d Dma<'d, P>, endpoint: Endpoint<'d>, limits: Limits) -> Result<Self, BindError> {
        let info = endpoint.info(limits);
        plan::refuse(dma.regime(), &info, &[])?;
        let nothing = PoolInfo::new(PoolLabel::Ordinary, PhysRange::FIRST_BYTE);
        let mut pools = [None; MAX_POOLS];
        let mut pool_infos = [nothing; MAX_POOLS];
        let mut pool_count = 0;
        let (own, machines) = (endpoint.pools.iter().copied(), dma.pools().iter());
        let all = own.map(|pool| (pool, true)).chain(machines.map(|pool| (pool, false)));
        for (pool, own) in all {
            let (Some(entry), Some(entry_face)) =
                (pools.get_mut(pool_count), pool_infos.get_mut(pool_count))
            else {
                return Err(BindError::TooManyPools);
            };
            *entry = Some(pool);
            *entry_face = PoolInfo { own, ..pool.info() };
            pool_count += 1;
        }
        plan::refuse(dma.regime(), &info, pool_infos.get(..pool_count).unwrap_or(&[]))?;
        // On a host nothing converts but pages that the layer took for itself.
        if plan::converts_visibility(dma.regime()) {
            endpoint.check_adopted(dma.pools(), dma.ledger())?;
        }
        let domain = endpoint.domain(&info)?;
        let infos = pool_infos.get(..pool_count).unwrap_or(&[]);
        // Whoever hears of every map hears of those, too, that would take a short way.
        let short = !dma.tells_maps();
        let open_past = if short { plan::open_path(dma.regime(), &info, infos) } else { 0 };
        let open_offset = 0;
        let table = if endpoint.fast_path && short {
            FastPathTable::of(dma, &info, &pools, infos)
        } else {
            FastPathTable::empty()
        };
        Ok(Self {
            open_past,
            open_offset,
            dma,
            name: endpoint.name,
            owner: dma.next_owner().ok_or(BindError::TooManyDevices)?,
            quota: Quota::new(endpoint.quota, endpoint.listener),
            life: Life::new(),
            info,
            pools,
            pool_infos,
            pool_count,
            domain,
            table,
            counters: Counters::new(),
        })
    }

    /// The address of memory that this device may touch where it lies, when that needs no
    /// further thought: on an open machine, within the device's reach. `None` says nothing but
    /// that the whole way has to be taken. A comparison and an addition; any context.
    #[inline]
    pub fn in_place(&self, range: PhysRange) -> Option<DmaAddr> {
        if range.last().raw() < self.open_past {
            Some(DmaAddr::new(range.base().raw().wrapping_add(self.open_offset)))
        } else {
            None
        }
    }

    /// The device's name, for messages.
    #[inline]
    pub fn name(&self) -> &'d str {
        self.name
    }

    /// What decisions about this device depend on.
    #[inline]
    pub fn info(&self) -> &DeviceInfo<'d> {
        &self.info
    }

    /// What it did so far.
    pub fn counters(&self) -> CountersNow {
        self.counters.now()
    }

    /// Its bounces by the way that they took.
    #[doc(hidden)]
    pub fn bounces(&self) -> Bounces {
        self.counters.bounces()
    }

    /// Counts for the floors above.
    #[inline]
    pub(crate) fn count(&self) -> &Counters {
        &self.counters
    }

    #[inline]
    pub(crate) fn owner(&self) -> Owner {
        self.owner
    }

    /// The machine under the layer.
    #[inline]
    pub fn platform(&self) -> &'d P {
        self.dma.platform()
    }

    /// The rules of this machine.
    pub fn regime(&self) -> &'d Regime {
        self.dma.regime()
    }

    /// Takes and gives slots on whatever CPU this runs on.
    #[inline]
    pub(crate) fn hand(&self) -> CurrentCpu<'d, P> {
        CurrentCpu(self.platform())
    }

    #[inline]
    pub(crate) fn pool(&self, index: usize) -> Option<&'d Pool<'d>> {
        self.pools.get(index).copied().flatten()
    }

    /// The domain that it is behind, where it is behind one.
    pub fn domain(&self) -> Option<&'d Domain<'d>> {
        self.domain
    }

    pub(crate) fn pool_infos(&self) -> &[PoolInfo] {
        self.pool_infos.get(..self.pool_count).unwrap_or(&[])
    }

    /// The layer that it is bound to.
    #[inline]
    pub fn dma(&self) -> &'d Dma<'d, P> {
        self.dma
    }

    /// Why the device may do nothing any more, if so.
    #[inline]
    pub(crate) fn stopped(&self) -> Option<Refuse> {
        self.life.stopped()
    }
}

impl<P: Platform + ?Sized> fmt::Debug for Device<'_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Device")
            .field("name", &self.name)
            .field("info", &self.info)
            .field("pools", &self.pool_infos())
            .field("counters", &self.counters)
            .finish_non_exhaustive()
    }
}
