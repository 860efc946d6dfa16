//! The no_std gate: a static program without a library that links the crates and runs.
//!
//! If anything in the graph brings std, the build stops: `duplicate lang item: panic_impl`.
// UNSAFETY: the check's name is fixed for the start code; the raw map, and a device to play.
#![allow(unsafe_code)]
#![no_std]
#![no_main]

use core::panic::PanicInfo;
use core::ptr::NonNull;

use coco_dma::Dma;
use coco_dma::Word;
use coco_dma::attrs::Attrs;
use coco_dma::device::Endpoint;
use coco_dma::plan::Limits;
use coco_dma::pool::Pool;
use coco_dma::regime::{Parameters, PlatformName};
use coco_dma::state::{Direction, PoolLabel};
use coco_dma_virtio as _;
use gate::exit;
use gate::machine::{Machine, Memory, range};

const POOL_LEN: usize = 64 << 10;
const POOL_STORAGE: usize = Pool::words(POOL_LEN as u64);
static POOL_MEMORY: Memory<POOL_LEN> = Memory::new();
static POOL_WORDS: [Word; POOL_STORAGE] = [const { Word::new() }; POOL_STORAGE];

#[unsafe(no_mangle)]
fn check() -> u8 {
    match bounce() {
        Some(()) => 0,
        None => 1,
    }
}

/// A disk of a TDX guest reads and writes a private buffer: what it sees is a slot of the shared
/// pool.
fn bounce() -> Option<()> {
    let machine = Machine(PlatformName::Tdx.regime(&Parameters::default()).ok()?);
    let shared = POOL_MEMORY.bytes();
    let label = PoolLabel::GuestShared;
    // SAFETY: 1. the view is the memory itself; 2. the machine's rules are only played here;
    // 3. nothing else uses this static.
    let pool = unsafe { Pool::adopt(label, range(shared)?, shared.cast(), &POOL_WORDS) }.ok()?;
    let pools = [pool];
    let dma = Dma::new(&machine, &pools);
    let disk = dma.bind(Endpoint::new("disk"), Limits::NONE).ok()?;

    let mut buffer = *b"driver";
    for (direction, visible) in [(Direction::ToDevice, *b"driver"), (Direction::FromDevice, [0; 6])]
    {
        // SAFETY: the buffer outlives the mapping; the device is played below.
        let mapping =
            unsafe { disk.map_raw(NonNull::from(&mut buffer[..]), direction, Attrs::NONE) }.ok()?;
        let slot = mapping.addr().raw().checked_sub(range(shared)?.base().raw())?;
        let slot = shared.cast::<u8>().as_ptr().wrapping_add(usize::try_from(slot).ok()?);
        // SAFETY: the slot lies in the pool.
        let seen = unsafe { slot.cast::<[u8; 6]>().read() };
        (mapping.is_bounced() && seen == visible).then_some(())?;
        // SAFETY: as above.
        unsafe { slot.cast::<[u8; 6]>().write(*b"DEVICE") };
        // SAFETY: the device is done. It says that it wrote three bytes.
        unsafe { disk.unmap_raw(mapping, 3) }.ok()?;
    }
    (buffer == *b"DEVver" && pools.first()?.used() == 0).then_some(())
}

#[panic_handler]
fn panicked(_: &PanicInfo<'_>) -> ! {
    exit(101)
}
