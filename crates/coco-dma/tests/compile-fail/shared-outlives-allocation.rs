//! Shared memory is looked at after it was freed.
// UNSAFETY: the raw form of an allocation.
#![expect(unsafe_code)]

use coco_dma::coherent::RawCoherent;
use coco_dma::device::Device;

pub fn free(device: &Device<'_>, memory: RawCoherent) -> usize {
    // SAFETY: never run.
    let shared = unsafe { memory.shared_bytes() };
    let len = shared.len();
    // SAFETY: never run.
    let _ = unsafe { device.free_raw(memory) }; //~ E0505
    #[cfg(misuse)]
    let _ = shared.len();
    len
}
