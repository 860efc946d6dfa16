//! The layer on this guest: the books of all memory, one pool to bounce through, a source of
//! pages, and the IOMMU brought up behind it. This is all that a kernel has to set up.
// UNSAFETY: memory is promised to pools.
#![expect(unsafe_code)]

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ptr::NonNull;

use coco_dma::Dma;
use coco_dma::Word;
use coco_dma::addr::PhysAddr;
use coco_dma::addr::PhysRange;
use coco_dma::device::Attested;
use coco_dma::device::Device;
use coco_dma::device::Endpoint;
use coco_dma::ledger::Initial;
use coco_dma::ledger::Ledger;
use coco_dma::ledger::Tracked;
use coco_dma::observe::Fault;
use coco_dma::plan::Limits;
use coco_dma::platform::Platform;
use coco_dma::pool::Cache;
use coco_dma::pool::Pool;
use coco_dma::state::PoolLabel;
use coco_dma::state::Visibility;
use coco_dma_virtio::Adaptor;
use coco_dma_virtio::Record;
use virtio_drivers::transport::pci::PciTransport;

use crate::Failure;
use crate::iommu::Iommu;
use crate::iommu::PASSTHROUGH;
use crate::iommu::translated;
use crate::iommu::translated::TRANSLATED;
use crate::iommu::virtio::IommuHal;
use crate::iommu::virtio::VirtioIommu;
use crate::iommu::vtd::Vtd;
use crate::memory::BOOT_SHARED;
use crate::memory::BOOT_SHARED_LEN;
use crate::memory::PAGE;
use crate::memory::boot_shared;
use crate::memory::frames::SOURCE;
use crate::memory::shared;
use crate::pci;
use crate::pci::Found;
use crate::platform::GUEST;
use crate::platform::platform;
use crate::report::LISTENER;
use crate::rt::start::Boot;
use crate::say;

/// A device of this guest. Everything lives for ever, as in a kernel.
pub type GuestDevice = Device<'static, dyn Platform>;
/// A device under a driver of `virtio-drivers`.
pub type GuestAdaptor = Adaptor<'static, dyn Platform>;

/// Bytes of the pool.
pub const POOL_LEN: u64 = 512 << 10;
/// virtio's vendor, and its IOMMU.
const VIRTIO_IOMMU: (u16, u16) = (0x1af4, 0x1057);

/// The layer, and what is plugged in.
#[derive(Debug)]
pub struct Layer {
    /// The layer.
    pub dma: &'static Dma<'static, dyn Platform>,
    /// What was found on the bus.
    pub found: Vec<Found>,
}

impl Layer {
    /// Sets everything up, for memory up to `end`. With a private pool nothing is reached by any
    /// device before the IOMMU stands in front of it.
    pub fn start(end: u64) -> Result<Self, Failure> {
        let run = SOURCE.take_from(0, POOL_LEN, PAGE, u64::MAX).ok_or("no memory for the pool")?;
        // SAFETY: the frames are ours, and given to nobody else.
        let pool = unsafe {
            Pool::convertible(PoolLabel::GuestShared, run, words(Pool::words(POOL_LEN)))
        }?;
        // There is one CPU.
        let pools = Box::leak(Box::new([pool.with_caches(Box::leak(Box::new([Cache::new()])))]));
        let dma = Dma::new(platform(), pools)
            .with_ledger(ledger(end)?)
            .with_pages(&SOURCE)
            .with_observer(&LISTENER);
        let dma: &'static Dma<'static, dyn Platform> = Box::leak(Box::new(dma));
        let layer = Self { dma, found: pci::scan() };
        layer.start_iommu()?;
        for device in &layer.found {
            layer.attach(*device, PASSTHROUGH)?;
        }
        pools.iter().try_for_each(|pool| dma.grow(pool))?;
        Ok(layer)
    }

    /// Brings up the IOMMU, if there is one.
    fn start_iommu(&self) -> Result<(), Failure> {
        if let Some(vtd) = Vtd::start()? {
            *GUEST.iommu.borrow_mut() = Iommu::Vtd(vtd);
        } else if let Some(found) = self.find(VIRTIO_IOMMU) {
            pci::enable(found.at);
            let adaptor: &'static GuestAdaptor = Box::leak(Box::new(self.boot_adaptor()?));
            let target = Box::leak(Box::new(adaptor));
            // SAFETY: the adaptor lives for ever, and the guard with the IOMMU.
            let bound = unsafe { IommuHal::bind(target) }?;
            let transport = PciTransport::new::<IommuHal, _>(&mut pci::root(), found.at)?;
            let virtio = VirtioIommu::start(transport, bound)?;
            *GUEST.iommu.borrow_mut() = Iommu::Virtio(Box::new(virtio));
        }
        Ok(())
    }

