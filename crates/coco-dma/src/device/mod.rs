//! Devices: the layer itself ([`Dma`]), what the bus says of a device ([`Endpoint`]), and the
//! two bound together for good ([`Device`]). Trust, limits and pools are fixed before a
//! [`Device`] exists: another mask is another `Device`.

mod counters;
mod endpoint;

pub use counters::Counters;
pub use counters::CountersNow;
pub use endpoint::Attested;
pub use endpoint::BindError;
pub use endpoint::Endpoint;

use core::fmt;

use crate::addr::BusRanges;
use crate::addr::DmaAddr;
use crate::addr::PhysRange;
use crate::attrs::Attrs;
use crate::plan::DeviceFace;
use crate::plan::Limits;
use crate::plan::MapRequest;
use crate::plan::Place;
use crate::plan::PoolFace;
use crate::plan::state_of;
use crate::platform::Platform;
use crate::pool::Pool;
use crate::regime::Regime;
use crate::state::Direction;
use crate::state::Memory;
use crate::state::PoolLabel;
use crate::word::AtomicUsize;
use crate::word::Ordering;

/// The most pools that one device can have, its own and the machine's together.
pub const MAX_POOLS: usize = 8;

/// The layer on one machine. It is a value: make one, keep it where every driver finds it, a
/// `static` if you like.
pub struct Dma<'m, P: Platform + ?Sized = dyn Platform + 'm> {
    platform: &'m P,
    regime: Regime,
    pools: &'m [Pool<'m>],
    next_id: AtomicUsize,
}

impl<'m, P: Platform + ?Sized> Dma<'m, P> {
    /// The layer on `platform`, with the pools that every device may use unless it is restricted
    /// to its own. Asks for the regime once; never blocks.
    pub fn new(platform: &'m P, pools: &'m [Pool<'m>]) -> Self {
        Self { platform, regime: platform.regime(), pools, next_id: AtomicUsize::new(1) }
    }

    /// The rules of this machine.
    pub fn regime(&self) -> &Regime {
        &self.regime
    }

    /// The machine under the layer.
    pub fn platform(&self) -> &'m P {
        self.platform
    }

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

impl<P: Platform + ?Sized> fmt::Debug for Dma<'_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dma")
            .field("regime", &self.regime)
            .field("pools", &self.pools)
            .finish_non_exhaustive()
    }
}

/// One device, bound: everything that its maps are decided by, and its counters. Shared by
/// reference between threads; nothing in it but the counters ever changes.
#[repr(C)]
pub struct Device<'d, P: Platform + ?Sized = dyn Platform + 'd> {
    // The open machine's path first and in this order: it touches one cache line.
    open_past: u64,
    open_offset: u64,
    platform: &'d P,
    regime: &'d Regime,
    name: &'d str,
    id: usize,
    face: DeviceFace<'d>,
    pools: [Option<&'d Pool<'d>>; MAX_POOLS],
    pool_faces: [PoolFace; MAX_POOLS],
    pool_count: usize,
    counters: Counters,
}

impl<'d, P: Platform + ?Sized> Device<'d, P> {
    fn new(dma: &'d Dma<'_, P>, endpoint: Endpoint<'d>, limits: Limits) -> Result<Self, BindError> {
        let face = endpoint.face(&dma.regime, limits)?;
        let nothing = PoolFace {
            label: PoolLabel::Ordinary,
            range: PhysRange::FIRST_BYTE,
            restricted: false,
        };
        let mut pools = [None; MAX_POOLS];
        let mut pool_faces = [nothing; MAX_POOLS];
        let mut pool_count = 0;
        for pool in endpoint.pools.iter().copied().chain(dma.pools) {
            let (Some(entry), Some(entry_face)) =
                (pools.get_mut(pool_count), pool_faces.get_mut(pool_count))
            else {
                return Err(BindError::TooManyPools);
            };
            *entry = Some(pool);
            *entry_face = PoolFace {
                label: pool.label(),
                range: pool.range(),
                restricted: pool.is_restricted(),
            };
            pool_count += 1;
        }
        endpoint::check_pools(&dma.regime, &face, pool_faces.get(..pool_count).unwrap_or(&[]))?;
        let (open_past, open_offset) = open_path(&dma.regime, &face, &pool_faces);
        Ok(Self {
            open_past,
            open_offset,
            platform: dma.platform,
            regime: &dma.regime,
            name: endpoint.name,
            id: dma.next_id.fetch_add(1, Ordering::Relaxed),
            face,
            pools,
            pool_faces,
            pool_count,
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
    pub fn name(&self) -> &'d str {
        self.name
    }

    /// What decisions about this device depend on.
    pub fn face(&self) -> &DeviceFace<'d> {
        &self.face
    }

    /// What it did so far.
    pub fn counters(&self) -> CountersNow {
        self.counters.now()
    }

    /// Counts for the floors above.
    pub(crate) fn count(&self) -> &Counters {
        &self.counters
    }

    pub(crate) fn id(&self) -> usize {
        self.id
    }

    /// The machine under the layer.
    pub fn platform(&self) -> &'d P {
        self.platform
    }

    /// The rules of this machine.
    pub fn regime(&self) -> &'d Regime {
        self.regime
    }

    pub(crate) fn pool(&self, index: usize) -> Option<&'d Pool<'d>> {
        self.pools.get(index).copied().flatten()
    }

    pub(crate) fn pool_faces(&self) -> &[PoolFace] {
        self.pool_faces.get(..self.pool_count).unwrap_or(&[])
    }

    /// A request of this device, for `plan`.
    pub(crate) fn request(
        &self,
        range: Option<PhysRange>,
        len: u64,
        direction: Direction,
        attrs: Attrs,
    ) -> MapRequest<'_> {
        MapRequest {
            regime: self.regime,
            device: &self.face,
            place: range.map_or(Place::Unlocated, |range| Place::At(range.base())),
            len,
            memory: self.memory(range),
            direction,
            attrs,
            align: 1,
            pools: self.pool_faces(),
        }
    }

    /// What is known about memory: a pool's label says what lies in it, and of the rest nobody
    /// keeps the state.
    pub(crate) fn memory(&self, range: Option<PhysRange>) -> Memory {
        let Some(range) = range else { return Memory::Untracked };
        for pool in self.pool_faces() {
            if pool.range.contains(range) {
                return match state_of(self.regime, pool.label) {
                    Some(state) => Memory::Known(state),
                    None => Memory::Untracked,
                };
            }
            if pool.range.overlaps(range) {
                return Memory::Mixed;
            }
        }
        Memory::Untracked
    }
}

impl<P: Platform + ?Sized> fmt::Debug for Device<'_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Device")
            .field("name", &self.name)
            .field("face", &self.face)
            .field("pools", &self.pool_faces())
            .field("counters", &self.counters)
            .finish_non_exhaustive()
    }
}

/// The table of verdicts of an open machine has one line: below `past`, the device is given the
/// address plus `offset`. `past` is 0 where some request could come out differently.
fn open_path(regime: &Regime, face: &DeviceFace<'_>, pools: &[PoolFace]) -> (u64, u64) {
    let limits = &face.limits;
    let plain = *regime == Regime::Open
        && face.coherent
        && !face.force_bounce
        && !face.attachment.is_translated()
        && limits.segment.is_none()
        && limits.boundary.is_none()
        && !pools.iter().any(|pool| pool.restricted)
        && face.bus == BusRanges::IDENTITY;
    let past = if plain { face.limit().raw() } else { 0 };
    (past, 0)
}
