//! `plan` at every point of its finite core, against invariants that are written down here and
//! nowhere else: these files know the form table by heart and ask no codec.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test stops where it fails")]

mod alloc;
mod answers;
mod attach;
mod judge;
mod limits;
mod map;
mod order;
mod pages;
mod pools;
mod table;
mod transfer;
