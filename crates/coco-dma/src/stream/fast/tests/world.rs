//! The machines, pools and devices for which the table of verdicts is compared with `plan`.
// UNSAFETY: it implements a machine, and its pools are adopted.
#![expect(unsafe_code)]

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::vec;
use std::vec::Vec;

use core::ptr::NonNull;

use crate::addr::AddressLimit;
use crate::addr::AlignMask;
use crate::addr::Boundary;
use crate::addr::BusRange;
use crate::addr::DmaAddr;
use crate::addr::PhysAddr;
use crate::addr::PhysRange;
use crate::iommu::Entry;
use crate::iommu::Iommu;
use crate::iommu::IommuError;
use crate::plan::Limits;
use crate::platform::CpuView;
use crate::platform::NoView;
use crate::platform::Platform;
use crate::pool::Cache;
use crate::pool::Pool;
use crate::regime::Regime;
use crate::state::Context;
use crate::state::PoolLabel;
use crate::state::PoolUse;
use crate::state::State;
use crate::word::Word;

/// Bytes of a pool: as few as it takes for a CPU to keep slots of it.
pub(super) const POOL: usize = 0x8_0000;
/// Where the first pool lies, and the second: past what 32 bits reach.
const POOLS: [u64; 2] = [0x8000_0000, 0x1_8000_0000];
/// Where the books begin.
pub(super) const RAM: u64 = 0x4000_0000;
/// Where another device's memory lies.
const PEER: u64 = 0x2000_0000;
const NOWHERE: u64 = u64::MAX;

pub(super) fn run(base: u64, len: u64) -> Option<PhysRange> {
    PhysRange::new(PhysAddr::new(base), len)
}

pub(super) fn words(count: usize) -> Vec<Word> {
    (0..count).map(|_| Word::new()).collect()
}

/// A machine on which every buffer lies where the test says.
pub(super) struct Machine {
    regime: Regime,
    at: AtomicU64,
}

impl Machine {
    pub(super) fn new(regime: Regime) -> Self {
        Self { regime, at: AtomicU64::new(NOWHERE) }
    }

    /// The next buffer lies here, or in no single run.
    pub(super) fn put(&self, at: Option<u64>) {
        self.at.store(at.unwrap_or(NOWHERE), Relaxed);
    }
}

// SAFETY: nothing converts, and nobody is given what lies at these addresses.
unsafe impl Platform for Machine {
    fn regime(&self) -> Regime {
        self.regime
    }

    fn locate(&self, bytes: NonNull<[u8]>) -> Option<PhysRange> {
        let at = Some(self.at.load(Relaxed)).filter(|at| *at != NOWHERE);
        run(at?, bytes.len() as u64)
    }

    unsafe fn map_cpu(
        &self,
        _: PhysRange,
        _: State,
        _: crate::state::CacheMode,
        _: Context,
    ) -> Result<CpuView, NoView> {
        Err(NoView)
    }
}

/// An IOMMU that has nothing to do.
pub(super) struct NoEntries;

// SAFETY: it maps nothing.
unsafe impl Iommu for NoEntries {
    fn page(&self) -> u64 {
        4096
    }

    unsafe fn map(&self, _: DmaAddr, _: PhysRange, _: Entry) -> Result<(), IommuError> {
        Err(IommuError { code: 1 })
    }

    unsafe fn unmap(&self, _: DmaAddr, _: u64) -> Result<(), IommuError> {
        Ok(())
    }
}

/// A pool of a set: its label, whether it is restricted, what it is for.
pub(super) type Spec = (PoolLabel, bool, PoolUse);

