//! Devices that reach for what they were not given.
// UNSAFETY: a driver of an IOMMU that lets a device act in the middle of an unmap.
#![expect(unsafe_code)]

use std::sync::Mutex;

use coco_dma::addr::AlignMask;
use coco_dma::addr::DmaAddr;
use coco_dma::addr::PhysRange;
use coco_dma::device::Endpoint;
use coco_dma::iommu::Entry;
use coco_dma::iommu::Iommu;
use coco_dma::iommu::IommuError;
use coco_dma::plan::Limits;
use coco_dma::regime::PlatformName;
use coco_dma::state::Direction;
use coco_dma::state::Trust;
use coco_dma_sim::Outcome;
use coco_dma_sim::SimDevice;
use coco_dma_sim::SimIommu;
use coco_dma_sim::marker;

use super::rig::PAGE;
use super::rig::Rig;
use super::rig::SOURCE;
use super::rig::domain_of;
use super::rig::leak;
use crate::support::finish;
use crate::support::map;

#[test]
fn one_byte_outside_the_pages_faults_and_is_written_down() {
    let rig = Rig::new(PlatformName::Tdx, Trust::Untrusted);
    let (device, disk) = (rig.bind(Limits::NONE), rig.disk());
    let buffer = rig.machine.alloc(4096).unwrap();
    let mapping = map(&device, &buffer, Direction::Both).unwrap();
    let addr = mapping.addr().raw();
    for (at, write) in [(addr - 1, true), (addr + PAGE, true), (addr - 1, false)] {
        let outcome = if write { disk.write(at, &[1]) } else { disk.read(at, &mut [0]) };
        assert_eq!(outcome, Outcome::Fault);
        let fault = *rig.iommu.faults().last().unwrap();
        assert_eq!(
            (fault.source, fault.addr, fault.write),
            (SOURCE, DmaAddr::new(at), Some(write))
        );
    }
    // Half in, half out: the first half arrives, the second does not.
    assert_eq!(disk.write(addr + PAGE - 4, &[6; 8]), Outcome::Fault);
    assert_eq!(rig.iommu.faults().len(), 4);
    finish(&device, mapping, 4096);
    assert_eq!(buffer.read()[4092..], [6; 4]);
    rig.assert_clean();
}

#[test]
fn an_old_address_reaches_nothing_and_private_memory_has_none() {
    let rig = Rig::new(PlatformName::Snp, Trust::Untrusted);
    let (device, disk) = (rig.bind(Limits::NONE), rig.disk());
    let secret = marker(77);
    let buffer = rig.machine.alloc(4096).unwrap();
    buffer.write(&secret);
    let mapping = map(&device, &buffer, Direction::ToDevice).unwrap();
    let old = mapping.addr().raw();
    finish(&device, mapping, 0);
    let mut seen = [0; 64];
    // The old address, the physical one of the buffer, that of the pool, and everything around.
    let places = [old, buffer.range().base().raw(), rig.pool.range().base().raw(), 0, u64::MAX];
    for at in places {
        assert_eq!(disk.read(at, &mut seen), Outcome::Fault);
        assert_eq!(seen, [0xff; 64]);
        assert_eq!(disk.write(at, &[0; 64]), Outcome::Fault);
    }
    assert_eq!(buffer.read()[..secret.len()], secret);
    assert_eq!(rig.iommu.faults().len(), 2 * places.len());
}

#[test]
fn two_devices_in_one_pool_do_not_see_each_others_slots() {
    let rig = Rig::new(PlatformName::Tdx, Trust::Untrusted);
    let other = leak(SimIommu::new(PAGE));
    let domain = leak(domain_of(other, 0x80_0000, 0x10_0000));
    let (victim, spy) = (
        rig.bind(Limits::NONE),
        rig.dma.bind(rig.endpoint().translated(domain), Limits::NONE).unwrap(),
    );
    let wire = SimDevice::new(rig.machine, "spy", Trust::Untrusted).behind(other, SOURCE + 1);
    let secret = marker(5);
    let buffer = rig.machine.alloc(secret.len()).unwrap();
    buffer.write(&secret);
    let small = rig.machine.alloc(10).unwrap();
    let mut live = Vec::new();
    for _ in 0..4 {
        live.push(map(&victim, &buffer, Direction::ToDevice).unwrap());
        let mapping = map(&spy, &small, Direction::Both).unwrap();
        let page = wire.fetch(mapping.addr().raw() & !(PAGE - 1), 4096).unwrap();
        assert!(!page.windows(secret.len()).any(|part| part == secret));
        // What it writes there is nobody's.
        assert_eq!(wire.write(mapping.addr().raw() & !(PAGE - 1), &[0xee; 4096]), Outcome::Clear);
        finish(&spy, mapping, 0);
    }
    for mapping in live {
        let seen = rig.disk().fetch(mapping.addr().raw(), secret.len());
        assert_eq!(seen.as_deref(), Ok(&secret[..]));
        finish(&victim, mapping, 0);
    }
    // The victim's slots are the spy's next: nothing of the secret is left in them.
    let mut held = Vec::new();
    for _ in 0..16 {
        let mapping = map(&spy, &small, Direction::Both).unwrap();
        let page = wire.fetch(mapping.addr().raw() & !(PAGE - 1), 4096).unwrap();
        assert!(page[10..].iter().all(|byte| *byte == 0), "scrubbed");
        held.push(mapping);
    }
    for mapping in held {
        finish(&spy, mapping, 0);
    }
    rig.assert_clean();
}

