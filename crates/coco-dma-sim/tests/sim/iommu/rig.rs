//! A machine with an IOMMU in front of its devices.

use std::sync::Mutex;

use coco_dma::Dma;
use coco_dma::Word;
use coco_dma::device::Device;
use coco_dma::device::Endpoint;
use coco_dma::iommu::Domain;
use coco_dma::iommu::Iommu;
use coco_dma::iommu::IovaWindow;
use coco_dma::ledger::Initial;
use coco_dma::ledger::Ledger;
use coco_dma::ledger::Tracked;
use coco_dma::observe::Event;
use coco_dma::observe::Observer;
use coco_dma::plan::Limits;
use coco_dma::pool::Pool;
use coco_dma::regime::PlatformName;
use coco_dma::state::PoolLabel;
use coco_dma::state::Trust;
use coco_dma_sim::Machine;
use coco_dma_sim::SimDevice;
use coco_dma_sim::SimIommu;

use crate::support::BASE;
use crate::support::GRANULE;
use crate::support::SIZE;
use crate::support::machine;
use crate::support::pool;
use crate::support::vouch;

pub(super) const PAGE: u64 = 4096;
/// Addresses that are nowhere near those of memory.
pub(super) const WINDOW: u64 = 0x10_0000;
const WINDOW_LEN: u64 = 1 << 20;
/// The requester id of the devices.
pub(super) const SOURCE: u32 = 0x0310;

/// What the layer told.
#[derive(Debug, Default)]
pub(super) struct Heard(Mutex<Vec<String>>);

impl Observer for Heard {
    fn event(&self, event: &Event<'_>) {
        self.0.lock().unwrap().push(event.to_string());
    }
}

impl Heard {
    pub(super) fn has(&self, word: &str) -> bool {
        self.0.lock().unwrap().iter().any(|event| event.contains(word))
    }
}

/// All of it lives as long as the program, so that tests can hold any part of it.
pub(super) struct Rig {
    pub(super) machine: &'static Machine,
    pub(super) iommu: &'static SimIommu,
    pub(super) domain: &'static Domain<'static>,
    pub(super) pool: &'static Pool<'static>,
    pub(super) dma: &'static Dma<'static, Machine>,
    pub(super) heard: &'static Heard,
    pub(super) trust: Trust,
}

pub(super) fn leak<T>(value: T) -> &'static T {
    Box::leak(Box::new(value))
}

pub(super) fn words(count: usize) -> &'static [Word] {
    (0..count).map(|_| Word::new()).collect::<Vec<_>>().leak()
}

pub(super) fn label(platform: PlatformName, trust: Trust) -> PoolLabel {
    match (platform, trust) {
        (PlatformName::Open | PlatformName::Sme, _) => PoolLabel::Ordinary,
        (_, Trust::Untrusted) => PoolLabel::GuestShared,
        (_, Trust::Accepted) => PoolLabel::GuestPrivate,
    }
}

pub(super) fn domain_of(iommu: &'static dyn Iommu, base: u64, len: u64) -> Domain<'static> {
    let window = IovaWindow::new(base, len).unwrap();
    Domain::new(iommu, window, words(Domain::words(len, iommu.page()))).unwrap()
}

impl Rig {
    pub(super) fn new(platform: PlatformName, trust: Trust) -> Self {
        Self::with_page(platform, trust, PAGE)
    }

    pub(super) fn with_page(platform: PlatformName, trust: Trust, page: u64) -> Self {
        let machine = leak(machine(platform));
        let memory = machine.adopt_pool(label(platform, trust), 1 << 16).unwrap();
        let pools = leak([pool(&memory, words(Pool::words(1 << 16)))]);
        let ram = coco_dma::addr::PhysRange::new(coco_dma::addr::PhysAddr::new(BASE), SIZE);
        let ram = ram.unwrap();
        let metadata = words(Tracked::words(SIZE, GRANULE));
        let ranges = leak([Tracked::new(ram, GRANULE, Initial::Private, metadata).unwrap()]);
        let heard = leak(Heard::default());
        let mut dma = Dma::new(machine, pools).with_observer(heard);
        if dma.regime().is_guest() {
            dma = dma.with_ledger(Ledger::new(ranges).unwrap());
        }
        let iommu = leak(SimIommu::new(page));
        let domain = leak(domain_of(iommu, WINDOW, WINDOW_LEN));
        Self { machine, iommu, domain, pool: &pools[0], dma: leak(dma), heard, trust }
    }

    pub(super) fn endpoint(&self) -> Endpoint<'static> {
        let endpoint = match self.trust {
            Trust::Untrusted => Endpoint::new("disk"),
            Trust::Accepted => Endpoint::new("disk").accepted(vouch()),
        };
        endpoint.translated(self.domain)
    }

    pub(super) fn bind(&self, limits: Limits) -> Device<'static, Machine> {
        self.dma.bind(self.endpoint(), limits).unwrap()
    }

    /// The hardware behind the IOMMU.
    pub(super) fn disk(&self) -> SimDevice {
        SimDevice::new(self.machine, "disk", self.trust).behind(self.iommu, SOURCE)
    }

    /// Nothing is left, and nothing was done that nobody forgives.
    pub(super) fn assert_clean(&self) {
        assert_eq!(self.iommu.entries(), []);
        assert_eq!(self.iommu.mistakes(), []);
        assert_eq!(self.machine.violations(), []);
        assert_eq!((self.domain.mapped(), self.domain.lost(), self.pool.used()), (0, 0, 0));
    }
}
