//! The DMA-mapping layer for confidential computing.
//!
//! (See the README for the whole; this page is written with the next issue.)
#![no_std]

#[cfg(test)]
extern crate std;

pub mod addr;
pub mod attrs;
pub mod coherent;
pub mod device;
pub mod plan;
pub mod platform;
pub mod pool;
pub mod reason;
pub mod regime;
pub mod state;
pub mod stream;
mod word;

pub use word::Word;
