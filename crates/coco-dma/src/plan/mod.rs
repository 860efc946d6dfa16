//! The one decision. Whatever depends on platform, trust, mask, attribute, pool or page state is
//! decided here: by pure, total functions over small values, without memory, clock or side
//! effect. Everything above executes a [`Plan`]; nothing above decides again.
//!
//! Two questions are kept apart everywhere: *reach* (can this device touch memory in this state
//! at all) and *form* (which bits does the address carry).

mod alloc;
mod answer;
mod bind;
mod convert;
mod display;
mod list;
mod map;
mod memory;
mod pages;
mod pools;
mod reach;
mod request;
mod rule;
mod source;
mod step;
mod transfer;
mod walk;

pub use alloc::AllocPlan;
pub use alloc::Extent;
pub use alloc::LARGE_PAGE;
pub use alloc::Reservoir;
pub use alloc::alloc;
pub(crate) use alloc::no_slots;
pub use alloc::nothing_left;
pub use answer::DomainInfo;
pub use answer::Question;
pub use bind::NotBound;
pub(crate) use bind::open_path;
pub(crate) use bind::refuse;
pub(crate) use convert::converts_visibility;
pub(crate) use convert::keeps_contents;
pub(crate) use convert::lent;
pub(crate) use convert::restored;
pub use list::ListDevice;
pub use list::PagePlace;
pub use list::Piece;
pub use list::Segment;
pub use list::Segments;
pub use list::segments_fit;
pub use map::Plan;
pub use map::map;
pub use memory::Attached;
pub use memory::MmapRequest;
pub use memory::POOL_CACHE;
pub use memory::Protection;
pub use memory::View;
pub use memory::ViewRequest;
pub use memory::attach;
pub use memory::free;
pub use memory::mmap;
pub use memory::protection;
pub use memory::registers;
pub use memory::view;
pub use pages::OwnPages;
pub use pages::PageQuery;
pub use pools::Candidate;
pub use pools::Candidates;
pub(crate) use pools::state_of;
pub use request::AllocKind;
pub use request::AllocRequest;
pub use request::DeviceInfo;
pub use request::Limits;
pub use request::MapRequest;
pub use request::Place;
pub use request::PoolInfo;
pub use rule::Rule;
pub use step::Known;
pub use step::Misfit;
pub use step::PoolVerdict;
pub use step::Source;
pub use step::Step;
pub use step::Trace;
pub use transfer::Bytes;
pub use transfer::MapFace;
pub use transfer::Moment;
pub use transfer::Transfer;
pub use transfer::transfer;
pub use walk::KeepReason;
pub use walk::WalkBack;
pub use walk::WalkFace;
pub use walk::walk_back;
