//! What stands between every device and memory: VT-d, virtio-iommu, or nothing.
//!
//! Devices are behind domains, which are numbers. Domain [`PASSTHROUGH`] maps each shared granule
//! to itself and is where every device begins: the platform keeps it. Other domains translate.

pub mod translated;
pub mod virtio;
pub mod vtd;

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;

use coco_dma::observe::Fault;

use crate::pci::Found;
use crate::pci::number;

/// The domain that maps shared memory to itself.
pub const PASSTHROUGH: u16 = 0;

/// What devices may do with a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rights {
    /// They may read it.
    pub reads: bool,
    /// They may write it.
    pub writes: bool,
}

impl Rights {
    /// Both.
    pub const ALL: Self = Self { reads: true, writes: true };
}

/// The IOMMU of this machine.
#[derive(Debug, Default)]
pub enum Iommu {
    /// There is none, and every device reaches all memory.
    #[default]
    None,
    /// Intel's, by tables.
    Vtd(vtd::Vtd),
    /// virtio's, by requests.
    Virtio(Box<virtio::VirtioIommu>),
}

/// The IOMMU did not do what it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// There is no room for another table.
    NoTable,
    /// The address has more bits than the tables.
    TooWide,
    /// Something is mapped there already, or nothing is.
    Occupied,
    /// It said no, with this status.
    Status(u8),
    /// It said nothing.
    Silent,
}

impl Refused {
    /// The same as one number, for the layer's error.
    pub fn code(self) -> u64 {
        match self {
            Self::NoTable => 0x101,
            Self::TooWide => 0x102,
            Self::Occupied => 0x103,
            Self::Silent => 0x104,
            Self::Status(status) => u64::from(status),
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoTable => f.write_str("the IOMMU has no room for another table"),
            Self::TooWide => f.write_str("the address has more bits than the IOMMU's tables"),
            Self::Occupied => f.write_str("something is mapped there already"),
            Self::Status(status) => write!(f, "the IOMMU refused with status {status}"),
            Self::Silent => f.write_str("the IOMMU does not answer"),
        }
    }
}

impl Iommu {
    /// Its name in the report.
    pub fn name(&self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Vtd(_) => "intel-iommu",
            Self::Virtio(_) => "virtio-iommu",
        }
    }

    /// Puts a device behind a domain, and takes it out of the one it was behind.
    pub fn attach(&mut self, device: Found, domain: u16) -> Result<(), Refused> {
        let source = number(device.at);
        match self {
            Self::None => Ok(()),
            Self::Vtd(vtd) => vtd.attach(source, domain),
            Self::Virtio(virtio) => virtio.attach(source, domain),
        }
    }

    /// Maps one page.
    pub fn map(
        &mut self,
        domain: u16,
        iova: u64,
        page: u64,
        rights: Rights,
    ) -> Result<(), Refused> {
        match self {
            Self::None => Ok(()),
            Self::Vtd(vtd) => vtd.map(domain, iova, page, rights),
            Self::Virtio(virtio) => virtio.map(domain, iova, page, rights),
        }
    }

    /// Takes away pages that were mapped, and everything that the IOMMU remembers of them.
    pub fn unmap(&mut self, domain: u16, iova: u64, len: u64) -> Result<(), Refused> {
        match self {
            Self::None => Ok(()),
            Self::Vtd(vtd) => vtd.unmap(domain, iova, len),
            Self::Virtio(virtio) => virtio.unmap(domain, iova, len),
        }
    }

    /// The accesses that were stopped since the last question.
    pub fn faults(&mut self) -> Vec<Fault> {
        match self {
            Self::None => Vec::new(),
            Self::Vtd(vtd) => vtd.faults(),
            Self::Virtio(virtio) => virtio.faults(),
        }
    }
}
