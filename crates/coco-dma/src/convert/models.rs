//! Pools that grow and shrink while others do, or map, under loom.
// UNSAFETY: a toy platform over a loom cell, which reports whoever is not alone with the memory.
#![expect(unsafe_code)]

use std::boxed::Box;
use std::ptr::NonNull;
use std::vec::Vec;

use loom::cell::UnsafeCell;

use crate::addr::PhysAddr;
use crate::addr::PhysRange;
use crate::dma::Dma;
use crate::ledger::GranuleState;
use crate::ledger::Initial;
use crate::ledger::Ledger;
use crate::ledger::Tracked;
use crate::platform::ConvertError;
use crate::platform::CpuView;
use crate::platform::NoView;
use crate::platform::Platform;
use crate::pool::Pool;
use crate::regime::Parameters;
use crate::regime::PlatformName;
use crate::regime::Regime;
use crate::state::CacheMode;
use crate::state::Context;
use crate::state::PoolLabel;
use crate::state::State;
use crate::word::Word;
use crate::word::race::outcomes;
use crate::word::race::race;

const GRANULE: u64 = 4096;

/// One granule of memory: its bytes, and a cell that is touched whenever they are anybody's alone.
struct Toy {
    bytes: NonNull<u8>,
    alone: UnsafeCell<u32>,
}

// SAFETY: the models look at what happens; loom reports what must not.
unsafe impl Sync for Toy {}

impl Toy {
    fn touch(&self) {
        // SAFETY: loom reports it where somebody else is at it.
        self.alone.with_mut(|count| unsafe { *count += 1 });
    }
}

// SAFETY: the memory is there in every state.
unsafe impl Platform for Toy {
    fn regime(&self) -> Regime {
        PlatformName::Tdx.regime(&Parameters::default()).unwrap()
    }

    fn locate(&self, _: NonNull<[u8]>) -> Option<PhysRange> {
        None
    }

    unsafe fn convert(&self, _: PhysRange, _: State, _: State) -> Result<(), ConvertError> {
        self.touch();
        Ok(())
    }

    unsafe fn map_cpu(
        &self,
        _: PhysRange,
        _: State,
        _: CacheMode,
        _: Context,
    ) -> Result<CpuView, NoView> {
        // Whoever makes a view here wipes the memory with it, or opens the pool.
        self.touch();
        Ok(self.bytes.into())
    }

    unsafe fn unmap_cpu(&self, _: CpuView, _: PhysRange) {
        self.touch();
    }
}

type Layer = (&'static Dma<'static, Toy>, &'static Pool<'static>, PhysRange);

fn words(count: usize) -> &'static [Word] {
    let words: Vec<_> = (0..count).map(|_| Word::new()).collect();
    Box::leak(words.into_boxed_slice())
}

/// A layer with a granule of memory, and a pool over it that is closed.
fn layer(label: PoolLabel) -> Layer {
    layer_with(label, false)
}

/// The pool is the machine's, where the layer is to know of it.
fn layer_with(label: PoolLabel, machines: bool) -> Layer {
    let run = PhysRange::new(PhysAddr::new(0), GRANULE).unwrap();
    let bytes = Box::leak(Box::new([0u8; 4096]));
    let toy =
        Box::leak(Box::new(Toy { bytes: NonNull::from(bytes).cast(), alone: UnsafeCell::new(0) }));
    let metadata = words(Tracked::words(GRANULE, GRANULE));
    let tracked = Tracked::new(run, GRANULE, Initial::Private, metadata).unwrap();
    let ledger = Ledger::new(Box::leak(Box::new([tracked]))).unwrap();
    // SAFETY: the memory is the pool's alone.
    let pool = unsafe { Pool::convertible(label, run, words(Pool::words(GRANULE))) }.unwrap();
    let pools: &'static [Pool<'static>] = Box::leak(Box::new([pool]));
    let known = if machines { pools } else { &[] };
    let dma = Box::leak(Box::new(Dma::new(&*toy, known).with_ledger(ledger)));
    (dma, &pools[0], run)
}

