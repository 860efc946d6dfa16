//! Streaming maps: a buffer of the driver, lent to the device for one transfer.
//!
//! Straight down and straight up: [`Device::map_raw`](crate::device::Device::map_raw) asks
//! `plan` once and does what it says;
//! [`Device::unmap_raw`](crate::device::Device::unmap_raw) undoes what the record says, asking
//! nobody again.
//!
//! Safe code has two forms of it. [`Device::map`](crate::device::Device::map) takes a buffer away
//! and [`Mapping::unmap`] gives it back; a mapping that is dropped or forgotten keeps it for good.
//! [`Device::with_mapped`](crate::device::Device::with_mapped) borrows a buffer while a closure
//! runs. The direction is a value, not a type, in all of them: adaptors get it at run time from
//! their own world, and the wrong sync is not a mistake with consequences: it does nothing.

mod buffer;
mod capacity;
mod error;
mod fast;
mod iommu;
mod launder;
mod list;
mod live;
mod map;
#[cfg(all(test, loom))]
mod models;
mod owned;
mod raw;
mod scoped;
mod stuck;
mod tell;
mod transfer;

pub use buffer::OwnedBuffer;
pub use capacity::MAX_ROOM;
pub use error::MapError;
pub use error::MapFailed;
pub use error::UnmapRawError;
pub use list::ListError;
pub use list::ListFailed;
pub use list::RawList;
pub use list::UnmapListError;
pub use owned::Mapping;
pub use raw::RawMapping;
pub use scoped::ScopedMapping;
pub use scoped::ScopedMappingRef;
pub use stuck::NotUnmapped;
pub use stuck::ScopedMapError;
pub use stuck::StuckMapping;
pub use stuck::UnmapFailed;
