//! What is told to whom, and what is answered when somebody does not do as told.
// UNSAFETY: memory of the machine is converted and looked at.
#![expect(unsafe_code)]

use core::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use coco_dma::ledger::GranuleState;
use coco_dma::platform::ConvertVerdict;
use coco_dma::platform::Platform;
use coco_dma::regime::{Parameters, PlatformName};
use coco_dma::state::{CacheMode, Context, State, Visibility};

use super::*;
use crate::machine::{Layer, MachineError, Storage, UserMachine};
use crate::memory::PrivateArena;

const SIZE: usize = 8192;

fn machine(regions: usize) -> UserMachine {
    let regime = PlatformName::Cca.regime(&Parameters::default()).unwrap();
    let arena = PrivateArena::new(4096).unwrap();
    UserMachine::new(regime, arena, 1 << 20).unwrap().with_regions(regions, SIZE).unwrap()
}

/// A peer that keeps count, and fails when it is told to.
#[derive(Default)]
struct Fake {
    limit: u64,
    has: Mutex<Vec<u64>>,
    /// Fails once it has been told of this many changes, where that is not 0.
    patience: AtomicUsize,
    cut_off: AtomicBool,
}

impl Fake {
    fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self { limit, ..Self::default() })
    }

    fn introduce(self: &Arc<Self>, machine: &UserMachine) {
        machine
            .introduce(Arc::<Self>::clone(self), |windows| {
                *self.has.lock().unwrap() = windows.iter().map(|window| window.dma).collect();
                Ok::<_, ()>(())
            })
            .unwrap();
    }

    fn has(&self) -> usize {
        self.has.lock().unwrap().len()
    }

    fn tell(&self) -> Result<(), i32> {
        assert!(!self.is_cut_off(), "told although it was cut off");
        match self.patience.load(Ordering::Relaxed) {
            0 => Ok(()),
            1 => Err(libc::EPIPE),
            left => {
                self.patience.store(left - 1, Ordering::Relaxed);
                Ok(())
            }
        }
    }
}

impl Peer for Fake {
    fn limit(&self) -> u64 {
        self.limit
    }

    fn add(&self, window: &Window<'_>) -> Result<(), i32> {
        self.tell()?;
        let mut has = self.has.lock().unwrap();
        assert!(!has.contains(&window.dma) && (has.len() as u64) < self.limit);
        has.push(window.dma);
        Ok(())
    }

    fn remove(&self, window: &Window<'_>) -> Result<(), i32> {
        self.tell()?;
        self.has.lock().unwrap().retain(|dma| *dma != window.dma);
        Ok(())
    }

    fn cut_off(&self) {
        self.cut_off.store(true, Ordering::Relaxed);
    }

    fn is_cut_off(&self) -> bool {
        self.cut_off.load(Ordering::Relaxed)
    }
}

fn runs(machine: &UserMachine, first: usize, count: u64) -> PhysRange {
    let start = machine.region(first).unwrap().base();
    PhysRange::new(start, count * SIZE as u64).unwrap()
}

/// Converts below the ledger.
fn convert(machine: &UserMachine, run: PhysRange, to: Visibility) -> Result<(), ConvertError> {
    match to {
        // SAFETY: the regions are this test's.
        Visibility::Shared => unsafe { machine.convert(run, State::PRIVATE, State::SHARED) },
        // SAFETY: the same.
        Visibility::Private => unsafe { machine.convert(run, State::SHARED, State::PRIVATE) },
    }
}

fn map_cpu(machine: &UserMachine, run: PhysRange, state: State) -> Option<NonNull<u8>> {
    // SAFETY: the regions are this test's, and no view is used beyond the next conversion.
    unsafe { machine.map_cpu(run, state, CacheMode::WriteBack, Context::Blocking) }
        .ok()
        .map(|view| view.start)
}

fn fill(start: NonNull<u8>, byte: u8, len: usize) {
    // SAFETY: a view of that length, this test's alone.
    unsafe { start.as_ptr().write_bytes(byte, len) };
}

fn byte(start: NonNull<u8>, at: usize) -> u8 {
    // SAFETY: as above.
    let at = unsafe { start.add(at) };
    // SAFETY: as above.
    unsafe { at.read_volatile() }
}