/// Books and pool agree: open, pinned once and in the state of the label; or closed and private.
fn agree((dma, pool, run): Layer) {
    let granule = dma.ledger().granule(run.base()).unwrap();
    let open = match pool.label() {
        PoolLabel::GuestShared => GranuleState::Shared,
        _ => GranuleState::Private,
    };
    let expected = if pool.is_open() { (open, 1) } else { (GranuleState::Private, 0) };
    assert_eq!((granule.state, granule.pins), expected);
}

/// Both orders, from an open pool or a closed one: what each of two that grow or shrink answered.
fn pair(
    swap: bool,
    label: PoolLabel,
    grown: bool,
    first: fn(Layer) -> bool,
    second: fn(Layer) -> bool,
) -> (bool, bool) {
    let layer = layer(label);
    if grown {
        layer.0.grow(layer.1).unwrap();
    }
    let both = race(swap, move || first(layer), move || second(layer));
    agree(layer);
    both
}

fn grow((dma, pool, _): Layer) -> bool {
    dma.grow(pool).is_ok()
}

fn shrink((dma, pool, _): Layer) -> bool {
    dma.shrink(pool).is_ok()
}

const ONE_OF_TWO: [(bool, bool); 2] = [(false, true), (true, false)];

#[test]
fn loom_of_two_that_grow_one_does() {
    let met = outcomes(|swap| pair(swap, PoolLabel::GuestShared, false, grow, grow));
    assert_eq!(met, ONE_OF_TWO);
    let met = outcomes(|swap| pair(swap, PoolLabel::GuestPrivate, false, grow, grow));
    assert_eq!(met, ONE_OF_TWO);
}

#[test]
fn loom_of_two_that_shrink_one_does() {
    let met = outcomes(|swap| pair(swap, PoolLabel::GuestShared, true, shrink, shrink));
    assert_eq!(met, ONE_OF_TWO);
}

#[test]
fn loom_one_grows_what_another_shrinks() {
    let met = outcomes(|swap| pair(swap, PoolLabel::GuestShared, true, grow, shrink));
    assert_eq!(met, [(false, true), (true, true)]);
    let met = outcomes(|swap| pair(swap, PoolLabel::GuestPrivate, false, grow, shrink));
    assert_eq!(met, [(true, false), (true, true)]);
}

/// A pool that opens, and somebody who takes its memory for something else at that moment.
#[test]
fn loom_nobody_converts_an_open_pool() {
    let met = outcomes(|swap| {
        pair(swap, PoolLabel::GuestShared, true, shrink, |(dma, _, run)| {
            // SAFETY: loom reports it if the memory is somebody's.
            unsafe { dma.reclaim(run) }.is_ok()
        })
    });
    // The reclaim may come in between the two steps of `shrink`, which then finds it done.
    assert!(met.contains(&(true, false)), "{met:?}");
}

/// Whether an account is clean after everything was taken back.
fn walk((dma, ..): Layer) -> bool {
    // SAFETY: loom reports it if the memory is somebody's.
    unsafe { dma.reclaim_all(|_| ()) }.is_clean()
}

fn share((dma, _, run): Layer) -> bool {
    // SAFETY: as above.
    unsafe { dma.share(run) }.is_ok()
}

/// Somebody shares while everything is taken back: whether he did, and whether the account is
/// clean.
fn behind_the_walk(swap: bool, machines: bool, other: fn(Layer) -> bool) -> (bool, bool) {
    let layer = layer_with(PoolLabel::GuestShared, machines);
    let (did, clean) = race(swap, move || other(layer), move || walk(layer));
    let granule = layer.0.ledger().granule(layer.2.base()).unwrap();
    // What is shared now was not called clean, and nobody can share any more.
    assert!(!clean || granule.state == GranuleState::Private, "{granule}");
    assert!(!other(layer));
    (did, clean)
}

#[test]
fn loom_a_clean_account_stays_clean() {
    for met in [
        outcomes(|swap| behind_the_walk(swap, true, grow)),
        outcomes(|swap| behind_the_walk(swap, false, share)),
    ] {
        assert!(met.contains(&(false, true)), "{met:?}: stopped in time");
        assert!(met.contains(&(true, true)), "{met:?}: taken back");
    }
}
