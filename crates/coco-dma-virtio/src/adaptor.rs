//! One device under a driver of `virtio-drivers`.
// UNSAFETY: buffers come as raw pointers whose conditions the driver keeps.
#![expect(unsafe_code)]

use core::fmt;
use core::ptr::NonNull;
use core::sync::atomic::AtomicUsize;
use core::sync::atomic::Ordering;

use coco_dma::addr::PhysAddr as Phys;
use coco_dma::addr::PhysRange;
use coco_dma::attrs::Attrs;
use coco_dma::device::Device;
use coco_dma::plan;
use coco_dma::platform::Platform;
use coco_dma::reason::Refuse;
use coco_dma::state::Context;
use coco_dma::state::Direction;
use virtio_drivers::BufferDirection;
use virtio_drivers::PAGE_SIZE;
use virtio_drivers::PhysAddr;

use crate::table::Key;
use crate::table::Live;
use crate::table::Record;
use crate::table::Table;

/// What a share is given that could not be mapped: the last page of 64 bits, beyond the physical
/// address width of every machine (52 bits on x86-64, 52 on Arm, 56 on RISC-V), so that a device
/// is refused rather than led astray.
pub const UNREACHABLE: PhysAddr = 0xffff_ffff_ffff_f000;

/// A device of the layer with the table of what its driver was given.
pub struct Adaptor<'d, P: Platform + ?Sized = dyn Platform + 'd> {
    device: Device<'d, P>,
    table: Table<'d>,
    failed_shares: AtomicUsize,
    unknown_unshares: AtomicUsize,
    lost: AtomicUsize,
}

/// What went wrong so far where the interface has no word for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AdaptorCounters {
    /// Shares that were given [`UNREACHABLE`].
    pub failed_shares: usize,
    /// Unshares and deallocations that fitted no live record, and were ignored.
    pub unknown_unshares: usize,
    /// What is kept for ever: allocations whose address was 0, and what an IOMMU could not unmap
    /// and found no place in the table.
    pub lost: usize,
}

impl<'d, P: Platform + ?Sized> Adaptor<'d, P> {
    /// An adaptor for `device`, with a table of as many live mappings as `records` has.
    pub fn new(device: Device<'d, P>, records: &'d [Record]) -> Self {
        Self {
            device,
            table: Table(records),
            failed_shares: AtomicUsize::new(0),
            unknown_unshares: AtomicUsize::new(0),
            lost: AtomicUsize::new(0),
        }
    }

