//! IOMMU domains: a device behind one is given addresses of the domain (IOVAs), and each entry says
//! which memory lies there, who may do what with it, and in which state it is.
//!
//! The machine brings a driver for one domain ([`Iommu`]: map and unmap whole pages), a window of
//! addresses ([`IovaWindow`]) and words for the bookkeeping; [`Domain`] gives addresses out, and
//! [`Endpoint::translated`](crate::device::Endpoint::translated) puts a device behind it. From then
//! on every map, bounce and allocation of the device goes through the domain, and ends by being
//! unmapped *before* bytes are brought back, slots are given back or memory is converted.
//!
//! An IOMMU that the host emulates is no boundary against the host: `plan` never lets a private
//! page be mapped for a device that the guest did not accept, whatever stands in the entry.

mod domain;
mod driver;
mod error;
#[cfg(all(test, loom))]
mod models;
mod pages;
#[cfg(all(test, not(loom)))]
mod tests;
mod window;

pub use crate::observe::Fault;
pub use crate::observe::FaultReason;
pub use domain::Domain;
pub use driver::Entry;
pub use driver::Iommu;
pub use driver::IommuError;
pub use error::DomainError;
pub use error::UnmapError;
pub(crate) use pages::Fit;
pub(crate) use pages::Mapped;
pub(crate) use pages::PartialMap;
pub(crate) use pages::UnmapFailure;
pub use window::IovaWindow;
