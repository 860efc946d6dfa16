//! The panic-free gate: it links only if no panic can be reached from what it calls.
//!
//! The panic handler calls a function that nobody defines. The optimizer drops the handler if it
//! proves that no panic is left; otherwise the linker asks for `coco_dma_can_panic`. What
//! `black_box` gives back is any value of its type, as far as the optimizer knows.
// UNSAFETY: the check's name is fixed for the start code; a symbol that does not exist.
#![allow(unsafe_code)]
#![no_std]
#![no_main]

use core::hint::black_box;
use core::panic::PanicInfo;
use core::ptr::NonNull;

use coco_dma::Dma;
use coco_dma::Word;
use coco_dma::addr::PageConstraints;
use coco_dma::addr::{DmaAddr, PhysAddr, PhysRange};
use coco_dma::attrs::Attrs;
use coco_dma::device::{Device, Endpoint};
use coco_dma::iommu::{Domain, Entry, Fault, FaultReason, Iommu, IommuError, IovaWindow};
use coco_dma::ledger::{Initial, Ledger, Tracked};
use coco_dma::plan::{self, Candidates, DeviceInfo, Limits, MapRequest, Place, Plan, PoolInfo};
use coco_dma::platform::PageSource;
use coco_dma::pool::Pool;
use coco_dma::regime::Regime;
use coco_dma::state::{Context, Direction, Memory, PoolLabel, Visibility};
use gate::machine::{self, Machine};

const POOL_LEN: usize = 64 << 10;
const POOL_STORAGE: usize = Pool::words(POOL_LEN as u64);
const BOOKS: usize = Tracked::words(1 << 20, 4096);
const WINDOW: u64 = 1 << 20;
const PAGE: u64 = 4096;
const DOMAIN: usize = Domain::words(WINDOW, PAGE);
static POOL_MEMORY: machine::Memory<POOL_LEN> = machine::Memory::new();
static POOL_WORDS: [Word; POOL_STORAGE] = [const { Word::new() }; POOL_STORAGE];
static LEDGER_WORDS: [Word; BOOKS] = [const { Word::new() }; BOOKS];
static DOMAIN_WORDS: [Word; DOMAIN] = [const { Word::new() }; DOMAIN];

#[unsafe(no_mangle)]
fn check() -> u8 {
    decide();
    match transfer() {
        Some(()) => 0,
        None => 1,
    }
}

/// The one decision, for any request, and the pools that it offers.
fn decide() {
    let regime: Regime = black_box(Regime::Open);
    let device: DeviceInfo<'_> = black_box(DeviceInfo::PLAIN);
    let pools: &[PoolInfo] = black_box(&[]);
    let request = MapRequest {
        regime: &regime,
        device: &device,
        place: black_box(Place::Unlocated),
        len: black_box(0),
        memory: black_box(Memory::Untracked),
        direction: black_box(Direction::Both),
        attrs: black_box(Attrs::NONE),
        align: black_box(1),
        pools,
    };
    match plan::map(&request, &mut ()) {
        Plan::Direct { reason, addr, .. } => {
            black_box((reason, addr));
        }
        Plan::Bounce { reason, pools, .. } => {
            black_box(reason);
            offer(pools);
        }
        Plan::Refuse(reason) => {
            black_box(reason);
        }
    }
    black_box(PhysRange::new(black_box(PhysAddr::new(0)), black_box(0)));
}

fn offer(pools: Candidates<'_>) {
    for candidate in pools {
        let offset = candidate.places.from(black_box(0));
        black_box((candidate.places.slots_at(black_box(0)), offset));
    }
}

/// From making a pool to the end of a map, on any machine, for any device, buffer and length.
fn transfer() -> Option<()> {
    let machine = Machine(black_box(Regime::Open));
    let (memory, label) = (POOL_MEMORY.bytes(), black_box(PoolLabel::Ordinary));
    let words = POOL_WORDS.get(..black_box(POOL_STORAGE))?;
    // SAFETY: the pool is this static, as long as it is; nothing else uses it.
    let pool = unsafe { Pool::adopt(label, machine::range(memory)?, memory.cast(), words) }.ok()?;
    let pools = [black_box(pool)];
    let base = black_box(PhysAddr::new(0x1000_0000));
    let ram = PhysRange::new(base, black_box(1 << 20))?;
    let initial = black_box(Initial::Private);
    let ranges = [Tracked::new(ram, black_box(4096), initial, &LEDGER_WORDS).ok()?];
    let dma =
        Dma::new(&machine, &pools).with_ledger(Ledger::new(&ranges).ok()?).with_pages(&Source);
    convert(&dma, ram);
    let window = IovaWindow::new(black_box(PAGE), black_box(WINDOW))?;
    let domain = Domain::new(&Table, window, DOMAIN_WORDS.get(..black_box(DOMAIN))?).ok()?;
    black_box(domain.reserve(IovaWindow::new(black_box(0xfee0_0000), black_box(1 << 20))?));
    let (source, addr) = (black_box(1), black_box(DmaAddr::new(1)));
    let (write, reason, code) =
        (black_box(Some(true)), black_box(FaultReason::Mapping), black_box(5));
    dma.fault(&Fault { source, addr, write, reason, code });
    for endpoint in [Endpoint::new("disk"), Endpoint::new("nvme").translated(&domain)] {
        let device = dma.bind(black_box(endpoint), black_box(Limits::NONE)).ok()?;
        stream(&device)?;
    }
    black_box((domain.mapped(), domain.lost()));
    Some(())
}

