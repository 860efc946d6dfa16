//! The DMA-mapping layer for confidential computing.
//!
//! (See the README for the whole; this page is written with the next issue.)
#![no_std]

#[cfg(feature = "alloc")]
extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod addr;
pub mod attrs;
pub mod coherent;
pub mod convert;
mod copy;
pub mod device;
mod dma;
pub mod inspect;
pub mod iommu;
pub mod ledger;
pub mod observe;
pub mod plan;
pub mod platform;
pub mod pool;
pub mod reason;
pub mod regime;
pub mod shared;
mod slots;
pub mod state;
pub mod stream;
mod word;

pub use dma::Dma;
pub use word::Word;
