//! Scattered allocations: what no single run of memory holds, behind a domain, and nothing lost where
//! a step of many fails.
// UNSAFETY: freeing says that the device has stopped.
#![expect(unsafe_code)]

use std::sync::OnceLock;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use coco_dma::Dma;
use coco_dma::addr::DmaAddr;
use coco_dma::addr::PageConstraints;
use coco_dma::addr::PhysRange;
use coco_dma::attrs::Attrs;
use coco_dma::coherent::Run;
use coco_dma::device::Device;
use coco_dma::device::Endpoint;
use coco_dma::iommu::Domain;
use coco_dma::iommu::Entry;
use coco_dma::iommu::Iommu;
use coco_dma::iommu::IommuError;
use coco_dma::iommu::IovaWindow;
use coco_dma::ledger::Ledger;
use coco_dma::plan::AllocKind;
use coco_dma::plan::Limits;
use coco_dma::platform::ConvertError;
use coco_dma::platform::ConvertVerdict;
use coco_dma::platform::PageSource;
use coco_dma::reason::Refuse;
use coco_dma::regime::PlatformName;
use coco_dma::state::Context;
use coco_dma::state::State;
use coco_dma::state::Trust;
use coco_dma::state::Visibility;
use coco_dma_sim::ConvertFault;
use coco_dma_sim::Faulty;
use coco_dma_sim::Machine;
use coco_dma_sim::Outcome;
use coco_dma_sim::Really;
use coco_dma_sim::Refusal;
use coco_dma_sim::SimDevice;
use coco_dma_sim::SimIommu;

use crate::support::Arena;
use crate::support::GRANULE;
use crate::support::machine;
use crate::support::metadata;
use crate::support::metadata_words;
use crate::support::words;

const LEN: usize = 8 * 4096;
const WINDOW: u64 = 1 << 20;

/// Fragmented memory: no run is longer than this many bytes.
struct Fragmented<'a>(&'a Arena, u64);

// SAFETY: what the arena gives, where it is short enough.
unsafe impl PageSource for Fragmented<'_> {
    fn alloc(&self, constraints: &PageConstraints) -> Option<PhysRange> {
        if constraints.len > self.1 { None } else { self.0.alloc(constraints) }
    }

    unsafe fn free(&self, run: PhysRange, context: Context) {
        // SAFETY: the caller's condition.
        unsafe { self.0.free(run, context) };
    }
}

/// What a test has.
struct Bench<'b> {
    host: &'b Faulty<Machine>,
    iommu: &'b SimIommu,
    arena: &'b Arena,
    dma: &'b Dma<'b, Faulty<Machine>>,
    device: Device<'b, Faulty<Machine>>,
    nic: SimDevice,
}

