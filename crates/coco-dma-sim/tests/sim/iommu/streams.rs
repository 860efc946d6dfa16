//! Maps through a domain, in place and bounced, on every platform.

use coco_dma::device::Endpoint;
use coco_dma::plan::Limits;
use coco_dma::platform::Platform;
use coco_dma::reason::Refuse;
use coco_dma::regime::PlatformName;
use coco_dma::state::Attachment;
use coco_dma::state::Direction;
use coco_dma::state::State;
use coco_dma::state::Trust;
use coco_dma::state::Visibility;
use coco_dma_sim::GranuleState;
use coco_dma_sim::Outcome;
use coco_dma_sim::marker;

use super::rig::PAGE;
use super::rig::Rig;
use super::rig::WINDOW;
use crate::support::GRANULE;
use crate::support::finish;
use crate::support::map;

/// Lets a device read and write through maps of several lengths and places, and says how many of
/// them were bounced.
fn stream(rig: &Rig, limits: Limits) -> usize {
    let platform = rig.machine.name();
    let (device, disk) = (rig.bind(limits), rig.disk());
    for (len, offset) in [(1, 0), (512, 3), (9000, 4000), (8192, 0)] {
        let buffer = rig.machine.alloc_at_offset(len, offset).unwrap();
        let bytes: Vec<u8> = marker(9).iter().copied().cycle().take(len).collect();
        buffer.write(&bytes);
        let mapping = map(&device, &buffer, Direction::ToDevice).unwrap();
        let addr = mapping.addr().raw();
        assert!((WINDOW..WINDOW + (1 << 20)).contains(&addr), "an address of the domain");
        if !mapping.is_bounced() {
            assert_eq!(addr % PAGE, buffer.range().base().raw() % PAGE);
        }
        assert_eq!(disk.fetch(addr, len), Ok(bytes.clone()), "{platform}");
        assert_eq!(disk.write(addr, &[1]), Outcome::Fault, "the entry is for reading");
        assert_states(rig);
        finish(&device, mapping, 0);
        assert_eq!(disk.fetch(addr, len), Err(Outcome::Fault), "it is over");

        let mapping = map(&device, &buffer, Direction::FromDevice).unwrap();
        let addr = mapping.addr().raw();
        assert_eq!(disk.fetch(addr, 1), Err(Outcome::Fault), "the entry is for writing");
        let answer: Vec<u8> = bytes.iter().map(|byte| !byte).collect();
        assert_eq!(disk.write(addr, &answer), Outcome::Clear, "{platform}");
        assert_states(rig);
        finish(&device, mapping, len);
        assert_eq!(buffer.read(), answer, "{platform}");
        assert_eq!(disk.write(addr, &bytes), Outcome::Fault);
        assert_eq!(buffer.read(), answer, "{platform}");

        let mapping = map(&device, &buffer, Direction::Both).unwrap();
        assert_eq!(disk.fetch(mapping.addr().raw(), len), Ok(answer));
        assert_eq!(disk.write(mapping.addr().raw(), &bytes), Outcome::Clear);
        finish(&device, mapping, len);
        assert_eq!(buffer.read(), bytes);
    }
    rig.assert_clean();
    assert_eq!(device.counters().live(), 0);
    device.counters().bounced
}

/// Every entry says the true state of its page, and none shows an untrusted device a private one.
fn assert_states(rig: &Rig) {
    for found in rig.iommu.entries() {
        let state = found.entry.state;
        assert_eq!(rig.machine.state(found.phys), Some(GranuleState::In(state)));
        assert!(rig.trust == Trust::Accepted || state != State::PRIVATE);
    }
}

#[test]
fn an_untrusted_device_reads_and_writes_exactly_the_buffer() {
    for platform in PlatformName::ALL {
        let rig = Rig::new(platform, Trust::Untrusted);
        let bounced = stream(&rig, Limits::NONE);
        let direct = !rig.machine.regime().is_guest();
        assert_eq!(bounced, if direct { 0 } else { 12 }, "{platform}");
    }
}

