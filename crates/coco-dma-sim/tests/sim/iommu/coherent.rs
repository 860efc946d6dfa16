//! Coherent memory through a domain: from pools and from pages that are converted for it.
// UNSAFETY: memory is converted and freed, which simulated devices cannot notice.
#![expect(unsafe_code)]

use std::sync::Mutex;

use coco_dma::Dma;
use coco_dma::addr::PageConstraints;
use coco_dma::addr::PhysAddr;
use coco_dma::addr::PhysRange;
use coco_dma::coherent::NotFreed;
use coco_dma::coherent::RawCoherent;
use coco_dma::device::Device;
use coco_dma::observe::Event;
use coco_dma::observe::Observer;
use coco_dma::plan::Limits;
use coco_dma::platform::PageSource;
use coco_dma::regime::PlatformName;
use coco_dma::state::Context;
use coco_dma::state::State;
use coco_dma::state::Trust;
use coco_dma::state::Visibility;
use coco_dma_sim::Machine;
use coco_dma_sim::Outcome;
use coco_dma_sim::SimIommu;

use super::rig::PAGE;
use super::rig::Rig;
use super::rig::leak;
use super::rig::words;

pub(super) fn share(dma: &Dma<'_, Machine>, run: PhysRange) -> Result<(), String> {
    // SAFETY: simulated memory; the tests keep no references into it.
    unsafe { dma.share(run) }.map_err(|error| error.to_string())
}

pub(super) fn reclaim(dma: &Dma<'_, Machine>, run: PhysRange) -> Result<(), String> {
    // SAFETY: as above.
    unsafe { dma.reclaim(run) }.map_err(|error| error.to_string())
}

fn free(device: &Device<'_, Machine>, memory: RawCoherent) {
    // SAFETY: devices act only when told.
    unsafe { device.free_raw(memory) }.unwrap();
}

/// Pages of the machine.
struct Pages(Machine, Mutex<Vec<PhysRange>>);

// SAFETY: the machine gives each run to one alone.
unsafe impl PageSource for Pages {
    fn alloc(&self, constraints: &PageConstraints) -> Option<PhysRange> {
        let run = self.0.take_fitting(constraints.len, |run| constraints.met_by(run)).ok()?;
        self.1.lock().unwrap().push(run);
        Some(run)
    }

    unsafe fn free(&self, run: PhysRange, _: Context) {
        self.1.lock().unwrap().retain(|held| *held != run);
        self.0.free(run);
    }
}

/// Asserts that nothing is mapped at the moment when memory becomes private again.
struct Order(SimIommu);

impl Observer for Order {
    fn event(&self, event: &Event<'_>) {
        if let Event::Converted { to: Visibility::Private, .. } = event {
            assert_eq!(self.0.entries(), [], "reclaimed under the device");
        }
    }
}

fn with_pages(rig: &Rig) -> (&'static Dma<'static, Machine>, &'static Pages) {
    use coco_dma::ledger::{Initial, Ledger, Tracked};
    let pages = leak(Pages(rig.machine.clone(), Mutex::default()));
    let ram = PhysRange::new(PhysAddr::new(crate::support::BASE), crate::support::SIZE).unwrap();
    let metadata = words(Tracked::words(ram.len(), PAGE));
    let ranges = leak([Tracked::new(ram, PAGE, Initial::Private, metadata).unwrap()]);
    let observer = leak(Order(rig.iommu.clone()));
    let dma = Dma::new(rig.machine, &[])
        .with_ledger(Ledger::new(ranges).unwrap())
        .with_observer(observer)
        .with_pages(pages);
    (leak(dma), pages)
}