/// A guest whose memory has runs of two pages at most, and a device behind a domain.
fn bench(work: impl FnOnce(&Bench<'_>)) {
    let machine = machine(PlatformName::Tdx);
    let arena = Arena::new(&machine, 32 * GRANULE);
    let pages = Fragmented(&arena, 2 * GRANULE);
    let host = Faulty::new(machine.clone());
    let storage = metadata_words(GRANULE);
    let parts = metadata(GRANULE, &storage);
    let dma = Dma::new(&host, &[]).with_ledger(Ledger::new(&parts).unwrap()).with_pages(&pages);
    let iommu = SimIommu::new(4096);
    let addresses = words(Domain::words(WINDOW, 4096));
    let window = IovaWindow::new(WINDOW, WINDOW).unwrap();
    let domain = Domain::new(&iommu, window, &addresses).unwrap();
    let device = dma.bind(Endpoint::new("nic").translated(&domain), Limits::NONE).unwrap();
    let nic = SimDevice::new(&machine, "nic", Trust::Untrusted).behind(&iommu, 1);
    work(&Bench { host: &host, iommu: &iommu, arena: &arena, dma: &dma, device, nic });
    // All that is left is in quarantine.
    let held = arena.taken() as u64 * 4096;
    assert_eq!(held, dma.ledger().quarantined());
    assert_eq!((iommu.entries(), iommu.mistakes(), domain.mapped()), (vec![], vec![], 0));
    assert_eq!((machine.open_views(), machine.violations()), (0, vec![]));
    assert_eq!(arena.faults(), [""; 0]);
    dma.retry_quarantine(32, |run| arena.recovered(run));
    assert_eq!((arena.taken(), dma.ledger().quarantined()), (0, 0));
    assert!(machine.all_in(arena.run(), State::PRIVATE));
}

fn room(count: usize) -> Vec<Option<Run>> {
    (0..count).map(|_| None).collect()
}

fn refused(bench: &Bench<'_>, room: &mut [Option<Run>], attrs: Attrs) -> Refuse {
    let made = bench.device.alloc_scattered(LEN, Context::Blocking, attrs, room);
    let failed = made.map(|memory| memory.len()).unwrap_err();
    assert!(failed.kept.is_none());
    assert_eq!(failed.error.len, LEN);
    let reason = failed.error.reason;
    assert!(room.iter().all(Option::is_none), "{reason}");
    reason
}

#[test]
fn what_no_run_holds_is_one_run_for_the_device() {
    bench(|bench| {
        let whole =
            bench.device.alloc_as(LEN, AllocKind::NonContiguous, Context::Blocking, Attrs::NONE);
        assert_eq!(whole.map(|_| ()).map_err(|error| error.reason), Err(Refuse::OutOfPages));
        for (attrs, count) in [(Attrs::NONE, 4), (Attrs::ALLOC_SINGLE_PAGES, 8)] {
            let mut room = room(8);
            let made = bench.device.alloc_scattered(LEN, Context::Blocking, attrs, &mut room);
            let memory = made.unwrap();
            assert_eq!((memory.len(), memory.runs().count()), (LEN, count));
            assert!(memory.converts_on_free());
            // The runs lie one below the other, and the device goes up through all of them.
            let entries = bench.iommu.entries();
            let falling = |two: &&[coco_dma_sim::SimEntry]| two[1].phys < two[0].phys;
            assert_eq!(entries.windows(2).filter(falling).count(), count - 1);
            let addr = memory.addr().raw();
            assert_eq!(bench.nic.fetch(addr, LEN), Ok(vec![0; LEN]));
            let bytes: Vec<u8> = (0..LEN).map(|at| (at / 7) as u8).collect();
            assert_eq!(bench.nic.write(addr, &bytes), Outcome::Clear);
            let mut seen = Vec::new();
            // SAFETY: the device is there, and nobody uses the pointers.
            for run in unsafe { memory.shared_bytes() } {
                let mut part = vec![0; run.len()];
                run.read(0, &mut part).unwrap();
                seen.append(&mut part);
                run.write(0, b"the driver's").unwrap();
            }
            assert_eq!(seen, bytes);
            let second = addr + (LEN / count) as u64;
            assert_eq!(bench.nic.fetch(second, 12), Ok(b"the driver's".to_vec()));
            let device = &bench.device;
            assert!(device.mmap_scattered(&memory, 0, LEN as u64, &mut ()).is_ok());
            let past = device.mmap_scattered(&memory, 4096, LEN as u64, &mut ());
            assert_eq!(past, Err(Refuse::OutOfBounds));
            // SAFETY: a simulated device acts when told.
            unsafe { device.free_scattered(memory) }.unwrap();
            assert!(room.iter().all(Option::is_none));
            assert_eq!(bench.nic.fetch(addr, 1), Err(Outcome::Fault));
            assert_eq!((bench.arena.taken(), bench.device.counters().live()), (0, 0));
        }
    });
}

#[test]
fn a_conversion_that_fails_in_any_run_gives_all_others_back() {
    for skip in 0..4 {
        for (done, doubt, really) in [
            (0, 0, Really::Nothing),
            (0, GRANULE, Really::Nothing),
            (GRANULE, GRANULE, Really::DoneAndDoubt),
            (GRANULE, 0, Really::Done),
        ] {
            bench(|bench| {
                let says =
                    Err(ConvertError { done, doubt, code: 7, verdict: ConvertVerdict::Retry });
                bench.host.fail_convert(skip, ConvertFault { says, really });
                let reason = refused(bench, &mut room(8), Attrs::NONE);
                assert_eq!(reason, Refuse::ConversionFailed);
                assert_eq!(bench.dma.ledger().quarantined(), doubt);
            });
        }
    }
}

/// A host that lets go of nothing: what was shared stays in quarantine, and what was not comes back.
#[test]
fn what_is_not_taken_back_is_in_quarantine() {
    bench(|bench| {
        bench.host.fail_convert(
            2,
            ConvertFault {
                says: Err(ConvertError {
                    done: 0,
                    doubt: 0,
                    code: 1,
                    verdict: ConvertVerdict::Retry,
                }),
                really: Really::Nothing,
            },
        );
        bench.host.refuse(Visibility::Private, Refusal::Unchanged);
        assert_eq!(refused(bench, &mut room(8), Attrs::NONE), Refuse::ConversionFailed);
        assert_eq!(bench.dma.ledger().quarantined(), 4 * GRANULE);
        bench.host.heal();
    });
}

#[test]
fn a_view_or_a_map_that_fails_in_any_run_gives_everything_back() {
    for skip in 0..4 {
        bench(|bench| {
            bench.iommu.fail_map(skip);
            assert_eq!(refused(bench, &mut room(8), Attrs::NONE), Refuse::IommuFailed);
            assert_eq!(bench.arena.taken(), 0);
        });
    }
    // Three views a run: one to wipe it before it is shared, one to initialise it, and its own.
    for skip in 0..12 {
        bench(|bench| {
            bench.host.fail_view(skip);
            let why = if skip % 3 == 2 { Refuse::NoView } else { Refuse::ConversionFailed };
            assert_eq!(refused(bench, &mut room(8), Attrs::NONE), why);
        });
    }
}

#[test]
fn what_can_be_neither_mapped_nor_unmapped_is_held_by_the_error() {
    bench(|bench| {
        bench.iommu.fail_map(2);
        bench.iommu.fail_unmap(0);
        let mut room = room(4);
        let device = &bench.device;
        let made = device.alloc_scattered(LEN, Context::Blocking, Attrs::NONE, &mut room);
        let failed = made.map(|memory| memory.len()).unwrap_err();
        assert_eq!(failed.error.reason, Refuse::IommuFailed);
        assert!(failed.to_string().contains("still mapped"));
        let kept = failed.kept.unwrap();
        assert_eq!((bench.iommu.entries().len(), bench.arena.taken()), (4, 8));
        // SAFETY: a simulated device acts when told.
        unsafe { device.free_scattered(kept) }.unwrap();
        assert_eq!((bench.arena.taken(), device.counters().live()), (0, 0));
    });
}

#[test]
fn room_is_what_the_caller_has_of_it_and_another_device_frees_nothing() {
    bench(|bench| {
        assert_eq!(refused(bench, &mut room(3), Attrs::NONE), Refuse::TooScattered);
        assert_eq!(refused(bench, &mut room(0), Attrs::NONE), Refuse::TooScattered);
        let none = bench.device.alloc_scattered(0, Context::Blocking, Attrs::NONE, &mut []);
        assert_eq!(none.unwrap_err().error.reason, Refuse::InvalidRange);
        let mut room = room(4);
        let atomic = bench.device.alloc_scattered(LEN, Context::Atomic, Attrs::NONE, &mut room);
        assert_eq!(atomic.unwrap_err().error.reason, Refuse::AtomicNeedsConversion);
        // Without a domain the device has to see one run of memory.
        let bare = bench.dma.bind(Endpoint::new("bare"), Limits::NONE).unwrap();
        let long = bare.alloc_scattered(LEN, Context::Blocking, Attrs::NONE, &mut room);
        assert_eq!(long.unwrap_err().error.reason, Refuse::OutOfPages);
        let short = bare.alloc_scattered(8192, Context::Blocking, Attrs::NONE, &mut []).unwrap();
        assert_eq!(short.runs().count(), 1);
        // SAFETY: a simulated device acts when told.
        let failed = unsafe { bench.device.free_scattered(short) }.unwrap_err();
        // SAFETY: as above.
        unsafe { bare.free_scattered(failed.memory) }.unwrap();
        let made = bench.device.alloc_scattered(LEN, Context::Blocking, Attrs::NONE, &mut room);
        // SAFETY: as above.
        let failed = unsafe { bare.free_scattered(made.unwrap()) }.unwrap_err();
        // SAFETY: as above.
        unsafe { bench.device.free_scattered(failed.memory) }.unwrap();
    });
}

/// An IOMMU during whose map with this number the device loses its trust.
struct Cut {
    iommu: SimIommu,
    device: OnceLock<&'static Device<'static, Machine>>,
    left: AtomicUsize,
}

// SAFETY: the simulated one's.
unsafe impl Iommu for Cut {
    fn page(&self) -> u64 {
        self.iommu.page()
    }

    unsafe fn map(&self, iova: DmaAddr, run: PhysRange, entry: Entry) -> Result<(), IommuError> {
        if self.left.fetch_sub(1, Ordering::SeqCst) == 0 {
            assert_eq!(self.device.get().unwrap().lose_trust(), Ok(()), "nothing is its own yet");
        }
        // SAFETY: this function's condition.
        unsafe { self.iommu.map(iova, run, entry) }
    }

    unsafe fn unmap(&self, iova: DmaAddr, len: u64) -> Result<(), IommuError> {
        // SAFETY: this function's condition.
        unsafe { self.iommu.unmap(iova, len) }
    }
}

fn leak<T>(value: T) -> &'static T {
    Box::leak(Box::new(value))
}

