//! What the machine's IOMMU driver implements: map and unmap whole pages of one domain.
// UNSAFETY: the trait is unsafe to implement, since what devices reach rests on it.
#![expect(unsafe_code)]

use core::fmt;

use crate::addr::DmaAddr;
use crate::addr::PhysRange;
use crate::state::Direction;
use crate::state::State;

/// The machine's driver of one domain of an IOMMU: a table of pages and the devices behind it.
///
/// Both calls may come from several CPUs at once, for runs of addresses that do not overlap, and
/// from atomic context: they must not sleep, and may spin only for a bounded time. Errors are for
/// what the machine really meets (no memory for a table, a queue that does not answer).
///
/// # Safety
///
/// 1. `page` never changes, is a power of two, and 4096 at least.
/// 2. When `map` answers `Ok`, the devices of the domain reach each byte of the run at its address,
///    with the rights of the entry and no others, and nothing else changed.
/// 3. When `map` answers with an error, nothing changed: what it had mapped by then is taken out
///    again and flushed. It answers with an error where a page of the addresses is mapped already.
/// 4. When `unmap` answers `Ok`, no device of the domain reaches anything at these addresses any
///    more: entries are gone, and caches of translations are flushed (VT-d: the invalidation has
///    completed, by wait descriptor; AMD-Vi: COMPLETION_WAIT; virtio-iommu: the request came back).
///    Writes that the device had under way have reached memory (VT-d: drain).
/// 5. What is in no entry faults: the domain never passes addresses through.
pub unsafe trait Iommu: Sync {
    /// The smallest page in bytes: a power of two, and 4096 at least (VT-d, AMD-Vi, SMMU; the
    /// lowest bit of `page_size_mask` of virtio-iommu). Any context.
    fn page(&self) -> u64;

    /// Maps `run` at `iova` and the addresses behind it. Both are whole pages. Any context.
    ///
    /// # Safety
    ///
    /// The memory is in the state of the entry and stays so until it is unmapped, and the devices
    /// of the domain may do with it what the entry's rights say.
    unsafe fn map(&self, iova: DmaAddr, run: PhysRange, entry: Entry) -> Result<(), IommuError>;

    /// Takes `len` bytes from `iova` on out of the table, and flushes. They are whole pages that
    /// one `map` mapped, or several of them one behind the other; where the last of those failed,
    /// there is nothing to take out behind the others, which is no error. Where it fails, what is
    /// still mapped is in doubt: the layer keeps the addresses and the memory, and may ask for the
    /// same run again. What of it is gone already is then no error, and is flushed with the rest.
    /// Any context.
    ///
    /// # Safety
    ///
    /// The caller mapped the run, and the devices have stopped using it, or are to be stopped by
    /// this.
    unsafe fn unmap(&self, iova: DmaAddr, len: u64) -> Result<(), IommuError>;

    /// Whether any page of `len` bytes from `iova` on, whole pages, has an entry; `None` where the
    /// driver cannot tell. The layer asks after each `unmap` that answered well: where the entry
    /// lives all the same, it keeps addresses and memory as after a failure. It is read from the
    /// table that the hardware walks, or from whoever keeps that; a driver's own list of what it
    /// believes proves nothing. Any context.
    fn query(&self, _iova: DmaAddr, _len: u64) -> Option<bool> {
        None
    }
}

/// What an entry says of its pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Entry {
    /// Devices may read (VT-d second stage bit 0, AMD-Vi IR, `VIRTIO_IOMMU_MAP_F_READ`).
    pub reads: bool,
    /// Devices may write (VT-d second stage bit 1, AMD-Vi IW, `VIRTIO_IOMMU_MAP_F_WRITE`).
    pub writes: bool,
    /// The state of the memory, which the entry's address has to carry in the machine's way: a
    /// shared entry for shared memory (Linux: `IOMMU_DECRYPTED`), the C-bit for encrypted memory
    /// of a host. In a guest behind an IOMMU that knows no such types (VT-d and virtio-iommu as
    /// hosts emulate them) shared memory alone comes here.
    pub state: State,
    /// The run is registers of a device, not memory (`VIRTIO_IOMMU_MAP_F_MMIO`). Says nothing
    /// about the state.
    pub mmio: bool,
    /// The devices' accesses see the CPU's caches (Linux: `IOMMU_CACHE`; VT-d: snoop).
    pub coherent: bool,
}

impl Entry {
    /// The entry for memory in this state that the device uses in this direction, coherently.
    pub const fn new(direction: Direction, state: State) -> Self {
        Self {
            reads: direction.to_device(),
            writes: direction.from_device(),
            state,
            mmio: false,
            coherent: true,
        }
    }

    /// The same for registers.
    #[must_use]
    pub const fn mmio(self, mmio: bool) -> Self {
        Self { mmio, ..self }
    }

    /// The same for devices that see the caches, or do not.
    #[must_use]
    pub const fn coherent(self, coherent: bool) -> Self {
        Self { coherent, ..self }
    }
}

/// An IOMMU driver could not do what it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IommuError {
    /// The driver's own code, for people.
    pub code: u64,
}

impl IommuError {
    /// The layer's own: an unmap was answered well, and [`Iommu::query`] tells that the entry lives.
    pub const ONLY_CLAIMED: Self = Self { code: u64::MAX };
}

impl fmt::Display for IommuError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::ONLY_CLAIMED {
            return f.write_str("the IOMMU's driver says that it is unmapped, and the entry lives");
        }
        write!(f, "the IOMMU's driver failed with code {:#x}", self.code)
    }
}

impl core::error::Error for IommuError {}
