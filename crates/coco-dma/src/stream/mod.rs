//! Streaming maps: a buffer of the driver, lent to the device for one transfer.
//!
//! Straight down and straight up: [`Device::map_raw`](crate::device::Device::map_raw) asks
//! `plan` once and does what it says;
//! [`Device::finish_raw`](crate::device::Device::finish_raw) undoes what the record says, asking
//! nobody again.

mod error;
mod raw;
mod room;

pub use error::MapError;
pub use error::NotThisDevice;
pub use raw::RawMapping;
pub use room::MAX_ROOM;
