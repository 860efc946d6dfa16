//! What bus code says of a device, before a driver binds to it.
// UNSAFETY: to call a device attested is a promise that nothing here can check.
#![expect(unsafe_code)]

use core::fmt;

use crate::addr::AddressLimit;
use crate::addr::Alignment;
use crate::addr::BusRanges;
use crate::addr::PhysRange;
use crate::addr::SLOT;
use crate::iommu::Domain;
use crate::ledger::Ledger;
use crate::ledger::RangeState;
use crate::plan::DeviceInfo;
use crate::plan::Limits;
use crate::plan::NotBound;
use crate::pool::Pool;
use crate::state::Attachment;
use crate::state::PoolLabel;
use crate::state::PoolOrigin;
use crate::state::Trust;
use crate::waiters::CapacityListener;
use crate::waiters::Listener;

/// Proof that attestation code accepted a device (TDISP RUN, or the platform's like). A driver
/// cannot make one.
#[derive(Debug)]
pub struct Attested(());

impl Attested {
    /// The proof.
    ///
    /// # Safety
    ///
    /// The caller attested this one device, and the TSM keeps it in the accepted state until
    /// [`Device`](super::Device) is gone.
    pub const unsafe fn vouch() -> Self {
        Self(())
    }
}

/// One device as the bus sees it. Start from [`Endpoint::new`] and say what differs.
#[derive(Debug)]
pub struct Endpoint<'d> {
    /// Its name, for messages.
    pub(super) name: &'d str,
    trust: Trust,
    bus_limit: AddressLimit,
    bus: BusRanges<'d>,
    attachment: Attachment,
    coherent: bool,
    external_facing: bool,
    force_bounce: bool,
    node: Option<u16>,
    domain: Option<&'d Domain<'d>>,
    pub(super) fast_path: bool,
    pub(super) quota: Option<usize>,
    pub(super) listener: Listener<'d>,
    pub(super) pools: &'d [&'d Pool<'d>],
}

impl<'d> Endpoint<'d> {
    /// An untrusted, coherent device that the bus does not limit, without pools of its own.
    pub const fn new(name: &'d str) -> Self {
        Self {
            name,
            trust: Trust::Untrusted,
            bus_limit: AddressLimit::NONE,
            bus: BusRanges::IDENTITY,
            attachment: Attachment::None,
            coherent: true,
            external_facing: false,
            force_bounce: false,
            node: None,
            domain: None,
            fast_path: true,
            quota: None,
            listener: Listener(None),
            pools: &[],
        }
    }

    /// The guest accepted this device (T=1).
    #[must_use]
    pub fn accepted(self, _proof: Attested) -> Self {
        Self { trust: Trust::Accepted, ..self }
    }

    /// The last address that the bus reaches.
    #[must_use]
    pub fn bus_limit(self, bus_limit: AddressLimit) -> Self {
        Self { bus_limit, ..self }
    }

    /// The windows through which the bus shows memory.
    #[must_use]
    pub fn bus(self, bus: BusRanges<'d>) -> Self {
        Self { bus, ..self }
    }

    /// What stands between the device and memory, where that is no domain of the layer's.
    /// [`Attachment::Translated`] needs one: see [`translated`](Self::translated).
    #[must_use]
    pub fn attachment(self, attachment: Attachment) -> Self {
        Self { attachment, domain: None, ..self }
    }

    /// The device is behind an IOMMU, in this domain: it is given addresses of the domain alone.
    /// Several devices may be in one; they then reach each other's mappings.
    #[must_use]
    pub fn translated(self, domain: &'d Domain<'d>) -> Self {
        Self { attachment: Attachment::Translated, domain: Some(domain), ..self }
    }

    /// The device does not see the CPU's caches.
    #[must_use]
    pub fn not_coherent(self) -> Self {
        Self { coherent: false, ..self }
    }

    /// The machine's owner does not trust this PCI device.
    #[must_use]
    pub fn external_facing(self) -> Self {
        Self { external_facing: true, ..self }
    }

    /// Every map is to be bounced.
    #[must_use]
    pub fn force_bounce(self) -> Self {
        Self { force_bounce: true, ..self }
    }

    /// The NUMA node that the device is attached to: pools of that node are tried first.
    #[must_use]
    pub fn on_node(self, node: u16) -> Self {
        Self { node: Some(node), ..self }
    }

    /// Every bounce goes the whole way: for tests, which show that it comes to the same.
    #[doc(hidden)]
    #[must_use]
    pub fn without_fast_path(self) -> Self {
        Self { fast_path: false, ..self }
    }

    /// The most that the device may hold at once, in slots of 2 KiB: slots of all its pools
    /// together, and pages of our own that were allocated for it (each 2 KiB of them as a slot).
    /// Memory that is mapped in place is its driver's, and counts nothing. What the device is sure
    /// to get is another matter: give it a pool of its own. Where a limit in bytes is said too, the
    /// lower one holds.
    #[must_use]
    pub fn quota(self, slots: usize) -> Self {
        let quota = self.quota.map_or(slots, |other| other.min(slots));
        Self { quota: Some(quota), ..self }
    }

    /// The same in bytes, as whole slots: what does not fill one is not given.
    #[must_use]
    pub fn quota_bytes(self, bytes: u64) -> Self {
        // More than can be counted is more than there is.
        self.quota(usize::try_from(bytes / SLOT).unwrap_or(usize::MAX))
    }

