//! The whole way: a device's map and finish in a confidential guest.
// UNSAFETY: it implements the machine, and maps raw buffers.
#![expect(unsafe_code)]

use core::ptr::NonNull;
use core::sync::atomic::Ordering;
use core::sync::atomic::fence;

use coco_dma::addr::PhysAddr;
use coco_dma::addr::PhysRange;
use coco_dma::attrs::Attrs;
use coco_dma::device::Device;
use coco_dma::platform::Platform;
use coco_dma::pool::Pool;
use coco_dma::pool::PoolHandle;
use coco_dma::regime::Parameters;
use coco_dma::regime::PlatformName;
use coco_dma::regime::Regime;
use coco_dma::state::Direction;
use coco_dma::stream::RawMapping;

use crate::hand::Subject;
use crate::hand::Worker;
use crate::measure;
use crate::memory::Buffers;
use crate::memory::Region;

/// Where the pool lies in the guest.
const POOL: u64 = 1 << 30;
/// Where its buffers lie.
const RAM: u64 = 1 << 36;

/// A guest of TDX: one region is its shared pool, the buffers are its private memory.
#[derive(Debug)]
pub(super) struct Guest {
    regime: Regime,
    pool: PhysRange,
    ram: PhysRange,
    ram_start: usize,
}

impl Guest {
    /// What converts at least, in bytes.
    pub(super) const GRANULE: u64 = 4096;

    pub(super) fn new(pool: &Region, buffers: &Buffers) -> Option<Self> {
        let (start, len) = buffers.extent();
        Some(Self {
            regime: PlatformName::Tdx.regime(&Parameters::default()).ok()?,
            pool: PhysRange::new(PhysAddr::new(POOL), pool.len() as u64)?,
            ram: PhysRange::new(PhysAddr::new(RAM), len as u64)?,
            ram_start: start.addr().get(),
        })
    }

    pub(super) fn pool(&self) -> PhysRange {
        self.pool
    }

    pub(super) fn ram(&self) -> PhysRange {
        self.ram
    }
}

// SAFETY: 1. the regime is fixed. 2. Buffers lie in one region, which stands for the guest's RAM in
// its order; nothing else is located. 3. Nothing converts. 4. There are no views.
unsafe impl Platform for Guest {
    fn regime(&self) -> Regime {
        self.regime
    }

    #[inline]
    fn locate(&self, bytes: NonNull<[u8]>) -> Option<PhysRange> {
        let offset = bytes.cast::<u8>().addr().get().checked_sub(self.ram_start)?;
        self.ram.slice(offset as u64, bytes.len() as u64)
    }

    #[inline]
    fn cpu(&self) -> usize {
        measure::cpu()
    }

    // What a coherent device needs: order before the descriptor that shows it the bytes, and after
    // the one that says that they came. On x86 that is no instruction.
    #[inline]
    fn sync_for_device(&self, _: NonNull<[u8]>, _: Direction, _: bool) {
        fence(Ordering::Release);
    }

    #[inline]
    fn sync_for_cpu(&self, _: NonNull<[u8]>, _: Direction, _: bool) {
        fence(Ordering::Acquire);
    }
}

/// A device, and the pool that it bounces through.
#[derive(Clone, Copy, Debug)]
pub(super) struct Whole<'d> {
    device: &'d Device<'d, Guest>,
    pool: &'d Pool<'d>,
    direction: Direction,
}

impl<'d> Whole<'d> {
    pub(super) fn new(
        device: &'d Device<'d, Guest>,
        pool: &'d Pool<'d>,
        direction: Direction,
    ) -> Self {
        Self { device, pool, direction }
    }
}

impl<'d> Subject for Whole<'d> {
    type Worker<'s>
        = WholeHand<'s>
    where
        Self: 's;

    fn worker(&self, _: usize) -> Option<WholeHand<'_>> {
        Some(WholeHand { device: self.device, direction: self.direction })
    }

    fn used(&self) -> usize {
        self.pool.used()
    }
}

/// A thread that maps for the device by shared reference.
#[derive(Debug)]
pub(super) struct WholeHand<'s> {
    device: &'s Device<'s, Guest>,
    direction: Direction,
}

impl Worker for WholeHand<'_> {
    type Record = RawMapping;

    #[inline(always)]
    unsafe fn map(&mut self, buffer: NonNull<[u8]>) -> Option<RawMapping> {
        // SAFETY: conditions 1 and 2 are this function's; 3: the harness's devices stop before it
        // finishes.
        unsafe { self.device.map_raw(buffer, self.direction, Attrs::NONE) }.ok()
    }

    #[inline(always)]
    unsafe fn unmap(&mut self, record: RawMapping) {
        let len = record.len();
        // SAFETY: the device has stopped, and the conditions of the map held, as the caller says.
        let finished = unsafe { self.device.unmap_raw(record, len) };
        debug_assert!(finished.is_ok(), "the record is this device's");
    }

    fn offset(&self, record: &RawMapping) -> usize {
        offset(record)
    }
}

/// An untrusted device of a TDX guest is given shared memory at its bare address.
fn offset(record: &RawMapping) -> usize {
    usize::try_from(record.addr().raw().wrapping_sub(POOL)).unwrap_or(usize::MAX)
}

/// A device for which each thread maps with a cache of the pool that it claimed.
#[derive(Debug)]
pub(super) struct WholeClaimed<'d>(pub(super) Whole<'d>);

impl<'d> Subject for WholeClaimed<'d> {
    type Worker<'s>
        = WholeClaimedHand<'s>
    where
        Self: 's;

    fn worker(&self, cpu: usize) -> Option<WholeClaimedHand<'_>> {
        let Whole { device, pool, direction } = self.0;
        Some(WholeClaimedHand { handle: pool.claim(cpu)?, device, direction })
    }

    fn used(&self) -> usize {
        self.0.used()
    }
}

/// A thread that maps for the device with a cache for itself.
#[derive(Debug)]
pub(super) struct WholeClaimedHand<'s> {
    handle: PoolHandle<'s>,
    device: &'s Device<'s, Guest>,
    direction: Direction,
}

impl Worker for WholeClaimedHand<'_> {
    type Record = RawMapping;

    #[inline(always)]
    unsafe fn map(&mut self, buffer: NonNull<[u8]>) -> Option<RawMapping> {
        let Self { handle, device, direction } = self;
        // SAFETY: as for `WholeHand`.
        unsafe { device.map_raw_with(handle, buffer, *direction, Attrs::NONE) }.ok()
    }

    #[inline(always)]
    unsafe fn unmap(&mut self, record: RawMapping) {
        let len = record.len();
        // SAFETY: as for `WholeHand`.
        let finished = unsafe { self.device.unmap_raw_with(&mut self.handle, record, len) };
        debug_assert!(finished.is_ok(), "the record is this device's");
    }

    fn offset(&self, record: &RawMapping) -> usize {
        offset(record)
    }
}
