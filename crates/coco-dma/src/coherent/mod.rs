//! Coherent memory: what driver and device both keep at hand, rings above all. Taken from the
//! pools that the device reaches, whole pages, zeroed.

mod pages;
mod raw;

pub use raw::AllocError;
pub use raw::RawCoherent;
