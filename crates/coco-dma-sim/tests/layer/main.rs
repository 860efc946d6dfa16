//! The layer on whole machines: random sequences against a plain model, a search for what nobody
//! gave, and one case for each way in which it went wrong once.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test stops where it fails"
)]

mod across;
mod answers;
mod drivers;
mod ends;
mod found_books;
mod found_convert;
mod found_device;
mod found_limits;
mod found_pool;
mod objects;
mod observed;
mod pinned_out;
mod random;
mod reservoir;
mod scattered;
mod stubborn;
mod support;
mod syncs;
mod views;
mod walk;
