//! Firmware without a heap: everything is a `static`, and the pool is a range that the device tree
//! names (`restricted-dma-pool`), shared before the firmware started. The protected-KVM firmware
//! of a phone is like this.
// UNSAFETY: the device tree is believed, and statics are handed over as memory.
#![expect(unsafe_code)]

use std::cell::UnsafeCell;
use std::ptr::NonNull;

use coco_dma::addr::{PhysAddr, PhysRange};
use coco_dma::attrs::Attrs;
use coco_dma::coherent::{ObjectLayout, ObjectPage, ObjectPool};
use coco_dma::device::Endpoint;
use coco_dma::plan::Limits;
use coco_dma::platform::Platform;
use coco_dma::pool::Pool;
use coco_dma::regime::{Parameters, PlatformName, Regime};
use coco_dma::state::{Context, Direction, PoolLabel};
use coco_dma::{Dma, Word};

const POOL_LEN: usize = 32 << 10;
const WORDS: usize = Pool::words(POOL_LEN as u64);

/// The memory that the device tree names. Here it is a static; there it is a fixed address.
#[repr(align(4096))]
struct Region(UnsafeCell<[u8; POOL_LEN]>);
// SAFETY: only the pool touches it, through copies.
unsafe impl Sync for Region {}

static REGION: Region = Region(UnsafeCell::new([0; POOL_LEN]));
static SLOTS: [Word; WORDS] = [const { Word::new() }; WORDS];
static TABLES: [ObjectPage; 1] = [const { ObjectPage::new() }; 1];
static FIRMWARE: Firmware = Firmware;

struct Firmware;

// SAFETY: 1. pKVM's rules are constants. 2. Identity map. 3. Nothing is converted: all sharing was
// done by who started us. 4. There are no views to give.
unsafe impl Platform for Firmware {
    fn regime(&self) -> Regime {
        match PlatformName::Pkvm.regime(&Parameters::default()) {
            Ok(regime) => regime,
            Err(_) => Regime::Open,
        }
    }

    fn locate(&self, bytes: NonNull<[u8]>) -> Option<PhysRange> {
        let base = PhysAddr::new(bytes.cast::<u8>().addr().get() as u64);
        PhysRange::new(base, bytes.len() as u64)
    }
}

fn main() {
    let memory = NonNull::from(&REGION.0).cast::<u8>();
    let bytes = NonNull::slice_from_raw_parts(memory, POOL_LEN);
    let range = FIRMWARE.locate(bytes).expect("a range");
    // SAFETY: 1. the static lives for ever. 2. The device tree says that it is shared. 3. Nothing
    // else uses it. 4. It is never used for anything else.
    let pool = unsafe { Pool::adopt(PoolLabel::GuestShared, range, memory, &SLOTS) };
    // The disk may touch nothing else, shared or not.
    let pool = pool.expect("a pool").restricted();
    let own = [&pool];
    let dma = Dma::new(&FIRMWARE, &[]);
    let disk = dma.bind(Endpoint::new("disk").pools(&own), Limits::NONE).expect("a device");

    let ring = disk.alloc(4096, Context::Atomic).expect("room for a ring").expose();
    println!("the ring is at {}, inside {}", ring.addr(), pool.range());
    // Command tables of 128 bytes, 32 of them in a page.
    let layout = ObjectLayout::new(128, 128).expect("a layout");
    let tables = ObjectPool::new(&disk, layout, &TABLES).expect("metadata of its own");
    let mut table = tables.alloc(Context::Atomic).expect("room for a table");
    table.bytes().write_u32_le(4, 512).expect("within the table");
    println!("a command table is at {}", table.addr());
    table.free();
    assert!(tables.close(Context::Atomic).is_ok(), "no table is in use");

    let mut sector = [0u8; 512];
    let read = disk.with_mapped(&mut sector, Direction::FromDevice, Attrs::NONE, |lent| {
        println!("the sector goes to {} (bounced: {})", lent.addr(), lent.is_bounced());
        lent.written(512);
    });
    read.expect("room for a sector");
    println!("{}", disk.inspect());
    assert!(ring.free(Context::Atomic).is_ok(), "nothing converts here");
    assert_eq!(pool.used(), 0, "all slots are back");
}
