//! What the tests share: a machine of each platform, and safe names for the unsafe steps.
// UNSAFETY: the platform's trait and the raw maps are unsafe to use.
#![expect(unsafe_code)]

use coco_dma::Word;
use coco_dma::addr::PhysRange;
use coco_dma::attrs::Attrs;
use coco_dma::device::Attested;
use coco_dma::device::Device;
use coco_dma::platform::ConvertError;
use coco_dma::platform::CpuView;
use coco_dma::platform::NoView;
use coco_dma::platform::Platform;
use coco_dma::pool::Pool;
use coco_dma::regime::PlatformName;
use coco_dma::state::CacheMode;
use coco_dma::state::Context;
use coco_dma::state::Direction;
use coco_dma::state::State;
use coco_dma::stream::MapError;
use coco_dma::stream::RawMapping;
use coco_dma::stream::UnmapRawError;
use coco_dma_sim::GuestBuffer;
use coco_dma_sim::Machine;
use coco_dma_sim::PoolMemory;

pub(crate) const BASE: u64 = 0x4000_0000;
pub(crate) const SIZE: u64 = 1 << 20;
pub(crate) const GRANULE: u64 = 4096;

/// The platforms on which memory converts.
pub(crate) const GUESTS: [PlatformName; 9] = [
    PlatformName::Sev,
    PlatformName::Snp,
    PlatformName::SnpVtom,
    PlatformName::Tdx,
    PlatformName::Cca,
    PlatformName::Pkvm,
    PlatformName::Hyperv,
    PlatformName::S390,
    PlatformName::Pef,
];

pub(crate) fn machine(platform: PlatformName) -> Machine {
    Machine::builder(platform).ram(BASE, SIZE).build().unwrap()
}

pub(crate) fn share(platform: &impl Platform, run: PhysRange) -> Result<(), ConvertError> {
    // SAFETY: simulated memory; the tests keep no references into it.
    unsafe { platform.convert(run, State::PRIVATE, State::SHARED) }
}

pub(crate) fn reclaim(platform: &impl Platform, run: PhysRange) -> Result<(), ConvertError> {
    // SAFETY: as above.
    unsafe { platform.convert(run, State::SHARED, State::PRIVATE) }
}

pub(crate) fn map_cpu(
    platform: &impl Platform,
    run: PhysRange,
    state: State,
) -> Result<CpuView, NoView> {
    // SAFETY: asking is harmless to a simulated machine, which checks.
    unsafe { platform.map_cpu(run, state, CacheMode::WriteBack, Context::Blocking) }
}

pub(crate) fn unmap_cpu(platform: &impl Platform, view: CpuView, run: PhysRange) {
    // SAFETY: as above.
    unsafe { platform.unmap_cpu(view, run) };
}

pub(crate) fn pool<'m>(memory: &PoolMemory, words: &'m [Word]) -> Pool<'m> {
    // SAFETY: the machine gave the memory to this pool alone, in that state, and every test keeps
    // its machine until the pool is gone.
    unsafe { Pool::adopt(memory.label, memory.range, memory.view, words) }.unwrap()
}

pub(crate) fn vouch() -> Attested {
    // SAFETY: a simulated device is whatever the test says.
    unsafe { Attested::vouch() }
}

pub(crate) fn map<P: Platform>(
    device: &Device<'_, P>,
    buffer: &GuestBuffer,
    direction: Direction,
) -> Result<RawMapping, MapError> {
    // SAFETY: the buffer outlives the mapping in every test, and devices act only when told.
    unsafe { device.map_raw(buffer.bytes(), direction, Attrs::NONE) }
}

/// Ends a map that the IOMMU does not unmap.
pub(crate) fn still_mapped<P: Platform>(
    device: &Device<'_, P>,
    mapping: RawMapping,
    written: usize,
) -> RawMapping {
    // SAFETY: as above.
    let error = unsafe { device.unmap_raw(mapping, written) }.unwrap_err();
    let code = if let UnmapRawError::StillMapped(_, error) = &error { error.code } else { None };
    assert_eq!(code, Some(0x5c21), "{error}");
    error.into_mapping()
}

pub(crate) fn finish<P: Platform>(device: &Device<'_, P>, mapping: RawMapping, written: usize) {
    // SAFETY: as above.
    unsafe { device.unmap_raw(mapping, written) }.unwrap();
}