#[test]
fn a_page_of_a_bounce_holds_nothing_else_however_large_it_is() {
    for page in [PAGE, 4 * PAGE] {
        let rig = Rig::with_page(PlatformName::Tdx, Trust::Untrusted, page);
        rig.machine.guest_write(rig.pool.range().base(), &[0xee; 1 << 16]);
        // A device without an IOMMU has a slot of the first page.
        let plain = rig.dma.bind(Endpoint::new("plain"), Limits::NONE).unwrap();
        let secret = marker(8);
        let buffer = rig.machine.alloc(secret.len()).unwrap();
        buffer.write(&secret);
        let held = map(&plain, &buffer, Direction::ToDevice).unwrap();

        let min_align = AlignMask::new(0xfff).unwrap();
        let (device, disk) = (rig.bind(Limits { min_align, ..Limits::NONE }), rig.disk());
        let small = rig.machine.alloc_at_offset(10, 0x800).unwrap();
        small.write(&[7; 10]);
        let mapping = map(&device, &small, Direction::ToDevice).unwrap();
        let addr = mapping.addr().raw();
        assert_eq!(addr % page, 0x800);
        let first = addr & !(page - 1);
        let seen = disk.fetch(first, usize::try_from(page).unwrap()).unwrap();
        assert_eq!(seen[0x800..0x80a], [7; 10]);
        let around = seen[..0x800].iter().chain(&seen[0x80a..]);
        assert_eq!(around.filter(|byte| **byte != 0).count(), 0);
        assert_eq!(disk.read(first + page, &mut [0]), Outcome::Fault);
        finish(&device, mapping, 0);
        finish(&plain, held, 0);
        rig.assert_clean();
    }
}

/// An IOMMU during whose unmap a device writes: once before the entries are gone, once after.
struct LastMoment {
    iommu: SimIommu,
    wire: Mutex<Option<SimDevice>>,
}

// SAFETY: the simulated one's.
unsafe impl Iommu for LastMoment {
    fn page(&self) -> u64 {
        self.iommu.page()
    }

    unsafe fn map(&self, iova: DmaAddr, run: PhysRange, entry: Entry) -> Result<(), IommuError> {
        // SAFETY: this function's condition.
        unsafe { self.iommu.map(iova, run, entry) }
    }

    unsafe fn unmap(&self, iova: DmaAddr, len: u64) -> Result<(), IommuError> {
        let wire = self.wire.lock().unwrap();
        let wire = wire.as_ref().unwrap();
        assert_eq!(wire.write(iova.raw(), &[1; 100]), Outcome::Clear);
        // SAFETY: this function's condition.
        unsafe { self.iommu.unmap(iova, len) }?;
        assert_eq!(wire.write(iova.raw(), &[2; 100]), Outcome::Fault);
        Ok(())
    }
}

#[test]
fn bytes_are_brought_back_and_memory_is_freed_after_the_device_is_out() {
    let rig = Rig::new(PlatformName::Tdx, Trust::Untrusted);
    let last = leak(LastMoment { iommu: rig.iommu.clone(), wire: Mutex::default() });
    *last.wire.lock().unwrap() = Some(rig.disk());
    let domain = leak(domain_of(last, 0x80_0000, 0x10_0000));
    let device = rig.dma.bind(rig.endpoint().translated(domain), Limits::NONE).unwrap();
    let buffer = rig.machine.alloc(100).unwrap();
    let mapping = map(&device, &buffer, Direction::FromDevice).unwrap();
    finish(&device, mapping, 100);
    // Had the bytes come back before, what the device did at the last moment would be missing.
    assert_eq!(buffer.read(), [1; 100]);
    rig.assert_clean();
}