#[test]
fn a_device_that_is_cut_off_between_two_runs_has_none_of_them() {
    for (left, stuck) in (0..4).flat_map(|left| [(left, false), (left, true)]) {
        let machine = leak(machine(PlatformName::Tdx));
        let arena = leak(Arena::new(machine, 32 * GRANULE));
        let pages = leak(Fragmented(arena, 2 * GRANULE));
        let parts = leak(metadata(GRANULE, leak(metadata_words(GRANULE))));
        let dma = Dma::new(machine, &[]).with_ledger(Ledger::new(parts).unwrap());
        let dma = leak(dma.with_pages(pages));
        let (iommu, device) = (SimIommu::new(4096), OnceLock::new());
        let cut = leak(Cut { iommu, device, left: AtomicUsize::new(left) });
        let window = IovaWindow::new(WINDOW, WINDOW).unwrap();
        let domain =
            leak(Domain::new(cut, window, words(Domain::words(WINDOW, 4096)).leak()).unwrap());
        let device = dma.bind(Endpoint::new("gpu").translated(domain), Limits::NONE).unwrap();
        let device = *cut.device.get_or_init(|| leak(device));
        if stuck {
            cut.iommu.fail_unmap(0);
        }
        let mut room = room(4);
        let made = device.alloc_scattered(LEN, Context::Blocking, Attrs::NONE, &mut room);
        let failed = made.map(|memory| memory.len()).unwrap_err();
        assert_eq!(failed.error.reason, Refuse::TrustLost);
        assert_eq!((failed.kept.is_some(), cut.iommu.entries().is_empty()), (stuck, !stuck));
        if let Some(kept) = failed.kept {
            assert_eq!((device.counters().allocations(), arena.taken()), (1, 8));
            // SAFETY: a simulated device acts when told.
            unsafe { device.free_scattered(kept) }.unwrap();
        }
        assert!(room.iter().all(Option::is_none));
        assert_eq!((cut.iommu.entries(), cut.iommu.mistakes()), (vec![], vec![]));
        assert_eq!((arena.taken(), domain.mapped(), domain.lost()), (0, 0, 0));
        assert_eq!((device.counters().allocations(), machine.open_views()), (0, 0));
        assert_eq!(machine.violations(), []);
    }
}
