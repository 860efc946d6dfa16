//! Which addresses are given out, and how much a page shows.

use coco_dma::addr::AlignMask;
use coco_dma::addr::Boundary;
use coco_dma::iommu::Domain;
use coco_dma::iommu::IovaWindow;
use coco_dma::plan::Limits;
use coco_dma::reason::Refuse;
use coco_dma::regime::PlatformName;
use coco_dma::state::Direction;
use coco_dma::state::Trust;

use super::rig::PAGE;
use super::rig::Rig;
use super::rig::domain_of;
use super::rig::leak;
use super::rig::words;
use crate::support::finish;
use crate::support::map;

#[test]
fn an_external_facing_device_sees_no_byte_beside_the_buffer() {
    let rig = Rig::new(PlatformName::Open, Trust::Untrusted);
    let device = rig.dma.bind(rig.endpoint().external_facing(), Limits::NONE).unwrap();
    let disk = rig.disk();
    let buffer = rig.machine.alloc_at_offset(100, 200).unwrap();
    rig.machine.guest_write(buffer.run().base(), &[0xaa; 4096]);
    let mapping = map(&device, &buffer, Direction::ToDevice).unwrap();
    assert!(mapping.is_bounced());
    let page = disk.fetch(mapping.addr().raw() & !(PAGE - 1), 4096).unwrap();
    assert_eq!(page.iter().filter(|byte| **byte == 0xaa).count(), 100);
    assert_eq!(page.iter().filter(|byte| **byte == 0).count(), 3996);
    finish(&device, mapping, 0);
    let whole = rig.machine.alloc(8192).unwrap();
    let mapping = map(&device, &whole, Direction::ToDevice).unwrap();
    assert!(!mapping.is_bounced(), "whole pages hold nothing else");
    finish(&device, mapping, 0);
    rig.assert_clean();
}

#[test]
fn kept_low_bits_and_boundaries_hold_for_the_address_of_the_domain() {
    let boundary = Boundary::new(0x4000);
    for (platform, trust) in
        [(PlatformName::Open, Trust::Untrusted), (PlatformName::Tdx, Trust::Untrusted)]
    {
        for keep in [0, 0x1ff, 0xfff, 0x1fff] {
            let min_align = AlignMask::new(keep).unwrap();
            let rig = Rig::new(platform, trust);
            let device = rig.bind(Limits { boundary, min_align, ..Limits::NONE });
            let disk = rig.disk();
            let mut live = Vec::new();
            for (len, offset) in [(100, 0x234), (0x1000, 0), (0x2000, 0xe00), (1, 0xfff)] {
                let buffer = rig.machine.alloc_at_offset(len, offset).unwrap();
                buffer.write(&vec![5; len]);
                let mapping = map(&device, &buffer, Direction::ToDevice).unwrap();
                let addr = mapping.addr().raw();
                assert_eq!(addr & keep, buffer.range().base().raw() & keep);
                assert!(!boundary.unwrap().crossed_by(addr, len as u64), "{addr:#x}");
                assert_eq!(disk.fetch(addr, len), Ok(vec![5; len]));
                live.push((mapping, buffer));
            }
            for (mapping, _buffer) in live {
                finish(&device, mapping, 0);
            }
            rig.assert_clean();
        }
    }
}

#[test]
fn a_device_is_given_no_address_past_its_mask() {
    let rig = Rig::new(PlatformName::Open, Trust::Untrusted);
    let domain = leak(domain_of(rig.iommu, 0xffff_e000, 0x10_0000));
    let device = rig.dma.bind(rig.endpoint().translated(domain), Limits::mask_bits(32)).unwrap();
    let buffer = rig.machine.alloc(4096).unwrap();
    assert_eq!(device.max_mapping(), 4097, "two pages, wherever it begins in the first");
    assert!(!device.addressing_limited());
    let first = map(&device, &buffer, Direction::ToDevice).unwrap();
    let second = map(&device, &buffer, Direction::ToDevice).unwrap();
    assert_eq!((first.addr().raw(), second.addr().raw()), (0xffff_e000, 0xffff_f000));
    let refused = map(&device, &buffer, Direction::ToDevice).unwrap_err();
    assert_eq!(refused.reason, Refuse::IovaFull);
    assert_eq!(device.capacity_for(&[buffer.bytes()]), Err(Refuse::IovaFull));
    finish(&device, first, 0);
    assert_eq!(device.capacity_for(&[buffer.bytes()]), Ok(()));
    assert_eq!(device.capacity_for(&[buffer.bytes(); 2]), Err(Refuse::IovaFull), "together");
    finish(&device, second, 0);
    assert_eq!(device.capacity_for(&[buffer.bytes(); 2]), Ok(()));
    assert_eq!(domain.mapped(), 0);
    rig.assert_clean();
}

