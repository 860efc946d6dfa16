//! Coherent memory: what driver and device both keep at hand, rings above all.
//!
//! It comes from pages of our own (converted where the device needs it, and taken back exactly if a
//! later step fails) or from a pool that serves allocations; in atomic context from the reserve,
//! which never converts. [`Device::alloc`](crate::device::Device::alloc) is the form for safe code:
//! the CPU's alone until it is exposed. Who converted memory converts it back: the record says so.

mod guard;
mod pages;
mod raw;
mod views;

pub use guard::Coherent;
pub use guard::CoherentInit;
pub use raw::AllocError;
pub use raw::RawCoherent;
