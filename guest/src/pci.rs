//! PCI by ports 0xcf8 and 0xcfc. The firmware has placed all registers already.
// UNSAFETY: the trait of `virtio-drivers` has an unsafe method.
#![expect(unsafe_code)]

use alloc::vec::Vec;

use virtio_drivers::transport::pci::bus::Command;
use virtio_drivers::transport::pci::bus::ConfigurationAccess;
use virtio_drivers::transport::pci::bus::DeviceFunction;
use virtio_drivers::transport::pci::bus::PciRoot;

use crate::rt::serial::in32;
use crate::rt::serial::out32;

const ADDRESS: u16 = 0xcf8;
const DATA: u16 = 0xcfc;
const BRIDGE: u8 = 6;

/// Configuration space.
#[derive(Clone, Copy, Debug)]
pub struct Ports;

impl ConfigurationAccess for Ports {
    fn read_word(&self, at: DeviceFunction, register: u8) -> u32 {
        out32(ADDRESS, select(at, register));
        in32(DATA)
    }

    fn write_word(&mut self, at: DeviceFunction, register: u8, data: u32) {
        out32(ADDRESS, select(at, register));
        out32(DATA, data);
    }

    unsafe fn unsafe_clone(&self) -> Self {
        *self
    }
}

fn select(at: DeviceFunction, register: u8) -> u32 {
    1 << 31 | u32::from(number(at)) << 8 | u32::from(register & 0xfc)
}

/// The number by which an IOMMU knows a device: bus, device and function.
pub fn number(at: DeviceFunction) -> u16 {
    u16::from(at.bus) << 8 | u16::from(at.device) << 3 | u16::from(at.function)
}

/// A device that was found.
#[derive(Clone, Copy, Debug)]
pub struct Found {
    /// Where.
    pub at: DeviceFunction,
    /// Vendor and device.
    pub id: (u16, u16),
    /// Class and subclass.
    pub class: (u8, u8),
}

/// Everything that is plugged in, behind bridges too.
pub fn scan() -> Vec<Found> {
    let (mut found, mut buses) = (Vec::new(), Vec::from([0]));
    while let Some(bus) = buses.pop() {
        for (at, info) in root().enumerate_bus(bus) {
            let (id, class) = ((info.vendor_id, info.device_id), (info.class, info.subclass));
            if class == (BRIDGE, 4) {
                let behind = (Ports.read_word(at, 0x18) >> 8) as u8;
                if behind > bus {
                    buses.push(behind);
                }
            }
            found.push(Found { at, id, class });
        }
    }
    found
}

/// The bus, as `virtio-drivers` wants it.
pub fn root() -> PciRoot<Ports> {
    PciRoot::new(Ports)
}

/// Lets a device answer and do DMA.
pub fn enable(at: DeviceFunction) {
    root().set_command(at, Command::MEMORY_SPACE | Command::BUS_MASTER);
}

/// Where the registers of a device lie: its first window.
pub fn registers(at: DeviceFunction) -> Option<(u64, u64)> {
    let bar = root().bar_info(at, 0).ok().flatten()?;
    bar.memory_address_size().filter(|(start, _)| *start != 0)
}

/// A port with one slot, in which a device can be unplugged.
#[derive(Clone, Copy, Debug)]
pub struct Port {
    bridge: DeviceFunction,
    /// Where its PCI Express capability begins.
    express: u8,
}

impl Port {
    const EXPRESS: u8 = 0x10;
    const SLOT: u8 = 0x18;
    const BUTTON: u32 = 1 << 16;
    /// In the slot's control: power off, and the light with it.
    const OFF: u32 = 1 << 10 | 3 << 8;

    /// The port above a device.
    pub fn above(device: DeviceFunction) -> Option<Self> {
        let is_above = |found: &Found| {
            found.class == (BRIDGE, 4) && (Ports.read_word(found.at, 0x18) >> 8) as u8 == device.bus
        };
        let bridge = scan().into_iter().find(is_above)?.at;
        let express = root().capabilities(bridge).find(|found| found.id == Self::EXPRESS)?.offset;
        Some(Self { bridge, express })
    }

    /// Waits until somebody asks for the device to be unplugged.
    pub fn wait_for_button(&self) -> Result<(), &'static str> {
        let slot = || Ports.read_word(self.bridge, self.express + Self::SLOT);
        (0..10_000_000).any(|_| slot() & Self::BUTTON != 0).then_some(()).ok_or("nobody asked")
    }

    /// Takes the power from the device: it is gone from then on.
    pub fn power_off(&self) {
        // The upper half is the status, whose bits are cleared by being written.
        Ports.write_word(self.bridge, self.express + Self::SLOT, Self::OFF | Self::BUTTON);
    }
}
