//! An open machine, on which nothing is converted: what is at stake is slots. Two pools that are
//! adopted, and between them one that comes and goes.
// UNSAFETY: it implements the machine.
#![expect(unsafe_code)]

use std::cell::Cell;
use std::ptr::NonNull;

use coco_dma::Word;
use coco_dma::addr::PhysAddr;
use coco_dma::addr::PhysRange;
use coco_dma::addr::SLOT;
use coco_dma::platform::CpuView;
use coco_dma::platform::NoView;
use coco_dma::platform::Platform;
use coco_dma::pool::Cache;
use coco_dma::pool::Pool;
use coco_dma::regime::Parameters;
use coco_dma::regime::PlatformName;
use coco_dma::regime::Regime;
use coco_dma::state::Context;
use coco_dma::state::PoolLabel;
use coco_dma::state::State;

/// Where each pool lies, and its slots. The first and the second have caches; the third begins and
/// ends at no boundary.
pub(crate) const POOLS: [(u64, u64); 3] =
    [(0x9000_0000, 2048), (0xa000_0000, 1024), (0xb000_0800, 333)];
/// The one that comes and goes.
pub(crate) const COMES: usize = 1;
/// Caches of a pool.
pub(crate) const CACHES: usize = 2;
/// Buffers of drivers lie this far above their pointers.
const PRIVATE: u64 = 1 << 48;

thread_local! {
    static CPU: Cell<usize> = const { Cell::new(0) };
}

/// This thread is on that CPU from now on, or says so.
pub(crate) fn be_on(cpu: usize) {
    CPU.set(cpu);
}

#[derive(Debug)]
pub(crate) struct Machine {
    pools: [NonNull<u8>; 3],
}

// SAFETY: the pointers are only handed on.
unsafe impl Sync for Machine {}

impl Machine {
    pub(crate) fn new() -> Self {
        let memory = |(_, slots)| -> NonNull<u8> {
            let words = vec![0u64; usize::try_from(slots * SLOT / 8).unwrap()];
            NonNull::from(words.leak()).cast()
        };
        Self { pools: POOLS.map(memory) }
    }

    /// The pools, all open but for the one that comes and goes.
    pub(crate) fn pools(&self) -> [Pool<'static>; 3] {
        let label = PoolLabel::Ordinary;
        std::array::from_fn(|number| {
            let range = range(number);
            let words: Vec<Word> = (0..Pool::words(range.len())).map(|_| Word::new()).collect();
            let words = words.leak();
            let caches: Vec<Cache> = (0..CACHES).map(|_| Cache::new()).collect();
            let caches = &*caches.leak();
            let view = self.pools[number];
            // SAFETY: leaked memory of this machine, that the pool alone uses.
            let adopt = |words| unsafe { Pool::adopt(label, range, view, words) };
            // SAFETY: the same.
            let convertible = |words| unsafe { Pool::convertible(label, range, words) };
            match number {
                COMES => convertible(words).unwrap().with_caches(caches),
                0 => adopt(words).unwrap().with_caches(caches),
                _ => adopt(words).unwrap(),
            }
        })
    }

    /// The memory of a pool.
    pub(crate) fn memory(&self, pool: usize) -> NonNull<u8> {
        self.pools[pool]
    }
}

fn range(number: usize) -> PhysRange {
    let (base, slots) = POOLS[number];
    PhysRange::new(PhysAddr::new(base), slots * SLOT).unwrap()
}

// SAFETY: the regime is fixed, locations are addresses of this process and a constant, nothing
// converts, and memory is always in view.
unsafe impl Platform for Machine {
    fn regime(&self) -> Regime {
        PlatformName::Open.regime(&Parameters::default()).unwrap()
    }

    fn locate(&self, bytes: NonNull<[u8]>) -> Option<PhysRange> {
        let start = bytes.addr().get() as u64;
        PhysRange::new(PhysAddr::new(PRIVATE + start), bytes.len() as u64)
    }

    unsafe fn map_cpu(
        &self,
        run: PhysRange,
        _: State,
        _: coco_dma::state::CacheMode,
        _: Context,
    ) -> Result<CpuView, NoView> {
        if run == range(COMES) { Ok(self.pools[COMES].into()) } else { Err(NoView) }
    }

    fn cpu(&self) -> usize {
        CPU.get()
    }
}
