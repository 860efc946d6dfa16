//! A machine for tests: private memory anywhere on the heap, one shared pool, and an eye on the
//! pool's bytes that asks the layer nothing.
// UNSAFETY: it implements the machine.
#![expect(unsafe_code)]
#![expect(clippy::multiple_unsafe_ops_per_block, reason = "pointer arithmetic of a test")]
#![allow(dead_code, reason = "each test uses a part of it")]

use std::ptr::NonNull;

use coco_dma::Word;
use coco_dma::addr::PhysAddr;
use coco_dma::addr::PhysRange;
use coco_dma::platform::Platform;
use coco_dma::pool::Pool;
use coco_dma::regime::Parameters;
use coco_dma::regime::PlatformName;
use coco_dma::regime::Regime;
use coco_dma::state::PoolLabel;

/// Where the pool lies in this machine.
pub(crate) const POOL: u64 = 0x9000_0000;

pub(crate) struct Machine {
    regime: Regime,
    pool: NonNull<u8>,
    pool_base: u64,
    pool_len: usize,
}

// SAFETY: the pointer is only used for copies of bytes.
unsafe impl Sync for Machine {}

impl Machine {
    pub(crate) fn new(platform: PlatformName, pool_len: usize) -> Self {
        Self::with_pool_at(platform, POOL, pool_len)
    }

    pub(crate) fn with_pool_at(platform: PlatformName, pool_base: u64, pool_len: usize) -> Self {
        let regime = platform.regime(&Parameters::default()).expect("the defaults are right");
        // Old bytes lie in the pool: whatever is not written over shows.
        let bytes = Box::leak(vec![0xEE; pool_len].into_boxed_slice());
        Self { regime, pool: NonNull::from(bytes).cast(), pool_base, pool_len }
    }

    pub(crate) fn pool(&self, label: PoolLabel) -> Pool<'static> {
        let len = self.pool_len as u64;
        let words: Vec<Word> = (0..Pool::words(len)).map(|_| Word::new()).collect();
        let range = PhysRange::new(PhysAddr::new(self.pool_base), len).expect("a range");
        // SAFETY: leaked memory of this machine, that the pool alone uses.
        unsafe { Pool::adopt(label, range, self.pool, words.leak()) }.expect("a pool")
    }

    /// What a device reads at `offset` in the pool.
    pub(crate) fn device_reads(&self, offset: usize, len: usize) -> Vec<u8> {
        assert!(offset + len <= self.pool_len);
        // SAFETY: checked; nobody writes meanwhile.
        unsafe { std::slice::from_raw_parts(self.pool.as_ptr().add(offset), len) }.to_vec()
    }

    /// A device writes at `offset` in the pool.
    pub(crate) fn device_writes(&self, offset: usize, bytes: &[u8]) {
        assert!(offset + bytes.len() <= self.pool_len);
        // SAFETY: checked; nobody else is at it.
        unsafe { self.pool.as_ptr().add(offset).copy_from(bytes.as_ptr(), bytes.len()) };
    }
}

// SAFETY: the regime is fixed, locations are addresses of this process, nothing converts.
unsafe impl Platform for Machine {
    fn regime(&self) -> Regime {
        self.regime
    }

    fn locate(&self, bytes: NonNull<[u8]>) -> Option<PhysRange> {
        let start = bytes.cast::<u8>().addr().get();
        let pool = self.pool.addr().get();
        let base = if (pool..pool + self.pool_len).contains(&start) {
            self.pool_base + (start - pool) as u64
        } else {
            // Private memory, far above the pool and below every mark.
            0x20_0000_0000 + (start as u64 & 0xf_ffff_ffff)
        };
        PhysRange::new(PhysAddr::new(base), bytes.len() as u64)
    }
}
