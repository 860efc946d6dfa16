//! Coherent memory: what driver and device both keep at hand, rings above all.
//!
//! It comes from the reservoir, pools that were shared in bulk and are kept for it; from pages of our
//! own (converted where the device needs it, and taken back exactly if a later step fails); or from a
//! pool that serves allocations. Atomic context is served from pools alone, the reserve among them,
//! and converts nothing. [`Device::alloc`](crate::device::Device::alloc) is the form for safe code:
//! the CPU's alone until it is exposed. Who converted memory converts it back: the record says so.
//!
//! What is smaller than a page comes out of an [`ObjectPool`], which takes pages from here and hands
//! out objects of one kind, descriptors above all.

mod error;
mod guard;
mod objects;
mod pages;
mod raw;
mod reservoir;
mod runs;
mod scattered;
mod size;
mod slots;
mod tell;
mod views;

pub use error::AllocError;
pub use error::FreeError;
pub use error::NotFreed;
pub use guard::Coherent;
pub use guard::CoherentInit;
pub use objects::LayoutError;
pub use objects::Object;
pub use objects::ObjectLayout;
pub use objects::ObjectPage;
pub use objects::ObjectPool;
pub use objects::PagesInUse;
pub use raw::RawCoherent;
pub use scattered::NotScattered;
pub use scattered::RawScattered;
pub use scattered::Run;
pub use size::AllocSize;