#[test]
fn neither_address_0_nor_what_is_reserved_is_given_out() {
    let rig = Rig::new(PlatformName::Open, Trust::Untrusted);
    let domain = leak(domain_of(rig.iommu, 0, 8 * PAGE));
    assert_eq!(domain.window(), IovaWindow::new(PAGE, 7 * PAGE).unwrap());
    assert!(domain.reserve(IovaWindow::new(0x2800, 0x1000).unwrap()));
    assert!(domain.reserve(IovaWindow::new(0x1_0000, 0x1000).unwrap()), "not of the window");
    assert!(!domain.reserve(IovaWindow::new(0x3000, 1).unwrap()), "once");
    let device = rig.dma.bind(rig.endpoint().translated(domain), Limits::NONE).unwrap();
    let buffer = rig.machine.alloc(4096).unwrap();
    let mapped: Vec<_> =
        std::iter::from_fn(|| map(&device, &buffer, Direction::ToDevice).ok()).collect();
    let addrs: Vec<u64> = mapped.iter().map(|mapping| mapping.addr().raw()).collect();
    assert_eq!(addrs, [0x1000, 0x4000, 0x5000, 0x6000, 0x7000]);
    assert!(!domain.reserve(IovaWindow::new(0x7000, 1).unwrap()), "in use");
    for mapping in mapped {
        finish(&device, mapping, 0);
    }
    rig.assert_clean();
}

#[test]
fn the_longest_mapping_maps_and_one_byte_more_does_not() {
    for (platform, keep) in [(PlatformName::Open, 0), (PlatformName::Tdx, 0xfff)] {
        let rig = Rig::new(platform, Trust::Untrusted);
        let min_align = AlignMask::new(keep).unwrap();
        let endpoint = rig.endpoint().external_facing();
        let device = rig.dma.bind(endpoint, Limits { min_align, ..Limits::NONE }).unwrap();
        let most = usize::try_from(device.max_mapping()).unwrap();
        assert_eq!(most, 0x1_0000 - usize::try_from(keep).unwrap());
        let buffer = rig.machine.alloc_at_offset(most, 0xfff).unwrap();
        let mapping = map(&device, &buffer, Direction::ToDevice).unwrap();
        finish(&device, mapping, 0);
        let longer = rig.machine.alloc_at_offset(most + 1, 0xfff).unwrap();
        let refused = map(&device, &longer, Direction::ToDevice).unwrap_err();
        assert_eq!(refused.reason, Refuse::TooLarge);
        rig.assert_clean();
    }
}

#[test]
fn a_domain_that_cannot_be_says_why() {
    let small = leak(coco_dma_sim::SimIommu::new(2048));
    let window = |base, len| IovaWindow::new(base, len).unwrap();
    let error = Domain::new(small, window(0, 1 << 20), words(9)).unwrap_err();
    assert!(error.to_string().contains("2048 bytes"), "{error}");
    let iommu = leak(coco_dma_sim::SimIommu::new(PAGE));
    for no_page in [window(0, PAGE), window(1, 2 * PAGE - 2)] {
        let error = Domain::new(iommu, no_page, words(99)).unwrap_err();
        assert!(error.to_string().contains("one page"), "{error}");
    }
    let enough = Domain::words(1 << 20, PAGE);
    assert!(Domain::new(iommu, window(PAGE, 1 << 20), words(enough)).is_ok());
    let error = Domain::new(iommu, window(PAGE, 1 << 20), words(enough - 1)).unwrap_err();
    assert!(error.to_string().contains(&format!("{enough} words")), "{error}");
    let error = Domain::new(iommu, window(PAGE, 1 << 20), &[]).unwrap_err();
    assert!(error.to_string().contains(&format!("{enough} words")), "{error}");
    let error = Domain::new(iommu, window(PAGE, u64::MAX - 2 * PAGE), words(9)).unwrap_err();
    assert!(error.to_string().contains("longer"), "{error}");
}