    /// Who is told when the device, refused for its quota, may have some of it back
    /// ([`Device::watch_capacity`](super::Device::watch_capacity)). Pools have listeners of their own.
    #[must_use]
    pub fn listener(self, listener: &'d dyn CapacityListener) -> Self {
        Self { listener: Listener(Some(listener)), ..self }
    }

    /// The pools of this device, tried before the machine's. One of them restricted makes it the
    /// only memory that the device may touch. Where one was adopted, in a guest its memory is
    /// foreign in the ledger, or not in it.
    #[must_use]
    pub fn pools(self, pools: &'d [&'d Pool<'d>]) -> Self {
        Self { pools, ..self }
    }

    /// Nothing converts the memory of its own pools: the layer knows of the machine's, and one
    /// that it converted itself is pinned while it is open, but it never hears of one that some
    /// device alone adopted.
    pub(super) fn check_adopted(
        &self,
        machines: &[Pool<'_>],
        ledger: &Ledger<'_>,
    ) -> Result<(), BindError> {
        let known = |range| machines.iter().any(|pool| pool.range() == range);
        let adopted = self.pools.iter().filter(|pool| pool.origin() == PoolOrigin::Adopted);
        for range in adopted.map(|pool| pool.range()).filter(|range| !known(*range)) {
            if !matches!(ledger.peek(range), RangeState::Foreign(_) | RangeState::Untracked) {
                return Err(BindError::PoolConverts(range));
            }
        }
        Ok(())
    }

    /// The domain that the device is behind, where it is behind one.
    pub(super) fn domain(
        &self,
        info: &DeviceInfo<'_>,
    ) -> Result<Option<&'d Domain<'d>>, BindError> {
        match self.domain {
            None if info.attachment.is_translated() => Err(BindError::NoDomain),
            Some(domain) if domain.window().base().raw() > info.limit().raw() => {
                Err(BindError::DomainOutOfReach)
            }
            domain => Ok(domain),
        }
    }

    pub(super) fn info(&self, limits: Limits) -> DeviceInfo<'d> {
        DeviceInfo {
            trust: self.trust,
            limits,
            bus_limit: self.bus_limit,
            bus: self.bus,
            attachment: self.attachment,
            coherent: self.coherent,
            external_facing: self.external_facing,
            force_bounce: self.force_bounce,
            node: self.node,
        }
    }
}

/// A device that cannot be bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BindError {
    /// This alignment of the device conflicts with its min-align mask, or is longer than its segment
    /// or boundary.
    Alignment(Alignment),
    /// No device can be accepted on this machine.
    NoAcceptedDevices,
    /// An accepted device is restricted to a pool that is shared with the host.
    AcceptedWithSharedPool,
    /// A restricted pool has a label that does not exist on this machine.
    RestrictedLabel(PoolLabel),
    /// The device is bound already, and maps or allocations of it live.
    InUse {
        /// Maps that are not finished.
        maps: usize,
        /// Allocations that are not freed.
        allocations: usize,
        /// Slots that it holds.
        slots: usize,
    },
    /// The device is behind an IOMMU, and no domain was given.
    NoDomain,
    /// The window of the device's domain begins past the last address that the device reaches.
    DomainOutOfReach,
    /// More devices were bound in the life of this program than can be numbered: 2^30, or 2^14
    /// where words have 32 bits.
    TooManyDevices,
    /// A pool of the device's own was adopted, and its memory is in the books as memory that
    /// converts: nobody would keep it from being converted under the pool.
    PoolConverts(PhysRange),
    /// More than [`MAX_POOLS`](super::MAX_POOLS) pools, its own and the machine's together.
    TooManyPools,
}

impl From<NotBound> for BindError {
    fn from(why: NotBound) -> Self {
        match why {
            NotBound::NoAcceptedDevices => Self::NoAcceptedDevices,
            NotBound::Alignment(align) => Self::Alignment(align),
            NotBound::AcceptedWithSharedPool => Self::AcceptedWithSharedPool,
            NotBound::RestrictedLabel(label) => Self::RestrictedLabel(label),
        }
    }
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoAcceptedDevices => {
                f.write_str("no device can be accepted on this machine; bind it as untrusted")
            }
            Self::Alignment(align) => write!(
                f,
                "a device that takes multiples of {} bytes alone can have no min-align mask, and no \
                 segment or boundary shorter than that; leave one of them out",
                align.bytes()
            ),
            Self::AcceptedWithSharedPool => f.write_str(
                "an accepted device is never given shared slots, but its restricted pool is \
                 shared; give it a guest-private one or none",
            ),
            Self::RestrictedLabel(label) => write!(
                f,
                "the device's restricted pool is {label}, which does not exist on this machine"
            ),
            Self::InUse { maps, allocations, slots } => write!(
                f,
                "the device is bound already, with {maps} maps and {allocations} allocations \
                 alive and {slots} slots held; finish and free them first"
            ),
            Self::NoDomain => f.write_str(
                "the device is behind an IOMMU; give its endpoint the domain that it is in",
            ),
            Self::DomainOutOfReach => f.write_str(
                "the domain's window begins past the device's mask; give it a lower one",
            ),
            Self::TooManyDevices => f.write_str("there is no number left for another device"),
            Self::PoolConverts(range) => write!(
                f,
                "the device's own pool at {range} was adopted, but the ledger would convert its \
                 memory; register that as foreign, or the pool as the machine's"
            ),
            Self::TooManyPools => {
                write!(f, "a device has at most {} pools, its own first", super::MAX_POOLS)
            }
        }
    }
}

impl core::error::Error for BindError {}