/// All that a device does.
fn stream(device: &Device<'_, Machine>) -> Option<()> {
    allocate(device);
    let mut buffer = [0; 64];
    let buffer: NonNull<[u8]> = NonNull::from(black_box(&mut buffer[..]));
    black_box((device.max_mapping(), device.capacity_for(&[buffer]).is_ok()));
    let (direction, attrs) = (black_box(Direction::Both), black_box(Attrs::NONE));
    // SAFETY: the buffer outlives the mapping; there is no device.
    let mapping = unsafe { device.map_raw(buffer, direction, attrs) }.ok()?;
    black_box(mapping.addr());
    // SAFETY: as above.
    unsafe { device.sync_for_device(&mapping, black_box(0)..black_box(64)) };
    // SAFETY: as above.
    unsafe { device.sync_for_cpu(&mapping, black_box(0)..black_box(64)) };
    // SAFETY: as above.
    unsafe { device.unmap_raw(mapping, black_box(64)) }.ok()?;
    device.lose_trust().ok()?;
    // SAFETY: there is no device.
    black_box(unsafe { device.revoke() });
    Some(())
}

/// An IOMMU that answers anything.
struct Table;

// SAFETY: there is no device.
unsafe impl Iommu for Table {
    fn page(&self) -> u64 {
        black_box(PAGE)
    }

    unsafe fn map(&self, iova: DmaAddr, run: PhysRange, entry: Entry) -> Result<(), IommuError> {
        black_box((iova, run, entry));
        black_box(Ok(()))
    }

    unsafe fn unmap(&self, iova: DmaAddr, len: u64) -> Result<(), IommuError> {
        black_box((iova, len));
        black_box(Ok(()))
    }
}

/// Pages anywhere.
struct Source;

// SAFETY: the machine never gives a view of them, so that nobody uses them.
unsafe impl PageSource for Source {
    fn alloc(&self, constraints: &PageConstraints) -> Option<PhysRange> {
        PhysRange::new(black_box(PhysAddr::new(0x1000_0000)), black_box(constraints.len))
    }

    unsafe fn free(&self, run: PhysRange, _: Context) {
        black_box(run);
    }
}

/// The books and the transaction, for any run.
fn convert(dma: &Dma<'_, Machine>, ram: PhysRange) {
    let Some(run) = ram.slice(black_box(0), black_box(4096)) else { return };
    // SAFETY: nothing uses the memory.
    let _ = black_box(unsafe { dma.share(run) });
    let _ = black_box(dma.ledger().declare(run, black_box(Visibility::Shared)));
    if let Ok(pin) = dma.ledger().pin(run, black_box(Visibility::Shared)) {
        dma.ledger().unpin(pin);
    }
    // SAFETY: as above.
    let _ = black_box(unsafe { dma.reclaim(run) });
    black_box(dma.retry_quarantine(black_box(3), |run| {
        black_box(run);
    }));
    for pool in dma.pools() {
        let _ = black_box((dma.shrink(pool), dma.grow(pool), dma.refill()));
    }
}

/// Coherent memory, of any length.
fn allocate(device: &Device<'_, Machine>) -> Option<()> {
    let memory = device.alloc_raw(black_box(64), black_box(Context::Blocking)).ok()?;
    black_box(memory.addr());
    // SAFETY: there is no device.
    unsafe { device.free_raw(memory) }.ok()
}

#[panic_handler]
fn panicked(_: &PanicInfo<'_>) -> ! {
    unsafe extern "C" {
        fn coco_dma_can_panic() -> !;
    }
    // SAFETY: never called, as it is never linked.
    unsafe { coco_dma_can_panic() }
}