#[test]
fn an_accepted_device_has_private_memory_in_place() {
    for platform in PlatformName::ALL {
        let rig = Rig::new(platform, Trust::Accepted);
        if rig.machine.regime().is_guest() && rig.machine.regime().has_accepted_devices() {
            assert_eq!(stream(&rig, Limits::NONE), 0, "{platform}");
        }
    }
}

#[test]
fn the_entry_carries_the_c_bit_so_that_a_short_mask_reaches_encrypted_memory() {
    assert_eq!(stream(&Rig::new(PlatformName::Sme, Trust::Untrusted), Limits::mask_bits(32)), 0);
}

#[test]
fn shared_memory_is_mapped_in_place_with_a_shared_entry() {
    // SNP without vTOM: the one way in which an accepted device reaches shared memory.
    for trust in [Trust::Untrusted, Trust::Accepted] {
        let rig = Rig::new(PlatformName::Snp, trust);
        let (device, disk) = (rig.bind(Limits::NONE), rig.disk());
        let buffer = rig.machine.alloc(4096).unwrap();
        rig.machine.set_up(buffer.run(), GranuleState::In(State::SHARED));
        rig.dma.ledger().declare(buffer.run(), Visibility::Shared).unwrap();
        buffer.write(&[7; 4096]);
        let mapping = map(&device, &buffer, Direction::ToDevice).unwrap();
        assert!(!mapping.is_bounced());
        assert_eq!(rig.iommu.entries()[0].entry.state, State::SHARED);
        assert_eq!(disk.fetch(mapping.addr().raw(), 4096), Ok(vec![7; 4096]));
        finish(&device, mapping, 0);
        rig.machine.set_up(buffer.run(), GranuleState::In(State::PRIVATE));
        rig.assert_clean();
    }
}

#[test]
fn a_mapping_in_place_is_pinned_and_its_pages_with_it() {
    let rig = Rig::with_page(PlatformName::Tdx, Trust::Accepted, 4 * GRANULE);
    let device = rig.bind(Limits::NONE);
    let memory = rig.machine.take(16 * GRANULE).unwrap();
    let first = memory.base().raw().next_multiple_of(4 * GRANULE) - memory.base().raw();
    let page = memory.slice(first, 4 * GRANULE).unwrap();
    rig.machine.free(memory);
    let neighbour = page.slice(3 * GRANULE, GRANULE).unwrap();
    rig.machine.take_at(neighbour).unwrap();
    // The lowest free granules from here on are those of the page.
    let before = memory.slice(0, first);
    before.map(|run| rig.machine.take_at(run).unwrap());
    let buffer = rig.machine.alloc_at_offset(100, 50).unwrap();
    assert_eq!(buffer.run().base(), page.base());
    let mapping = map(&device, &buffer, Direction::ToDevice).unwrap();
    assert!(!mapping.is_bounced());
    assert_eq!(rig.iommu.entries()[0].phys, page.base());
    // The device sees the neighbour: it must not become the host's meanwhile.
    assert!(share(&rig, neighbour).is_err());
    finish(&device, mapping, 0);
    share(&rig, neighbour).unwrap();
    // And a page that holds both is not mapped at all.
    let refused = map(&device, &buffer, Direction::ToDevice).unwrap_err();
    assert_eq!(refused.reason, Refuse::MixedRun);
    rig.assert_clean();
}

fn share(rig: &Rig, run: coco_dma::addr::PhysRange) -> Result<(), String> {
    super::coherent::share(rig.dma, run)
}

#[test]
fn a_device_behind_an_iommu_is_bound_with_a_domain_in_its_reach() {
    let rig = Rig::new(PlatformName::Open, Trust::Untrusted);
    let without = Endpoint::new("disk").attachment(Attachment::Translated);
    let error = rig.dma.bind(without, Limits::NONE).unwrap_err();
    assert!(error.to_string().contains("the domain that it is in"), "{error}");
    let error = rig.dma.bind(rig.endpoint(), Limits::mask_bits(16)).unwrap_err();
    assert!(error.to_string().contains("past the device's mask"), "{error}");
}
