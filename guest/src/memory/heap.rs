//! The heap: private memory for the guest's own things and for drivers' buffers. Blocks are
//! powers of two; freed ones wait in a list for the next of their size.
// UNSAFETY: an allocator.
#![expect(unsafe_code)]

use alloc::alloc::GlobalAlloc;
use alloc::alloc::Layout;
use core::cell::Cell;
use core::ptr;

use super::HEAP;
use super::HEAP_LEN;
use super::frames::Marker;
use super::private;
use crate::rt::OneCpu;

const SMALLEST: usize = 16;

/// The heap: the first byte that was never given, and a list for each power of two.
#[derive(Debug)]
struct Heap {
    next: Cell<u64>,
    free: [Cell<*mut u8>; usize::BITS as usize],
}

#[global_allocator]
static THE_HEAP: OneCpu<Heap> = OneCpu::new(Heap {
    next: Cell::new(HEAP),
    free: [const { Cell::new(ptr::null_mut()) }; usize::BITS as usize],
});

/// Fills the heap with the marker, before anything is taken from it.
pub fn start(marker: Marker) {
    let area = private(HEAP).cast::<Marker>();
    for at in 0..HEAP_LEN as usize / size_of::<Marker>() {
        // SAFETY: the area is the heap's, aligned, and not used yet.
        unsafe { area.wrapping_add(at).write(marker) };
    }
}

fn size(layout: Layout) -> usize {
    layout.size().max(layout.align()).max(SMALLEST).next_power_of_two()
}

// SAFETY: a block is given to one at a time, is as long as its size says, and is aligned to it, as
// the heap begins at a multiple of every size.
unsafe impl GlobalAlloc for OneCpu<Heap> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let size = size(layout);
        let list = &self.free[size.trailing_zeros() as usize];
        let first = list.get();
        if !first.is_null() {
            // SAFETY: a block in the list holds the pointer to the next.
            list.set(unsafe { first.cast::<*mut u8>().read() });
            return first;
        }
        let at = self.next.get().next_multiple_of(size as u64);
        let end = at + size as u64;
        if end > HEAP + HEAP_LEN {
            return ptr::null_mut();
        }
        self.next.set(end);
        private(at)
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let list = &self.free[size(layout).trailing_zeros() as usize];
        // SAFETY: the block is at least as long as a pointer, aligned, and nobody's now.
        unsafe { block.cast::<*mut u8>().write(list.get()) };
        list.set(block);
    }
}