    /// The device.
    pub fn device(&self) -> &Device<'d, P> {
        &self.device
    }

    /// Whether all of `buffers` could be shared now, together. Ask before submitting a request
    /// with these buffers; the answer holds as long as nobody else takes from the same pools.
    pub fn capacity_for(&self, buffers: &[NonNull<[u8]>]) -> Result<(), Refuse> {
        if !self.table.has_free(buffers.len()) {
            return Err(Refuse::PoolFull);
        }
        self.device.capacity_for(buffers)
    }

    /// How many shares and allocations are live at this moment, those among them that
    /// [`kept`](Self::kept) counts.
    pub fn live(&self) -> usize {
        self.table.live()
    }

    /// How many shares and allocations the driver has ended, and an IOMMU could not unmap: the
    /// device may still reach them, so that their records stay in the table until
    /// [`retry`](Self::retry) ends them.
    pub fn kept(&self) -> usize {
        self.table.kept()
    }

    /// Tries again to end what an IOMMU could not unmap; answers how much is left. Blocks where
    /// allocations are made of pages that convert.
    pub fn retry(&self) -> usize {
        self.table.end_each(true, |live| self.end(live));
        self.kept()
    }

    /// Ends what its driver has ended or will never end, without a byte copied; what cannot be
    /// unmapped comes back.
    fn end(&self, live: Live) -> Option<Live> {
        match live {
            Live::Mapped(mapping) | Live::KeptMapping(mapping) => {
                // SAFETY: the device had stopped when the driver ended it, or was revoked; with
                // nothing written no byte of the buffer is touched.
                let ended = unsafe { self.device.unmap_raw(mapping, 0) };
                ended.err().map(|error| Live::KeptMapping(error.into_mapping()))
            }
            Live::Allocated(memory) | Live::KeptMemory(memory) => {
                // SAFETY: as above; the driver uses it no more.
                let freed = unsafe { self.device.free_raw(memory) };
                freed.err().map(|error| Live::KeptMemory(error.memory))
            }
        }
    }

    /// Puts aside what could not be unmapped, if something could not.
    fn put_aside(&self, live: Option<Live>) {
        if live.is_some_and(|live| self.table.keep(live).is_err()) {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What went wrong so far.
    pub fn counters(&self) -> AdaptorCounters {
        AdaptorCounters {
            failed_shares: self.failed_shares.load(Ordering::Relaxed),
            unknown_unshares: self.unknown_unshares.load(Ordering::Relaxed),
            lost: self.lost.load(Ordering::Relaxed),
        }
    }

    /// [`Hal::share`](virtio_drivers::Hal::share).
    ///
    /// # Safety
    ///
    /// As there; and the buffer stays valid and untouched until it is unshared.
    pub unsafe fn share(&self, buffer: NonNull<[u8]>, direction: BufferDirection) -> PhysAddr {
        // SAFETY: the conditions of this function and of `Hal::share`.
        let mapped = unsafe { self.device.map_raw(buffer, translate(direction), Attrs::NONE) };
        let Ok(mapping) = mapped else {
            self.failed_shares.fetch_add(1, Ordering::Relaxed);
            return UNREACHABLE;
        };
        let addr = mapping.addr().raw();
        if let Err(live) = self.table.keep(Live::Mapped(mapping)) {
            // No device was given the address.
            self.put_aside(self.end(live));
            self.failed_shares.fetch_add(1, Ordering::Relaxed);
            return UNREACHABLE;
        }
        addr
    }

    /// [`Hal::unshare`](virtio_drivers::Hal::unshare). The interface does not say how much the
    /// device wrote, so all of the buffer is copied back; what the device did not write of it is
    /// zero. Nor does it have a word for what an IOMMU could not unmap: the driver has its buffer,
    /// and what the device may still reach is [`kept`](Self::kept).
    ///
    /// # Safety
    ///
    /// As there; and the device has stopped using the address.
    pub unsafe fn unshare(
        &self,
        addr: PhysAddr,
        buffer: NonNull<[u8]>,
        direction: BufferDirection,
    ) {
        if addr == UNREACHABLE {
            return;
        }
        let found = self.table.remove(&Key::mapped(addr, buffer, translate(direction)));
        let Some(Live::Mapped(mapping)) = found else {
            self.unknown_unshares.fetch_add(1, Ordering::Relaxed);
            return;
        };
        let len = mapping.len();
        // SAFETY: the device has stopped by this function's condition; the record was ours.
        if let Err(error) = unsafe { self.device.unmap_raw(mapping, len) } {
            let mapping = error.into_mapping();
            // SAFETY: the buffer is there until this returns.
            unsafe { self.device.sync_for_cpu(&mapping, 0..len) };
            self.put_aside(Some(Live::KeptMapping(mapping)));
        }
    }

    /// Revokes a device that is gone ([`Device::revoke`]) and finishes every live share of it;
    /// answers how many there were. Nothing is copied back: what a device left unfinished is
    /// nobody's. Its slots are free, those of its queues among them, and it is refused new ones:
    /// drop its queues first, and bind another device to go on. What an IOMMU could not unmap is
    /// [`kept`](Self::kept).
    ///
    /// # Safety
    ///
    /// The device has stopped using all of its memory, no other thread uses the adaptor meanwhile,
    /// and no driver will unshare the buffers again with others using them.
    pub unsafe fn revoke(&self) -> usize {
        // SAFETY: this function's conditions.
        unsafe { self.device.revoke() };
        let mut ended = 0;
        self.table.end_each(false, |live| {
            ended += usize::from(matches!(live, Live::Mapped(_)));
            self.end(live)
        });
        ended
    }

    /// [`Hal::dma_alloc`](virtio_drivers::Hal::dma_alloc): whole pages, zeroed. Address 0, which
    /// the interface takes for a failure, is never given: memory that lies there is set aside.
    pub fn dma_alloc(&self, pages: usize) -> (PhysAddr, NonNull<u8>) {
        const FAILED: (PhysAddr, NonNull<u8>) = (0, NonNull::dangling());
        let Some(len) = pages.checked_mul(PAGE_SIZE) else { return FAILED };
        let Ok(mut memory) = self.device.alloc_raw(len, Context::Blocking) else { return FAILED };
        if memory.addr().raw() == 0 {
            self.lost.fetch_add(1, Ordering::Relaxed);
            let Ok(other) = self.device.alloc_raw(len, Context::Blocking) else { return FAILED };
            memory = other;
        }
        let (addr, start) = (memory.addr().raw(), memory.bytes().cast());
        if let Err(live) = self.table.keep(Live::Allocated(memory)) {
            // Nobody was given the memory.
            self.put_aside(self.end(live));
            return FAILED;
        }
        (addr, start)
    }

    /// [`Hal::dma_dealloc`](virtio_drivers::Hal::dma_dealloc). Always reports success: the driver
    /// would panic otherwise, and memory that is not freed here is kept and counted.
    ///
    /// # Safety
    ///
    /// As there; and the device has stopped using the memory.
    pub unsafe fn dma_dealloc(&self, addr: PhysAddr, start: NonNull<u8>, pages: usize) -> i32 {
        let key = pages
            .checked_mul(PAGE_SIZE)
            .map(|len| Key::allocated(addr, NonNull::slice_from_raw_parts(start, len)));
        let found = key.and_then(|key| self.table.remove(&key));
        match found {
            Some(live) => self.put_aside(self.end(live)),
            None => _ = self.unknown_unshares.fetch_add(1, Ordering::Relaxed),
        }
        0
    }

    /// [`Hal::mmio_phys_to_virt`](virtio_drivers::Hal::mmio_phys_to_virt): an uncached view
    /// of a device's registers, as the host shows them. The interface cannot refuse, and allows for a panic where the platform
    /// has no view of them.
    ///
    /// # Safety
    ///
    /// As there.
    pub unsafe fn mmio_phys_to_virt(&self, addr: PhysAddr, size: usize) -> NonNull<u8> {
        let range = u64::try_from(size).ok().and_then(|len| PhysRange::new(Phys::new(addr), len));
        let (state, cache) = plan::registers(self.device.regime());
        let view = range.and_then(|range| {
            // SAFETY: the range is registers by this function's condition; a driver of
            // `virtio-drivers` uses them for its whole life.
            unsafe { self.device.platform().map_cpu(range, state, cache, Context::Blocking) }.ok()
        });
        #[expect(clippy::expect_used, reason = "the interface has no error")]
        view.map(|view| view.start)
            .expect("the platform has a view of the registers that the bus named")
    }
}

impl<P: Platform + ?Sized> fmt::Debug for Adaptor<'_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Adaptor")
            .field("device", &self.device)
            .field("counters", &self.counters())
            .finish_non_exhaustive()
    }
}

fn translate(direction: BufferDirection) -> Direction {
    match direction {
        BufferDirection::DriverToDevice => Direction::ToDevice,
        BufferDirection::DeviceToDriver => Direction::FromDevice,
        BufferDirection::Both => Direction::Both,
    }
}
