//! virtio-iommu (virtio 1.3, section 5.13): domains are numbers, and every change is a request on
//! a queue of `virtio-drivers`. Faults come on a queue of their own.
// UNSAFETY: buffers of the event queue stay with the device between two calls.
#![expect(unsafe_code)]

use alloc::boxed::Box;
use alloc::vec::Vec;

use coco_dma::addr::DmaAddr;
use coco_dma::observe::Fault;
use coco_dma::observe::FaultReason;
use coco_dma_virtio::Bound;
use virtio_drivers::queue::VirtQueue;
use virtio_drivers::transport::DeviceStatus;
use virtio_drivers::transport::Transport;
use virtio_drivers::transport::pci::PciTransport;

use super::Refused;
use super::Rights;
use crate::memory::PAGE;

coco_dma_virtio::hal! {
    /// The IOMMU's own way to memory: a restricted pool that was shared before the layer existed,
    /// since sharing goes through this very device.
    pub struct IommuHal;
}

const REQUESTS: u16 = 0;
const EVENTS: u16 = 1;
const SIZE: usize = 16;
/// Bytes of a fault event.
const EVENT: usize = 24;

const VERSION_1: u64 = 1 << 32;
const MAP_UNMAP: u64 = 1 << 2;
const BYPASS_CONFIG: u64 = 1 << 6;
const BYPASS: usize = 36;

const ATTACH: u8 = 1;
const MAP: u8 = 3;
const UNMAP: u8 = 4;
const READ: u32 = 1;
const WRITE: u32 = 2;

/// In the flags of an event: what the access was, and that there is an address.
const FAULT_READ: u32 = 1;
const FAULT_WRITE: u32 = 2;

/// The IOMMU.
pub struct VirtioIommu {
    transport: PciTransport,
    requests: VirtQueue<IommuHal, SIZE>,
    events: VirtQueue<IommuHal, SIZE>,
    buffers: Vec<(u16, Box<[u8; EVENT]>)>,
    _bound: Bound<'static>,
}

impl core::fmt::Debug for VirtioIommu {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("VirtioIommu")
    }
}

impl VirtioIommu {
    /// Switches it on: from then on a device that is behind no domain reaches nothing.
    pub fn start(mut transport: PciTransport, bound: Bound<'static>) -> Result<Self, Refused> {
        transport.set_status(DeviceStatus::empty());
        transport.set_status(DeviceStatus::ACKNOWLEDGE | DeviceStatus::DRIVER);
        let wanted = VERSION_1 | MAP_UNMAP | BYPASS_CONFIG;
        let offered = transport.read_device_features();
        if offered & wanted != wanted {
            return Err(Refused::Silent);
        }
        transport.write_driver_features(wanted);
        let ready = DeviceStatus::ACKNOWLEDGE | DeviceStatus::DRIVER | DeviceStatus::FEATURES_OK;
        transport.set_status(ready);
        let queue = |transport: &mut PciTransport, number| {
            VirtQueue::new(transport, number, false, false).map_err(|_| Refused::NoTable)
        };
        let requests = queue(&mut transport, REQUESTS)?;
        let events = queue(&mut transport, EVENTS)?;
        transport.finish_init();
        transport.write_config_space(BYPASS, 0_u8).map_err(|_| Refused::Silent)?;
        let mut iommu = Self { transport, requests, events, buffers: Vec::new(), _bound: bound };
        for _ in 0..SIZE / 2 {
            iommu.post(Box::new([0; EVENT]));
        }
        Ok(iommu)
    }

    /// Gives the device a buffer for an event.
    fn post(&mut self, mut buffer: Box<[u8; EVENT]>) {
        // SAFETY: the buffer stays in `buffers`, untouched, until it is popped.
        if let Ok(token) = unsafe { self.events.add(&[], &mut [&mut buffer[..]]) } {
            self.buffers.push((token, buffer));
        }
        if self.events.should_notify() {
            self.transport.notify(EVENTS);
        }
    }

    /// Sends a request and waits for its status.
    fn request(&mut self, request: &[u8]) -> Result<(), Refused> {
        // What the device does not write is no success.
        let mut tail = [0xff, 0, 0, 0];
        self.requests
            .add_notify_wait_pop(&[request], &mut [&mut tail], &mut self.transport)
            .map_err(|_| Refused::Silent)?;
        match tail[0] {
            0 => Ok(()),
            status => Err(Refused::Status(status)),
        }
    }

    pub(super) fn attach(&mut self, source: u16, domain: u16) -> Result<(), Refused> {
        let mut request = [0; 20];
        request[0] = ATTACH;
        request[4..8].copy_from_slice(&u32::from(domain).to_le_bytes());
        request[8..12].copy_from_slice(&u32::from(source).to_le_bytes());
        self.request(&request)
    }

    pub(super) fn map(
        &mut self,
        domain: u16,
        iova: u64,
        page: u64,
        rights: Rights,
    ) -> Result<(), Refused> {
        let flags = if rights.reads { READ } else { 0 } | if rights.writes { WRITE } else { 0 };
        let mut request = [0; 36];
        request[0] = MAP;
        request[4..8].copy_from_slice(&u32::from(domain).to_le_bytes());
        request[8..16].copy_from_slice(&iova.to_le_bytes());
        request[16..24].copy_from_slice(&(iova + PAGE - 1).to_le_bytes());
        request[24..32].copy_from_slice(&page.to_le_bytes());
        request[32..36].copy_from_slice(&flags.to_le_bytes());
        self.request(&request)
    }

    pub(super) fn unmap(&mut self, domain: u16, iova: u64, len: u64) -> Result<(), Refused> {
        let mut request = [0; 28];
        request[0] = UNMAP;
        request[4..8].copy_from_slice(&u32::from(domain).to_le_bytes());
        request[8..16].copy_from_slice(&iova.to_le_bytes());
        request[16..24].copy_from_slice(&(iova + len - 1).to_le_bytes());
        self.request(&request)
    }

    /// Takes the events that are there, and gives their buffers back to the device.
    pub(super) fn faults(&mut self) -> Vec<Fault> {
        let mut found = Vec::new();
        while let Some(token) = self.events.peek_used() {
            let Some(index) = self.buffers.iter().position(|(posted, _)| *posted == token) else {
                break;
            };
            let (_, mut buffer) = self.buffers.swap_remove(index);
            // SAFETY: the buffer is the one that was posted with this token.
            let popped = unsafe { self.events.pop_used(token, &[], &mut [&mut buffer[..]]) };
            if popped.is_ok() {
                found.push(decode(&buffer));
            }
            self.post(buffer);
        }
        found
    }
}

fn decode(event: &[u8; EVENT]) -> Fault {
    let word = |at: usize| {
        let bytes = event.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
        u32::from_le_bytes(bytes.unwrap_or_default())
    };
    let flags = word(4);
    Fault {
        source: word(8),
        addr: DmaAddr::new(u64::from(word(16)) | u64::from(word(20)) << 32),
        write: match flags & (FAULT_READ | FAULT_WRITE) {
            FAULT_READ => Some(false),
            FAULT_WRITE => Some(true),
            _ => None,
        },
        reason: match event[0] {
            1 => FaultReason::Domain,
            2 => FaultReason::Mapping,
            _ => FaultReason::Unknown,
        },
        code: event[0].into(),
    }
}
