//! A bare-metal guest whose only DMA layer is coco-dma. See README.md for the way through it.
#![no_std]
#![no_main]

extern crate alloc;

pub mod devices;
pub mod iommu;
pub mod layer;
pub mod memory;
pub mod pci;
pub mod platform;
pub mod report;
pub mod rt;
pub mod scenarios;

use alloc::string::String;
use alloc::string::ToString;
use core::fmt;

use memory::boot_shared;
use memory::frames::Marker;
use memory::frames::SOURCE;
use memory::paging::PAGING;
use rt::exit::Ending;
use rt::exit::exit;
use rt::start::Boot;

/// Why something was not shown, as a sentence. Any error becomes one.
pub struct Failure(String);

impl<T: fmt::Display> From<T> for Failure {
    fn from(why: T) -> Self {
        Self(why.to_string())
    }
}

/// From the entry: memory first, then the layer, then what the command line asks for.
pub fn main(boot: &Boot) -> ! {
    let marker = marker(boot);
    memory::heap::start(marker);
    PAGING.start(boot.memory_end);
    boot_shared::start();
    SOURCE.start(boot.memory_end, marker);
    let done = layer::Layer::start(boot.memory_end).and_then(|layer| scenarios::run(&layer, boot));
    match done {
        Ok(()) => {
            say!("held");
            exit(Ending::Held)
        }
        Err(Failure(why)) => {
            say!("failed: {why}");
            exit(Ending::Failed)
        }
    }
}

/// The marker of this run: sixteen bytes in hexadecimal on the command line.
fn marker(boot: &Boot) -> Marker {
    let given = boot.option("marker").and_then(|hex| u128::from_str_radix(hex, 16).ok());
    given.unwrap_or(0x636f_636f_2070_7269_7661_7465_206d_6b2e).to_be_bytes()
}