    /// The IOMMU as a device of the layer: it may touch nothing but memory that was shared before.
    fn boot_adaptor(&self) -> Result<GuestAdaptor, Failure> {
        let range = range(boot_shared::POOL, boot_shared::POOL_LEN)?;
        let view = NonNull::new(shared(boot_shared::POOL)).ok_or("no alias")?;
        let storage = words(Pool::words(range.len()));
        // SAFETY: 1. the alias is mapped for ever. 2. it was shared at the start. 3. only the
        // lower half of that memory is used otherwise.
        let pool = unsafe { Pool::adopt(PoolLabel::GuestShared, range, view, storage) }?;
        let pools = Box::leak(Box::new([&*Box::leak(Box::new(pool.restricted()))]));
        let endpoint = Endpoint::new("iommu").pools(pools);
        Ok(Adaptor::new(self.dma.bind(endpoint, Limits::NONE)?, records()))
    }

    /// The first device with this vendor and number.
    pub fn find(&self, id: (u16, u16)) -> Option<Found> {
        self.found.iter().copied().find(|found| found.id == id)
    }

    /// The first device of this class and subclass.
    pub fn find_class(&self, class: (u8, u8)) -> Option<Found> {
        self.found.iter().copied().find(|found| found.class == class)
    }

    /// Puts a device behind a domain. Bridges and the IOMMU itself do no DMA.
    pub fn attach(&self, device: Found, domain: u16) -> Result<(), Failure> {
        const BRIDGE: u8 = 6;
        if device.class.0 != BRIDGE && device.id != VIRTIO_IOMMU {
            GUEST.iommu.borrow_mut().attach(device, domain)?;
        }
        Ok(())
    }

    /// A device as the bus sees it. The command line says what it is behind: the domain that maps
    /// shared memory to itself, or one that translates; `behind=accepted` attests it on top.
    pub fn endpoint(
        &self,
        boot: &Boot,
        name: &'static str,
        found: Found,
    ) -> Result<Endpoint<'static>, Failure> {
        let endpoint = Endpoint::new(name);
        let behind = boot.option("behind").unwrap_or("passthrough");
        if behind == "passthrough" {
            return Ok(endpoint);
        }
        self.attach(found, TRANSLATED)?;
        let endpoint = endpoint.translated(translated::domain()?);
        if behind != "accepted" {
            return Ok(endpoint);
        }
        // SAFETY: nobody attests a device here. It is played, to see private entries: what such a
        // device may reach it is given by its domain, page by page.
        Ok(endpoint.accepted(unsafe { Attested::vouch() }))
    }

    /// Binds a device for good.
    pub fn bind(
        &self,
        endpoint: Endpoint<'static>,
        limits: Limits,
    ) -> Result<&'static GuestDevice, Failure> {
        Ok(Box::leak(Box::new(self.dma.bind(endpoint, limits)?)))
    }

    /// The same for a driver of `virtio-drivers`: what its type of `Hal` is bound to.
    pub fn adapt(
        &self,
        endpoint: Endpoint<'static>,
    ) -> Result<&'static &'static GuestAdaptor, Failure> {
        let device = self.dma.bind(endpoint, Limits::NONE)?;
        let adaptor: &'static GuestAdaptor = Box::leak(Box::new(Adaptor::new(device, records())));
        Ok(Box::leak(Box::new(adaptor)))
    }

    /// Asks the IOMMU for the accesses that it stopped, and tells the layer of each device and
    /// page once. A kernel does this in the IOMMU's interrupt.
    pub fn collect_faults(&self) {
        let mut stopped = GUEST.iommu.borrow_mut().faults();
        stopped.dedup_by_key(|stop| (stop.source, stop.addr.raw() & !(PAGE - 1), stop.write));
        for stop in &stopped {
            let direction = match stop.write {
                Some(true) => "write",
                Some(false) => "read",
                // virtio-iommu, where a page is not mapped at all.
                None => "unknown",
            };
            let Fault { source, addr, code, .. } = stop;
            say!("fault source={source:#06x} address={addr:#x} direction={direction} code={code}");
            self.dma.fault(stop);
        }
    }
}

/// The books: private below and above what the guest shared by itself, which is the host's.
fn ledger(end: u64) -> Result<Ledger<'static>, Failure> {
    let private = |from: u64, to: u64| -> Result<Tracked<'static>, Failure> {
        let storage = words(Tracked::words(to - from, PAGE));
        Ok(Tracked::new(range(from, to - from)?, PAGE, Initial::Private, storage)?)
    };
    let boot_end = BOOT_SHARED + BOOT_SHARED_LEN;
    let ranges = [
        private(0x10_0000, BOOT_SHARED)?,
        Tracked::foreign(range(BOOT_SHARED, BOOT_SHARED_LEN)?, Visibility::Shared),
        private(boot_end, end)?,
    ];
    Ok(Ledger::new(Box::leak(Box::new(ranges)))?)
}

/// A range of memory.
pub fn range(base: u64, len: u64) -> Result<PhysRange, Failure> {
    PhysRange::new(PhysAddr::new(base), len).ok_or_else(|| "an empty range".into())
}

/// Storage for the layer's books.
pub fn words(count: usize) -> &'static [Word] {
    let words: Vec<Word> = (0..count).map(|_| Word::new()).collect();
    words.leak()
}

/// Storage for an adaptor's table.
fn records() -> &'static [Record] {
    let records: Vec<Record> = (0..64).map(|_| Record::new()).collect();
    records.leak()
}
