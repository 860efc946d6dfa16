//! A [`Front`] as `virtio-drivers` sees it. Most of the interface returns nothing: the first
//! error is kept for [`Front::check`].

use virtio_drivers::transport::{DeviceStatus, DeviceType, InterruptStatus, Transport};
use virtio_drivers::{Error, PhysAddr, Result};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::{Front, FrontError, QueueAt};

/// The longest split queue that virtio knows. vhost-user has no message to ask for a device's
/// own limit: it refuses what is too long.
const LONGEST: u32 = 32768;

impl Transport for Front<'_> {
    fn device_type(&self) -> DeviceType {
        DeviceType::Block
    }

    fn read_device_features(&mut self) -> u64 {
        self.offered
    }

    fn write_driver_features(&mut self, driver_features: u64) {
        let result = self.accept(driver_features);
        self.latch(result);
    }

    fn max_queue_size(&mut self, _queue: u16) -> u32 {
        LONGEST
    }

    fn notify(&mut self, _queue: u16) {
        self.kick();
    }

    fn get_status(&self) -> DeviceStatus {
        self.status
    }

    fn set_status(&mut self, status: DeviceStatus) {
        // Between the two ends of vhost-user there is no status: it stays with us.
        self.status = status;
    }

    fn set_guest_page_size(&mut self, _guest_page_size: u32) {}

    fn requires_legacy_layout(&self) -> bool {
        false
    }

    fn queue_set(
        &mut self,
        _queue: u16,
        size: u32,
        descriptors: PhysAddr,
        driver_area: PhysAddr,
        device_area: PhysAddr,
    ) {
        let result = u16::try_from(size)
            .map_err(|_| FrontError::Queue { address: descriptors })
            .and_then(|size| {
                let (available, used) = (driver_area, device_area);
                self.start_queue(&QueueAt { size, descriptors, available, used })
            });
        self.latch(result);
    }

    fn queue_unset(&mut self, _queue: u16) {
        let result = self.stop_queue();
        self.latch(result);
    }

    fn queue_used(&mut self, _queue: u16) -> bool {
        self.queue
    }

    fn ack_interrupt(&mut self) -> InterruptStatus {
        self.hear_call();
        InterruptStatus::QUEUE_INTERRUPT
    }

    fn read_config_generation(&self) -> u32 {
        // The configuration was read once.
        0
    }

    fn read_config_space<T: FromBytes + IntoBytes>(&self, offset: usize) -> Result<T> {
        let rest = self.config.get(offset..).ok_or(Error::ConfigSpaceTooSmall)?;
        T::read_from_prefix(rest).map(|(value, _)| value).map_err(|_| Error::ConfigSpaceTooSmall)
    }

    fn write_config_space<T: IntoBytes + Immutable>(
        &mut self,
        _offset: usize,
        _value: T,
    ) -> Result<()> {
        Err(Error::Unsupported)
    }
}
