//! Drivers: virtio's are `virtio-drivers`' own, unmodified; NVMe and edu are small ones.

pub mod edu;
pub mod nvme;
pub mod registers;
pub mod shared_buffer;
pub mod virtio;

use coco_dma::iommu::UnmapError;
use coco_dma::stream::MapError;
use coco_dma::stream::NotUnmapped;
use coco_dma::stream::ScopedMapError;
use coco_dma::stream::UnmapRawError;

/// A device did not do what it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceError {
    /// It answered with an error of its own.
    Status(u16),
    /// It did not answer in time, and was stopped.
    Silent,
    /// It is not there any more.
    Gone,
    /// The layer refused the map.
    Map(MapError),
    /// The IOMMU could not unmap what the device had.
    Unmap(UnmapError),
}

impl core::fmt::Display for DeviceError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Status(status) => write!(f, "the device answered with status {status:#x}"),
            Self::Silent => f.write_str("the device did not answer"),
            Self::Gone => f.write_str("the device is gone"),
            Self::Map(error) => error.fmt(f),
            Self::Unmap(error) => error.fmt(f),
        }
    }
}

impl From<MapError> for DeviceError {
    fn from(error: MapError) -> Self {
        Self::Map(error)
    }
}

/// What the device did with the loan does not matter any more: what is still mapped is kept.
impl<R> From<ScopedMapError<R>> for DeviceError {
    fn from(error: ScopedMapError<R>) -> Self {
        match error {
            ScopedMapError::Refused(error) => Self::Map(error),
            ScopedMapError::StillMapped { answer: _, kept } => match kept.error() {
                NotUnmapped::StillMapped(error) => Self::Unmap(error),
                NotUnmapped::NotThisDevice => Self::Gone,
            },
        }
    }
}

impl From<UnmapRawError> for DeviceError {
    fn from(error: UnmapRawError) -> Self {
        match error {
            UnmapRawError::StillMapped(_, error) => Self::Unmap(error),
            UnmapRawError::NotThisDevice(_) => Self::Gone,
        }
    }
}
