//! Drivers of `virtio-drivers` as they are. Two things stand between them and the bus: a transport
//! that asks for ACCESS_PLATFORM, and the types of `Hal` that lead to the layer.
// UNSAFETY: types of `Hal`, one of which lies on purpose.
#![expect(unsafe_code)]

use core::cell::Cell;
use core::fmt::Debug;
use core::ptr::NonNull;

use virtio_drivers::BufferDirection;
use virtio_drivers::Hal;
use virtio_drivers::PhysAddr;
use virtio_drivers::transport::DeviceStatus;
use virtio_drivers::transport::DeviceType;
use virtio_drivers::transport::InterruptStatus;
use virtio_drivers::transport::Transport;
use virtio_drivers::transport::pci::PciTransport;
use zerocopy::FromBytes;
use zerocopy::Immutable;
use zerocopy::IntoBytes;

use crate::Failure;
use crate::pci;
use crate::pci::Found;
use crate::rt::OneCpu;

coco_dma_virtio::hal! {
    /// The way to memory of the virtio device that a scenario drives.
    pub struct DeviceHal;
}

/// VIRTIO_F_ACCESS_PLATFORM: the device's accesses go through the IOMMU.
const ACCESS_PLATFORM: u64 = 1 << 33;

/// A PCI transport whose driver accepts ACCESS_PLATFORM where it is offered.
#[derive(Debug)]
pub struct Platformed {
    inner: PciTransport,
    offered: u64,
}

impl Platformed {
    /// The transport of a device.
    pub fn new(found: Found) -> Result<Self, Failure> {
        pci::enable(found.at);
        let inner = PciTransport::new::<DeviceHal, _>(&mut pci::root(), found.at)?;
        Ok(Self { inner, offered: 0 })
    }
}

impl Transport for Platformed {
    fn read_device_features(&mut self) -> u64 {
        self.offered = self.inner.read_device_features();
        self.offered
    }

    fn write_driver_features(&mut self, features: u64) {
        self.inner.write_driver_features(features | (self.offered & ACCESS_PLATFORM));
    }

    fn device_type(&self) -> DeviceType {
        self.inner.device_type()
    }

    fn max_queue_size(&mut self, queue: u16) -> u32 {
        self.inner.max_queue_size(queue)
    }

    fn notify(&mut self, queue: u16) {
        self.inner.notify(queue);
    }

    fn get_status(&self) -> DeviceStatus {
        self.inner.get_status()
    }

    fn set_status(&mut self, status: DeviceStatus) {
        self.inner.set_status(status);
    }

    fn set_guest_page_size(&mut self, size: u32) {
        self.inner.set_guest_page_size(size);
    }

    fn requires_legacy_layout(&self) -> bool {
        self.inner.requires_legacy_layout()
    }

    fn queue_set(
        &mut self,
        queue: u16,
        size: u32,
        descriptors: PhysAddr,
        driver: PhysAddr,
        device: PhysAddr,
    ) {
        self.inner.queue_set(queue, size, descriptors, driver, device);
    }

    fn queue_unset(&mut self, queue: u16) {
        self.inner.queue_unset(queue);
    }

    fn queue_used(&mut self, queue: u16) -> bool {
        self.inner.queue_used(queue)
    }

    fn ack_interrupt(&mut self) -> InterruptStatus {
        self.inner.ack_interrupt()
    }

    fn read_config_generation(&self) -> u32 {
        self.inner.read_config_generation()
    }

    fn read_config_space<T: FromBytes + IntoBytes>(
        &self,
        offset: usize,
    ) -> virtio_drivers::Result<T> {
        self.inner.read_config_space(offset)
    }

    fn write_config_space<T: IntoBytes + Immutable>(
        &mut self,
        offset: usize,
        value: T,
    ) -> virtio_drivers::Result<()> {
        self.inner.write_config_space(offset, value)
    }
}

/// The buffer for which [`LyingHal`] lies.
static VICTIM: OneCpu<Cell<usize>> = OneCpu::new(Cell::new(0));

/// Says for which buffer [`LyingHal`] lies.
pub fn lie_about(buffer: NonNull<[u8]>) {
    VICTIM.set(buffer.cast::<u8>().addr().get());
}

/// The attack: a `Hal` as careless drivers had it before there was private memory. It gives the
/// device the address of one private buffer as it is, and goes by the layer for everything else.
#[derive(Debug)]
pub struct LyingHal;

// SAFETY: this is the point: it does not keep the private buffer from the device. Everything else
// is as in `DeviceHal`.
unsafe impl Hal for LyingHal {
    fn dma_alloc(pages: usize, direction: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        DeviceHal::dma_alloc(pages, direction)
    }

    unsafe fn dma_dealloc(addr: PhysAddr, start: NonNull<u8>, pages: usize) -> i32 {
        // SAFETY: the caller's conditions.
        unsafe { DeviceHal::dma_dealloc(addr, start, pages) }
    }

    unsafe fn mmio_phys_to_virt(addr: PhysAddr, size: usize) -> NonNull<u8> {
        // SAFETY: the caller's conditions.
        unsafe { DeviceHal::mmio_phys_to_virt(addr, size) }
    }

    unsafe fn share(buffer: NonNull<[u8]>, direction: BufferDirection) -> PhysAddr {
        let start = buffer.cast::<u8>().addr().get();
        if start == VICTIM.get() {
            return start as PhysAddr;
        }
        // SAFETY: the caller's conditions.
        unsafe { DeviceHal::share(buffer, direction) }
    }

    unsafe fn unshare(addr: PhysAddr, buffer: NonNull<[u8]>, direction: BufferDirection) {
        if buffer.cast::<u8>().addr().get() != VICTIM.get() {
            // SAFETY: the caller's conditions.
            unsafe { DeviceHal::unshare(addr, buffer, direction) };
        }
    }
}
