//! A machine for the programs: memory at its own address, the rules as they are given.
// UNSAFETY: the platform's promise, and a static that a device would write.
#![allow(unsafe_code)]

use core::cell::UnsafeCell;
use core::ptr::NonNull;

use coco_dma::addr::{PhysAddr, PhysRange};
use coco_dma::platform::CpuView;
use coco_dma::platform::{NoView, Platform};
use coco_dma::regime::Regime;
use coco_dma::state::{CacheMode, Context, State};

/// The machine.
#[derive(Debug)]
pub struct Machine(pub Regime);

// SAFETY: the rules never change; memory lies at its own address, for ever; nothing is converted,
// and the error says so; a view is the memory itself.
unsafe impl Platform for Machine {
    fn regime(&self) -> Regime {
        self.0
    }

    fn locate(&self, bytes: NonNull<[u8]>) -> Option<PhysRange> {
        range(bytes)
    }

    unsafe fn map_cpu(
        &self,
        run: PhysRange,
        _: State,
        _: CacheMode,
        _: Context,
    ) -> Result<CpuView, NoView> {
        let address = usize::try_from(run.base().raw()).map_err(|_| NoView)?;
        NonNull::new(core::ptr::with_exposed_provenance_mut(address))
            .map(CpuView::from)
            .ok_or(NoView)
    }
}

/// Where bytes lie.
pub fn range(bytes: NonNull<[u8]>) -> Option<PhysRange> {
    let start = bytes.cast::<u8>().as_ptr().expose_provenance();
    PhysRange::new(PhysAddr::new(u64::try_from(start).ok()?), u64::try_from(bytes.len()).ok()?)
}

/// Memory in the program's image.
#[derive(Debug)]
#[repr(align(4096))]
pub struct Memory<const N: usize>(UnsafeCell<[u8; N]>);

// SAFETY: the program has one thread.
unsafe impl<const N: usize> Sync for Memory<N> {}

impl<const N: usize> Memory<N> {
    /// All of it 0xaa: what an earlier owner left behind.
    #[expect(clippy::new_without_default, reason = "for statics")]
    pub const fn new() -> Self {
        Self(UnsafeCell::new([0xaa; N]))
    }

    /// Its bytes.
    pub const fn bytes(&self) -> NonNull<[u8]> {
        // SAFETY: the pointer of a cell is not null.
        NonNull::slice_from_raw_parts(unsafe { NonNull::new_unchecked(self.0.get()) }.cast(), N)
    }
}
