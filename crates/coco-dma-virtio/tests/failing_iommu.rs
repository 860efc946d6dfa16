//! The adaptor behind an IOMMU whose maps and unmaps fail. Its interface has hardly an error, so
//! that what matters is what is left: nothing lost, nothing given to anybody else while the device may
//! still reach it, and nothing for the device but what the driver gave.
// UNSAFETY: the interface is unsafe to use.
#![expect(unsafe_code)]
#![cfg(not(loom))]
#![allow(clippy::unwrap_used, reason = "a test stops where it fails")]

use std::ptr::NonNull;

use coco_dma::Dma;
use coco_dma::Word;
use coco_dma::addr::PhysAddr;
use coco_dma::addr::PhysRange;
use coco_dma::attrs::Attrs;
use coco_dma::device::Attested;
use coco_dma::device::Endpoint;
use coco_dma::iommu::Domain;
use coco_dma::iommu::IovaWindow;
use coco_dma::ledger::Initial;
use coco_dma::ledger::Ledger;
use coco_dma::ledger::Tracked;
use coco_dma::plan::Limits;
use coco_dma::pool::Pool;
use coco_dma::reason::Refuse;
use coco_dma::regime::PlatformName;
use coco_dma::state::Direction;
use coco_dma::state::PoolLabel;
use coco_dma::state::Trust;
use coco_dma_sim::GuestBuffer;
use coco_dma_sim::Machine;
use coco_dma_sim::Outcome;
use coco_dma_sim::SimDevice;
use coco_dma_sim::SimIommu;
use coco_dma_virtio::Adaptor;
use coco_dma_virtio::AdaptorCounters;
use coco_dma_virtio::Record;
use coco_dma_virtio::UNREACHABLE;
use virtio_drivers::BufferDirection;

const BASE: u64 = 0x4000_0000;
const SIZE: u64 = 1 << 20;
const POOL: u64 = 1 << 16;
const PAGE: u64 = 4096;
/// Slots of a bounced share, which is a whole page of the IOMMU.
const SLOTS: usize = 2;

struct Rig<'r> {
    machine: &'r Machine,
    iommu: &'r SimIommu,
    domain: &'r Domain<'r>,
    pool: &'r Pool<'r>,
    dma: &'r Dma<'r, Machine>,
    disk: SimDevice,
    adaptor: Adaptor<'r, Machine>,
    /// Maps are in place, and not bounced.
    in_place: bool,
}

/// Runs a test with an adaptor of so many records, of an accepted device (whose maps are in place)
/// and of an untrusted one (whose maps are bounced).
fn with_rigs(records: usize, test: impl Fn(&Rig<'_>)) {
    for trust in [Trust::Accepted, Trust::Untrusted] {
        let machine = Machine::builder(PlatformName::Tdx).ram(BASE, SIZE).build().unwrap();
        let label = match trust {
            Trust::Accepted => PoolLabel::GuestPrivate,
            Trust::Untrusted => PoolLabel::GuestShared,
        };
        let words = |count| (0..count).map(|_| Word::new()).collect::<Vec<_>>();
        let (memory, slots) = (machine.adopt_pool(label, POOL).unwrap(), words(Pool::words(POOL)));
        // SAFETY: the machine gave the memory to this pool alone, in that state.
        let pool = unsafe { Pool::adopt(label, memory.range, memory.view, &slots) }.unwrap();
        let metadata = words(Tracked::words(SIZE, PAGE));
        let ram = PhysRange::new(PhysAddr::new(BASE), SIZE).unwrap();
        let ranges = [Tracked::new(ram, PAGE, Initial::Private, &metadata).unwrap()];
        let pools = [pool];
        let dma = Dma::new(&machine, &pools).with_ledger(Ledger::new(&ranges).unwrap());
        let iommu = SimIommu::new(PAGE);
        let addresses = words(Domain::words(SIZE, PAGE));
        let window = IovaWindow::new(0x10_0000, SIZE).unwrap();
        let domain = Domain::new(&iommu, window, &addresses).unwrap();
        let endpoint = match trust {
            // SAFETY: a simulated device is whatever the test says.
            Trust::Accepted => Endpoint::new("disk").accepted(unsafe { Attested::vouch() }),
            Trust::Untrusted => Endpoint::new("disk"),
        };
        let device = dma.bind(endpoint.translated(&domain), Limits::NONE).unwrap();
        let records: Vec<Record> = (0..records).map(|_| Record::new()).collect();
        let rig = Rig {
            machine: &machine,
            iommu: &iommu,
            domain: &domain,
            pool: &pools[0],
            dma: &dma,
            disk: SimDevice::new(&machine, "disk", trust).behind(&iommu, 7),
            adaptor: Adaptor::new(device, &records),
            in_place: trust == Trust::Accepted,
        };
        test(&rig);
        assert_eq!((iommu.mistakes(), machine.violations()), (vec![], vec![]));
    }
}

impl Rig<'_> {
    fn buffer(&self, byte: u8) -> GuestBuffer {
        let buffer = self.machine.alloc(64).unwrap();
        buffer.write(&[byte; 64]);
        buffer
    }

    fn share(&self, buffer: &GuestBuffer) -> u64 {
        // SAFETY: the buffer outlives its share, and is looked at by copies.
        unsafe { self.adaptor.share(buffer.bytes(), BufferDirection::Both) }
    }

    fn unshare(&self, addr: u64, buffer: &GuestBuffer) {
        // SAFETY: a simulated device acts when told.
        unsafe { self.adaptor.unshare(addr, buffer.bytes(), BufferDirection::Both) };
    }

    fn counters(&self, failed_shares: usize, lost: usize) {
        let wanted = AdaptorCounters { failed_shares, unknown_unshares: 0, lost };
        assert_eq!(self.adaptor.counters(), wanted);
    }

    /// Slots, records, entries, and bytes of the domain that did not come back.
    fn holds(&self) -> (usize, usize, usize, u64) {
        let entries = self.iommu.entries().len();
        (self.pool.used(), self.adaptor.live(), entries, self.domain.lost())
    }

    fn reclaimable(&self, buffer: &GuestBuffer) -> bool {
        // SAFETY: the buffer is the test's, and it stays what it is.
        let shared = unsafe { self.dma.share(buffer.run()) };
        if shared.is_ok() {
            // SAFETY: as above.
            unsafe { self.dma.reclaim(buffer.run()) }.unwrap();
        }
        shared.is_ok()
    }
}

