//! The map of an open machine, alone in a function, so that its instructions can be counted:
//! `cargo xtask open-path` does. Rule 10 of the design: a mask check and an addition.
// UNSAFETY: the function is exported under a fixed name, so that it is found in the assembly.
#![expect(unsafe_code)]

use std::hint::black_box;
use std::ptr::NonNull;

use coco_dma::Dma;
use coco_dma::addr::PhysAddr;
use coco_dma::addr::PhysRange;
use coco_dma::device::Device;
use coco_dma::device::Endpoint;
use coco_dma::plan::Limits;
use coco_dma::platform::Platform;
use coco_dma::regime::Regime;

/// A machine where nothing is to be done.
#[derive(Debug)]
struct Bare;

// SAFETY: the regime is fixed; nothing converts; an identity map needs no view.
unsafe impl Platform for Bare {
    fn regime(&self) -> Regime {
        Regime::Open
    }

    fn locate(&self, bytes: NonNull<[u8]>) -> Option<PhysRange> {
        let base = u64::try_from(bytes.cast::<u8>().addr().get()).ok()?;
        PhysRange::new(PhysAddr::new(base), u64::try_from(bytes.len()).ok()?)
    }
}

/// The map whose instructions are counted.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn coco_dma_open_map(device: &Device<'_, Bare>, phys: u64, len: u64) -> u64 {
    let Some(range) = PhysRange::new(PhysAddr::new(phys), len) else { return u64::MAX };
    match device.in_place(range) {
        Some(addr) => addr.raw(),
        None => u64::MAX,
    }
}

fn main() {
    let dma = Dma::new(&Bare, &[]);
    let device = dma.bind(Endpoint::new("disk"), Limits::mask_bits(32)).expect("a plain device");
    let phys = black_box(0x1000);
    println!("{:#x} -> {:#x}", phys, coco_dma_open_map(&device, phys, 4096));
    println!("{:#x} -> {:#x}", !phys, coco_dma_open_map(&device, !phys, 4096));
}