#[test]
fn everybody_has_everything_that_is_shared_and_nothing_else() {
    let machine = machine(4);
    let (first, late) = (Fake::new(8), Fake::new(8));
    first.introduce(&machine);
    convert(&machine, runs(&machine, 1, 2), Visibility::Shared).unwrap();
    assert_eq!(first.has(), 3);
    late.introduce(&machine);
    assert_eq!(*late.has.lock().unwrap(), *first.has.lock().unwrap());
    // The addresses are those of the platform, with its mark.
    let mark = 1 << 47;
    assert_eq!(late.has.lock().unwrap()[1], mark + 0x1_8000_0000 + SIZE as u64);
    convert(&machine, runs(&machine, 2, 1), Visibility::Private).unwrap();
    assert_eq!((first.has(), late.has()), (2, 2));
    machine.forget(&(Arc::<Fake>::clone(&late) as Arc<dyn Peer>));
    convert(&machine, runs(&machine, 0, 1), Visibility::Shared).unwrap();
    assert_eq!((first.has(), late.has()), (3, 2));
}

#[test]
fn whole_regions_only_and_only_regions() {
    let machine = machine(4);
    let region = machine.region(1).unwrap();
    for run in [
        region.slice(0, 4096).unwrap(),
        PhysRange::new(region.slice(4096, 1).unwrap().base(), SIZE as u64).unwrap(),
        PhysRange::new(region.base(), 4 * SIZE as u64).unwrap(),
        machine.arena_range(),
        machine.shared()[0].range,
    ] {
        let error = convert(&machine, run, Visibility::Shared).unwrap_err();
        assert_eq!((error.done, error.doubt), (0, 0));
    }
    assert_eq!((machine.region(4), machine.regions().map(PhysRange::len)), (None, Some(4 << 13)));
    let regime = PlatformName::Tdx.regime(&Parameters::default()).unwrap();
    for (count, size) in [(0, 4096), (1, 0), (1, 2048), (3, 12288), (1 << 20, 1 << 20)] {
        let machine = UserMachine::new(regime, PrivateArena::new(4096).unwrap(), 4096).unwrap();
        let error = machine.with_regions(count, size).unwrap_err();
        assert!(matches!(error, MachineError::Regions { .. }), "{error}");
    }
}

#[test]
fn a_region_is_fresh_memory_each_time_and_its_old_file_is_nobodys() {
    let machine = machine(2);
    let run = runs(&machine, 0, 1);
    let private = map_cpu(&machine, run, State::PRIVATE).unwrap();
    assert_eq!(map_cpu(&machine, run, State::SHARED), None);
    fill(private, 0xAA, SIZE);
    convert(&machine, run, Visibility::Shared).unwrap();
    assert_eq!(map_cpu(&machine, run, State::PRIVATE), None);
    let shared = map_cpu(&machine, run, State::SHARED).unwrap();
    assert_eq!((shared, byte(shared, 0), byte(shared, SIZE - 1)), (private, 0, 0));
    assert_eq!(machine.locate(NonNull::slice_from_raw_parts(shared, SIZE)), Some(run));
    // A device that keeps the file that it was given.
    let kept = machine.windows(|windows| windows[1].file.try_clone_to_owned().unwrap());
    fill(shared, 0x55, SIZE);
    convert(&machine, run, Visibility::Private).unwrap();
    let private = map_cpu(&machine, run, State::PRIVATE).unwrap();
    assert_eq!((byte(private, 0), byte(private, SIZE - 1)), (0, 0));
    fill(private, 0xAA, SIZE);
    let mut seen = [0; SIZE];
    rustix::io::pread(&kept, &mut seen, 0).unwrap();
    assert_eq!(seen, [0x55; SIZE]);
    rustix::io::pwrite(&kept, &[0x66; SIZE], 0).unwrap();
    assert_eq!(byte(private, 5), 0xAA);
}