#[test]
fn a_share_that_is_not_mapped_is_a_stray_and_holds_nothing() {
    with_rigs(4, |rig| {
        let buffer = rig.buffer(7);
        assert_eq!(rig.adaptor.capacity_for(&[buffer.bytes()]), Ok(()), "nobody could know");
        rig.iommu.fail_map(0);
        let addr = rig.share(&buffer);
        assert_eq!(addr, UNREACHABLE);
        assert_eq!(rig.holds(), (0, 0, 0, 0));
        rig.counters(1, 0);
        assert_eq!(rig.adaptor.device().counters().live(), 0);
        assert_eq!(rig.disk.fetch(addr, 64), Err(Outcome::Fault));
        assert_eq!(rig.disk.write(addr, &[9; 64]), Outcome::Fault);
        rig.unshare(addr, &buffer);
        assert_eq!(buffer.read(), [7; 64]);
        assert!(rig.reclaimable(&buffer), "not pinned");
        // The layer itself has a word for it.
        rig.iommu.fail_map(0);
        // SAFETY: nothing is mapped.
        let refused =
            unsafe { rig.adaptor.device().map_raw(buffer.bytes(), Direction::Both, Attrs::NONE) };
        assert_eq!(refused.unwrap_err().reason, Refuse::IommuFailed);
        // And the next one goes through.
        buffer.write(&[7; 64]);
        let addr = rig.share(&buffer);
        assert_eq!(rig.disk.fetch(addr, 64), Ok(vec![7; 64]));
        rig.unshare(addr, &buffer);
        assert_eq!(rig.holds(), (0, 0, 0, 0));
    });
}

#[test]
fn memory_that_is_not_mapped_is_not_allocated() {
    with_rigs(4, |rig| {
        rig.iommu.fail_map(0);
        assert_eq!(rig.adaptor.dma_alloc(1), (0, NonNull::dangling()));
        assert_eq!(rig.holds(), (0, 0, 0, 0));
        let (addr, start) = rig.adaptor.dma_alloc(1);
        assert_eq!(rig.disk.fetch(addr, 4096), Ok(vec![0; 4096]));
        // SAFETY: the device acts when told.
        assert_eq!(unsafe { rig.adaptor.dma_dealloc(addr, start, 1) }, 0);
        assert_eq!(rig.holds(), (0, 0, 0, 0));
        rig.counters(0, 0);
    });
}

#[test]
fn what_is_not_unmapped_is_kept_until_it_is() {
    with_rigs(4, |rig| {
        let (buffer, other) = (rig.buffer(7), rig.buffer(5));
        let used = if rig.in_place { 0 } else { SLOTS };
        let addr = rig.share(&buffer);
        assert_eq!(rig.disk.write(addr, &[9; 64]), Outcome::Clear);
        rig.iommu.fail_unmap(0);
        rig.unshare(addr, &buffer);
        assert_eq!(buffer.read(), [9; 64], "the driver has what arrived");
        assert_eq!((rig.holds(), rig.adaptor.kept()), ((used, 1, 1, PAGE), 1));
        rig.counters(0, 0);
        // What the device still does meets nobody else's bytes: what it is in stays its own.
        assert_eq!(rig.disk.write(addr, &[8; 64]), Outcome::Clear);
        assert_eq!(buffer.read(), if rig.in_place { [8; 64] } else { [9; 64] });
        assert_eq!(rig.reclaimable(&buffer), !rig.in_place, "pinned as long");
        let next = rig.share(&other);
        assert_ne!(next, addr);
        assert_eq!(rig.disk.write(addr, &[1; 64]), Outcome::Clear);
        assert_eq!(rig.disk.fetch(next, 64), Ok(vec![5; 64]));
        rig.unshare(next, &other);
        assert_eq!(other.read(), [5; 64]);
        // A second unshare is a stranger's, and ends nothing.
        rig.unshare(addr, &buffer);
        assert_eq!((rig.adaptor.counters().unknown_unshares, rig.adaptor.kept()), (1, 1));
        let before = buffer.read();
        rig.iommu.fail_unmap(0);
        assert_eq!((rig.adaptor.retry(), rig.holds()), (1, (used, 1, 1, PAGE)));
        assert_eq!((rig.adaptor.retry(), rig.holds()), (0, (0, 0, 0, 0)));
        assert_eq!(rig.disk.write(addr, &[2; 64]), Outcome::Fault);
        assert_eq!(buffer.read(), before, "nothing is brought back late");
        assert!(rig.reclaimable(&buffer));
        assert_eq!(rig.adaptor.device().counters().live(), 0);
    });
}