fn exercise(rig: &Rig, device: &Device<'_, Machine>, state: State) {
    let memory = device.alloc_raw(5000, Context::Blocking).unwrap();
    let (addr, disk) = (memory.addr().raw(), rig.disk());
    assert_eq!(rig.iommu.entries().len(), 2);
    for found in rig.iommu.entries() {
        assert_eq!(found.entry.state, state);
        assert!(found.entry.reads && found.entry.writes);
        assert!(rig.machine.all_in(PhysRange::new(found.phys, PAGE).unwrap(), state));
    }
    assert_eq!(disk.fetch(addr, 8192), Ok(vec![0; 8192]));
    assert_eq!(disk.write(addr + 8000, &[4; 192]), Outcome::Clear);
    // SAFETY: the device is there, and nobody uses the pointer.
    let seen = unsafe { memory.shared_bytes() };
    let mut end = [0; 192];
    seen.read(8000, &mut end).unwrap();
    assert_eq!(end, [4; 192]);
    assert_eq!(disk.write(addr + 8192, &[0]), Outcome::Fault);
    free(device, memory);
    assert_eq!(disk.fetch(addr, 1), Err(Outcome::Fault));
    rig.assert_clean();
}

#[test]
fn from_a_pool() {
    for (platform, trust, state) in [
        (PlatformName::Open, Trust::Untrusted, State::Ordinary),
        (PlatformName::Tdx, Trust::Untrusted, State::SHARED),
        (PlatformName::Snp, Trust::Accepted, State::PRIVATE),
    ] {
        let rig = Rig::new(platform, trust);
        exercise(&rig, &rig.bind(Limits::NONE), state);
    }
}

#[test]
fn from_pages_that_are_converted_where_the_device_needs_it() {
    for (platform, trust, state) in [
        (PlatformName::Tdx, Trust::Untrusted, State::SHARED),
        (PlatformName::Snp, Trust::Untrusted, State::SHARED),
        (PlatformName::Cca, Trust::Accepted, State::PRIVATE),
    ] {
        let rig = Rig::new(platform, trust);
        let (dma, pages) = with_pages(&rig);
        let device = dma.bind(rig.endpoint(), Limits::mask_bits(24)).unwrap();
        // All memory lies past the mask, and the window below it.
        exercise(&rig, &device, state);
        assert_eq!(pages.1.lock().unwrap().len(), 0, "all given back");
        assert_eq!(dma.ledger().quarantined(), 0);
        // Mapping fails: the pages are taken back.
        rig.iommu.fail_map(0);
        assert!(device.alloc_raw(1, Context::Blocking).is_err());
        assert_eq!(pages.1.lock().unwrap().len(), 0);
        rig.assert_clean();
    }
}

#[test]
fn what_cannot_be_unmapped_is_not_given_back() {
    let rig = Rig::new(PlatformName::Tdx, Trust::Untrusted);
    let (dma, pages) = with_pages(&rig);
    let device = dma.bind(rig.endpoint(), Limits::NONE).unwrap();
    let memory = device.alloc_raw(1, Context::Blocking).unwrap();
    let addr = memory.addr().raw();
    rig.iommu.fail_unmap(0);
    // SAFETY: devices act only when told.
    let error = unsafe { device.free_raw(memory) }.unwrap_err();
    assert!(matches!(error.reason, NotFreed::StillMapped(error) if error.len == PAGE));
    assert_eq!((rig.domain.lost(), pages.1.lock().unwrap().len()), (PAGE, 1));
    assert_eq!(rig.disk().write(addr, &[1]), Outcome::Clear, "it is still the device's");
    let shared = || rig.machine.shared().iter().map(|run| run.len()).sum::<u64>();
    assert_eq!(shared(), rig.pool.range().len() + PAGE, "the pool, and that page");
    assert_eq!(device.counters().allocations(), 1);
    free(&device, error.memory);
    assert_eq!((rig.domain.lost(), pages.1.lock().unwrap().len()), (0, 0));
    assert_eq!((rig.disk().write(addr, &[1]), shared()), (Outcome::Fault, rig.pool.range().len()));
    assert_eq!(device.counters().allocations(), 0);
}