/// The sets of pools that there are on a machine: the first lies low, the second high.
pub(super) fn sets(regime: &Regime) -> Vec<Vec<Spec>> {
    use PoolLabel::{GuestPrivate, GuestShared, HostPlain, Ordinary};
    let (one, other) = match regime {
        Regime::Open => (Ordinary, GuestShared),
        Regime::Host(_) => (Ordinary, HostPlain),
        Regime::Guest(_) => (GuestShared, GuestPrivate),
    };
    let pool = |label| (label, false, PoolUse::All);
    let only = |label| (label, true, PoolUse::All);
    vec![
        vec![],
        vec![pool(one)],
        vec![pool(other)],
        vec![pool(one), pool(other)],
        vec![pool(one), pool(one)],
        vec![pool(other), pool(one)],
        vec![only(one), pool(other)],
        vec![pool(one), only(other)],
        vec![(one, false, PoolUse::Coherent), pool(one)],
        vec![(other, false, PoolUse::Reserve), (other, false, PoolUse::Streaming)],
    ]
}

/// Storage of a pool.
pub(super) struct Ground {
    bytes: Vec<u8>,
    words: Vec<Word>,
    caches: [Cache; 1],
}

impl Ground {
    pub(super) fn new() -> Self {
        let words = words(Pool::words(POOL as u64));
        Self { bytes: vec![0xEE; POOL], words, caches: [Cache::new()] }
    }

    pub(super) fn pool(&mut self, number: usize, spec: Spec) -> Pool<'_> {
        self.pool_at(number, POOLS[number], spec)
    }

    pub(super) fn pool_at(
        &mut self,
        number: usize,
        base: u64,
        (label, restricted, purpose): Spec,
    ) -> Pool<'_> {
        let range = run(base, POOL as u64).unwrap();
        let view = NonNull::from(self.bytes.as_mut_slice()).cast();
        // SAFETY: the pool alone uses the bytes while it borrows them.
        let pool = unsafe { Pool::adopt(label, range, view, &self.words) }.unwrap();
        let node = u16::try_from(number).unwrap();
        let pool = pool.with_caches(&self.caches).only_for(purpose).on_node(node);
        if restricted { pool.restricted() } else { pool }
    }
}

/// What drivers say of their devices.
pub(super) fn limits() -> Vec<Limits> {
    let mut all = Vec::new();
    for bits in [64, 48, 32] {
        let mask = Limits { mask: AddressLimit::bits(bits), ..Limits::NONE };
        all.extend([
            mask,
            Limits { min_align: AlignMask::new(0xfff).unwrap(), ..mask },
            Limits { boundary: Boundary::new(0x4000), ..mask },
            Limits { boundary: Boundary::new(1 << 32), ..mask },
            Limits { segment: Some(0x1000), ..mask },
        ]);
    }
    all
}

/// A window that shows the low memory at another address, and nothing else.
pub(super) fn window() -> BusRange {
    BusRange::new(run(0, 1 << 32).unwrap(), 0x10_0000).unwrap()
}

/// The first pool, and some granules on both sides.
pub(super) fn around(granule: u64) -> PhysRange {
    run(POOLS[0] - 8 * granule, POOL as u64 + 16 * granule).unwrap()
}

/// Other devices' memory.
pub(super) fn peers(granule: u64) -> [PhysRange; 2] {
    // The other one in the middle of what the books say is private.
    [run(PEER, 0x1000).unwrap(), run(RAM + 10 * granule, 0x1000).unwrap()]
}

/// Where buffers lie: in each state of the books (of granules of this many bytes, as the test
/// made them), across two, in no book, in pools, across their ends and between them, in another
/// device's memory, and where memory ends.
pub(super) fn places(regime: &Regime) -> Vec<Option<u64>> {
    let (granule, last) = (regime.granule(), regime.memory_limit().raw());
    let mut places: Vec<u64> = (0..14).map(|number| RAM + number * granule + 0x100).collect();
    places.extend([RAM + 3 * granule - 0x80, RAM - 0x80, 0x1000_0800, 0x9_0000_0040]);
    for pool in POOLS {
        places.extend([pool + 0x40, pool + POOL as u64 - 0x80, pool - 0x80]);
    }
    places.extend([0xC000_0000, PEER + 0x40, PEER - 0x80, last - 0x7f]);
    places.into_iter().map(Some).chain([None]).collect()
}