#[test]
fn memory_that_is_not_unmapped_is_nobody_elses_until_it_is() {
    with_rigs(4, |rig| {
        let (addr, start) = rig.adaptor.dma_alloc(1);
        rig.iommu.fail_unmap(0);
        // SAFETY: the device acts when told.
        assert_eq!(unsafe { rig.adaptor.dma_dealloc(addr, start, 1) }, 0);
        assert_eq!((rig.holds(), rig.adaptor.kept()), ((SLOTS, 1, 1, PAGE), 1));
        let (next, other) = rig.adaptor.dma_alloc(1);
        assert_ne!((next, other), (addr, start));
        assert_eq!(rig.disk.write(addr, &[3; 64]), Outcome::Clear);
        assert_eq!(rig.disk.fetch(next, 4096), Ok(vec![0; 4096]));
        // SAFETY: as above.
        assert_eq!(unsafe { rig.adaptor.dma_dealloc(next, other, 1) }, 0);
        assert_eq!((rig.adaptor.retry(), rig.holds()), (0, (0, 0, 0, 0)));
        assert_eq!(rig.disk.write(addr, &[3; 64]), Outcome::Fault);
        // Whoever has the slots next has zeroes.
        let (again, start) = rig.adaptor.dma_alloc(1);
        assert_eq!(rig.disk.fetch(again, 4096), Ok(vec![0; 4096]));
        // SAFETY: as above.
        assert_eq!(unsafe { rig.adaptor.dma_dealloc(again, start, 1) }, 0);
        rig.counters(0, 0);
    });
}

#[test]
fn what_finds_no_record_and_is_not_unmapped_is_counted_as_lost() {
    with_rigs(1, |rig| {
        let (first, second) = (rig.buffer(1), rig.buffer(2));
        let addr = rig.share(&first);
        rig.iommu.fail_unmap(0);
        assert_eq!(rig.share(&second), UNREACHABLE, "the table is full");
        rig.counters(1, 1);
        let used = if rig.in_place { 0 } else { SLOTS };
        assert_eq!(rig.holds(), (2 * used, 1, 2, PAGE), "kept for good, and nobody else's");
        // The table full and the IOMMU in order, nothing is.
        assert_eq!(rig.share(&second), UNREACHABLE);
        rig.counters(2, 1);
        assert_eq!(rig.holds(), (2 * used, 1, 2, PAGE));
        rig.unshare(addr, &first);
        assert_eq!((first.read(), second.read()), (vec![1; 64], vec![2; 64]));
        assert_eq!(rig.holds(), (used, 0, 1, PAGE));
    });
}

#[test]
fn a_revoked_device_keeps_what_is_not_unmapped_and_nothing_else() {
    with_rigs(4, |rig| {
        let (first, second) = (rig.buffer(1), rig.buffer(2));
        let addrs = [rig.share(&first), rig.share(&second)];
        let (memory, start) = rig.adaptor.dma_alloc(1);
        assert_eq!(rig.disk.write(addrs[1], &[9; 64]), Outcome::Clear);
        let left = second.read();
        // The first fails while the device is cut off, and once more while it is finished.
        rig.iommu.fail_unmap(0);
        rig.iommu.fail_unmap(3);
        // SAFETY: the device does nothing any more.
        assert_eq!(unsafe { rig.adaptor.revoke() }, 2);
        assert_eq!(rig.adaptor.kept(), 1, "{:?}", rig.holds());
        assert_eq!(rig.iommu.entries().len(), 1);
        assert_eq!((first.read(), second.read()), (vec![1; 64], left), "nothing is brought back");
        assert_eq!((rig.adaptor.retry(), rig.holds()), (0, (0, 0, 0, 0)));
        for addr in [addrs[0], addrs[1], memory] {
            assert_eq!(rig.disk.write(addr, &[3; 64]), Outcome::Fault);
        }
        assert_eq!(rig.adaptor.capacity_for(&[first.bytes()]), Err(Refuse::Revoked));
        // SAFETY: as above; the memory went with the device.
        assert_eq!(unsafe { rig.adaptor.dma_dealloc(memory, start, 1) }, 0);
        assert_eq!(rig.adaptor.counters().unknown_unshares, 1);
    });
}
