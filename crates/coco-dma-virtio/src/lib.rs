//! `coco-dma` under the drivers of `virtio-drivers` 0.13: an implementation of its [`Hal`] that
//! bounces, maps in place or refuses as the layer decides.
//!
//! [`Hal`] has no `self`, so each device gets a type of its own ([`hal!`]) that is bound to an
//! [`Adaptor`] while its driver runs. [`Hal::share`] cannot fail, so ask
//! [`Adaptor::capacity_for`] before submitting; a share that finds no room all the same is given
//! [`UNREACHABLE`], an address that no device reaches, and is counted. [`Hal::unshare`] gives only
//! an address, so each mapping stands in a private table, and one that the table does not know
//! (another buffer, length or direction, or ended already) is counted and otherwise ignored.
//!
//! ```
//! coco_dma_virtio::hal! {
//!     /// The disk's way to memory.
//!     pub struct DiskHal;
//! }
//! // let queue = virtio_drivers::queue::VirtQueue::<DiskHal, 16>::new(...);
//! ```
//!
//! [`Hal`]: virtio_drivers::Hal
//! [`Hal::share`]: virtio_drivers::Hal::share
//! [`Hal::unshare`]: virtio_drivers::Hal::unshare
#![no_std]

#[cfg(test)]
extern crate std;

mod adaptor;
mod binding;
mod table;

pub use adaptor::Adaptor;
pub use adaptor::AdaptorCounters;
pub use adaptor::UNREACHABLE;
pub use binding::AlreadyBound;
pub use binding::Binding;
pub use binding::Bound;
pub use coco_dma::platform::Platform;
pub use table::Record;
#[doc(hidden)]
pub use virtio_drivers;
