//! The suite, the format, and what the two say when something is wrong.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test: a panic is how it fails"
)]

mod asked_and_done;
mod broken;
mod ids;
mod made_wrong;
mod page;
mod suite;