#[test]
fn never_one_region_more_than_somebody_takes() {
    let machine = machine(4);
    let (wide, narrow) = (Fake::new(100), Fake::new(3));
    wide.introduce(&machine);
    narrow.introduce(&machine);
    convert(&machine, runs(&machine, 0, 2), Visibility::Shared).unwrap();
    let error = convert(&machine, runs(&machine, 2, 1), Visibility::Shared).unwrap_err();
    let full = libc::ENOSPC.unsigned_abs().into();
    assert_eq!(
        error,
        ConvertError { done: 0, doubt: 0, code: full, verdict: ConvertVerdict::Retry }
    );
    // Nobody was told, and nobody cut off.
    assert_eq!((wide.has(), narrow.has()), (3, 3));
    assert!(!wide.is_cut_off() && !narrow.is_cut_off());
    // Room again, for one; two at once are too many, and not even one of them is shared.
    convert(&machine, runs(&machine, 0, 1), Visibility::Private).unwrap();
    let error = convert(&machine, runs(&machine, 2, 2), Visibility::Shared).unwrap_err();
    assert_eq!(
        error,
        ConvertError { done: 0, doubt: 0, code: full, verdict: ConvertVerdict::Retry }
    );
    convert(&machine, runs(&machine, 2, 1), Visibility::Shared).unwrap();
    assert_eq!((wide.has(), narrow.has()), (3, 3));
}

#[test]
fn a_failure_says_how_far_it_came_and_cuts_off_who_failed() {
    let machine = machine(4);
    let (good, bad) = (Fake::new(8), Fake::new(8));
    good.introduce(&machine);
    bad.introduce(&machine);
    bad.patience.store(3, Ordering::Relaxed);
    let error = convert(&machine, runs(&machine, 0, 4), Visibility::Shared).unwrap_err();
    let gone = libc::EPIPE.unsigned_abs().into();
    // Two are shared; the third was taken back from whoever had it.
    assert_eq!(
        error,
        ConvertError {
            done: 2 * SIZE as u64,
            doubt: 0,
            code: gone,
            verdict: ConvertVerdict::Retry
        }
    );
    assert_eq!((good.has(), good.is_cut_off(), bad.is_cut_off()), (3, false, true));
    assert!(map_cpu(&machine, runs(&machine, 0, 2), State::SHARED).is_some());
    assert!(map_cpu(&machine, runs(&machine, 2, 2), State::PRIVATE).is_some());
    // Without the one that failed it works.
    convert(&machine, runs(&machine, 2, 2), Visibility::Shared).unwrap();
    assert_eq!(good.has(), 5);
    // A peer that does not let go is cut off, and the memory private all the same.
    good.patience.store(2, Ordering::Relaxed);
    convert(&machine, runs(&machine, 0, 4), Visibility::Private).unwrap();
    assert!(good.is_cut_off());
    assert!(map_cpu(&machine, runs(&machine, 0, 4), State::PRIVATE).is_some());
}

#[test]
fn through_the_layer_a_failed_share_is_undone_and_the_books_agree() {
    let machine = machine(4);
    let storage = Storage::of(&machine);
    let metadata = storage.metadata(&machine).unwrap();
    let layer = Layer::new(&machine, &metadata);
    let bad = Fake::new(8);
    bad.introduce(&machine);
    bad.patience.store(3, Ordering::Relaxed);
    let all = machine.regions().unwrap();
    // SAFETY: the regions are this test's, and nothing points into them.
    let failed = unsafe { layer.dma().share(all) }.unwrap_err();
    assert_eq!((failed.converted, failed.quarantined), (0, 0));
    let ledger = layer.dma().ledger();
    let state = |number| ledger.granule(machine.region(number).unwrap().base()).unwrap().state;
    for number in 0..4 {
        assert_eq!(state(number), GranuleState::Private);
    }
    // SAFETY: as above.
    unsafe { layer.dma().share(machine.region(2).unwrap()) }.unwrap();
    assert_eq!([1, 2, 3].map(state)[1], GranuleState::Shared);
    // A part of a region is no granule.
    let half = machine.region(2).unwrap().slice(0, 4096).unwrap();
    // SAFETY: as above.
    unsafe { layer.dma().reclaim(half) }.unwrap_err();
    // A device that has it mapped keeps it.
    let pin = ledger.pin(half, Visibility::Shared).unwrap();
    // SAFETY: as above.
    let failed = unsafe { layer.dma().reclaim(machine.region(2).unwrap()) }.unwrap_err();
    assert!(failed.to_string().contains("pin"), "{failed}");
    ledger.unpin(pin);
    // SAFETY: as above.
    unsafe { layer.dma().reclaim(machine.region(2).unwrap()) }.unwrap();
    assert_eq!(state(2), GranuleState::Private);
}
