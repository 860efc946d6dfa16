//! What is left when the IOMMU fails, and when a device is revoked.
// UNSAFETY: revoking a device is a promise that it has stopped.
#![expect(unsafe_code)]

use coco_dma::addr::DmaAddr;
use coco_dma::iommu::Fault;
use coco_dma::iommu::FaultReason;
use coco_dma::plan::Limits;
use coco_dma::reason::Refuse;
use coco_dma::regime::PlatformName;
use coco_dma::state::Direction;
use coco_dma::state::Trust;
use coco_dma_sim::Outcome;

use super::rig::PAGE;
use super::rig::Rig;
use super::rig::SOURCE;
use crate::support::finish;
use crate::support::map;
use crate::support::still_mapped;

#[test]
fn a_map_that_fails_is_refused_and_holds_nothing() {
    for trust in [Trust::Untrusted, Trust::Accepted] {
        let rig = Rig::new(PlatformName::Tdx, trust);
        let device = rig.bind(Limits::NONE);
        let buffer = rig.machine.alloc(5000).unwrap();
        rig.iommu.fail_map(0);
        let refused = map(&device, &buffer, Direction::Both).unwrap_err();
        assert_eq!(refused.reason, Refuse::IommuFailed);
        rig.assert_clean();
        assert_eq!(rig.dma.ledger().quarantined(), 0);
        super::coherent::share(rig.dma, buffer.run()).unwrap();
        super::coherent::reclaim(rig.dma, buffer.run()).unwrap();
        let mapping = map(&device, &buffer, Direction::Both).unwrap();
        finish(&device, mapping, 0);
        rig.assert_clean();
    }
}

#[test]
fn a_bounce_that_cannot_be_unmapped_keeps_its_slots_and_addresses() {
    let rig = Rig::new(PlatformName::Tdx, Trust::Untrusted);
    let (device, disk) = (rig.bind(Limits::NONE), rig.disk());
    let buffer = rig.machine.alloc(5000).unwrap();
    buffer.write(&[1; 5000]);
    let mapping = map(&device, &buffer, Direction::FromDevice).unwrap();
    let addr = mapping.addr().raw();
    disk.write(addr, &[3; 5000]);
    rig.iommu.fail_unmap(0);
    let mapping = still_mapped(&device, mapping, 5000);
    assert_eq!(buffer.read(), [1; 5000], "nothing comes while the device may change it");
    assert_eq!((rig.domain.lost(), rig.domain.mapped()), (2 * PAGE, 0));
    assert_eq!((rig.pool.used(), device.counters().live()), (4, 1));
    assert!(rig.heard.has("could not be unmapped (code 0x5c21)"));
    // The device can still write there; nobody else has that memory, nor those addresses.
    assert_eq!(disk.write(addr, &[4; 5000]), Outcome::Clear);
    for _ in 0..300 {
        let other = map(&device, &buffer, Direction::FromDevice).unwrap();
        assert!(other.addr().raw() >= addr + 2 * PAGE);
        finish(&device, other, 5000);
        assert_eq!(buffer.read(), [0; 5000], "none of what the device writes there arrives");
    }
    // Twice in vain, and then it goes.
    rig.iommu.fail_unmap(0);
    let mapping = still_mapped(&device, mapping, 5000);
    assert_eq!((rig.domain.lost(), rig.domain.mapped()), (2 * PAGE, 0));
    finish(&device, mapping, 5000);
    assert_eq!(buffer.read(), [4; 5000], "the driver has its bytes");
    assert_eq!(disk.write(addr, &[5; 5000]), Outcome::Fault);
    assert_eq!((device.counters().live(), device.counters().finished), (0, 301));
    rig.assert_clean();
    let next = map(&device, &buffer, Direction::FromDevice).unwrap();
    assert_eq!(next.addr().raw(), addr, "the addresses are given out again");
    finish(&device, next, 0);
}

#[test]
fn memory_in_place_that_cannot_be_unmapped_stays_pinned() {
    let rig = Rig::new(PlatformName::Tdx, Trust::Accepted);
    let device = rig.bind(Limits::NONE);
    let buffer = rig.machine.alloc(5000).unwrap();
    let mapping = map(&device, &buffer, Direction::Both).unwrap();
    assert!(!mapping.is_bounced());
    rig.iommu.fail_unmap(0);
    let mapping = still_mapped(&device, mapping, 0);
    assert_eq!(rig.domain.lost(), 2 * PAGE);
    let refused = super::coherent::share(rig.dma, buffer.run());
    assert!(refused.is_err(), "it does not become the host's while the device reaches it");
    let again = map(&device, &buffer, Direction::Both).unwrap();
    finish(&device, again, 0);
    assert!(super::coherent::share(rig.dma, buffer.run()).is_err());
    finish(&device, mapping, 0);
    rig.assert_clean();
    super::coherent::share(rig.dma, buffer.run()).unwrap();
    super::coherent::reclaim(rig.dma, buffer.run()).unwrap();
}

#[test]
fn a_revoked_device_reaches_nothing_and_its_records_hurt_nobody() {
    let rig = Rig::new(PlatformName::Tdx, Trust::Untrusted);
    let (device, disk) = (rig.bind(Limits::NONE), rig.disk());
    let buffer = rig.machine.alloc(5000).unwrap();
    let old = map(&device, &buffer, Direction::Both).unwrap();
    let addr = old.addr();
    assert_eq!(disk.fetch(addr.raw(), 5000).map(|bytes| bytes.len()), Ok(5000));
    // SAFETY: the device acts only when told.
    assert_eq!(unsafe { device.revoke() }, 4);
    rig.assert_clean();
    assert_eq!(disk.fetch(addr.raw(), 1), Err(Outcome::Fault));

    let next = rig.bind(Limits::NONE);
    buffer.write(&[9; 5000]);
    let new = map(&next, &buffer, Direction::Both).unwrap();
    assert_eq!(new.addr(), addr, "the addresses were free");
    finish(&device, old, 5000);
    assert_eq!(disk.fetch(addr.raw(), 5000), Ok(vec![9; 5000]), "the late record ends nothing");
    finish(&next, new, 0);
    rig.assert_clean();
}

/// Revoked twice, a device got the slots freed that it still reached: the second revocation found
/// nothing left to unmap.
#[test]
fn what_a_revocation_could_not_unmap_stays_until_it_can() {
    for again in [false, true] {
        let rig = Rig::new(PlatformName::Tdx, Trust::Untrusted);
        let (device, disk) = (rig.bind(Limits::NONE), rig.disk());
        let buffer = rig.machine.alloc(100).unwrap();
        let maps = [(); 2].map(|()| map(&device, &buffer, Direction::Both).unwrap());
        let at = [maps[0].addr().raw(), maps[1].addr().raw()];
        for _ in 0..2 {
            rig.iommu.fail_unmap(0);
            // SAFETY: the device acts only when told.
            assert_eq!(unsafe { device.revoke() }, 0, "which slots may go is not known");
            assert_eq!((rig.domain.lost(), rig.iommu.entries().len()), (PAGE, 1));
            assert_eq!(rig.pool.used(), 4);
        }
        let reached = at.map(|at| disk.write(at, &[3; 8]) == Outcome::Clear);
        assert_eq!(reached.iter().filter(|reached| **reached).count(), 1);
        if again {
            // SAFETY: as above.
            assert_eq!(unsafe { device.revoke() }, 4);
            rig.assert_clean();
        }
        for (mapping, reached) in maps.into_iter().zip(reached) {
            finish(&device, mapping, 100);
            assert_eq!(rig.domain.lost(), if reached || again { 0 } else { rig.domain.lost() });
        }
        rig.assert_clean();
        assert_eq!(buffer.read(), [0; 100], "nobody vouches for what it wrote");
    }
}

/// Losing trust refused new maps only: the device went on in what it had mapped.
#[test]
fn a_device_that_loses_trust_is_cut_off_at_once() {
    for direct in [false, true] {
        let rig = Rig::new(PlatformName::Tdx, Trust::Accepted);
        let endpoint = if direct { rig.endpoint() } else { rig.endpoint().force_bounce() };
        let device = rig.dma.bind(endpoint, Limits::NONE).unwrap();
        let (peer, disk) = (rig.bind(Limits::NONE), rig.disk());
        let buffers = [5000, 64, 64].map(|len| rig.machine.alloc(len).unwrap());
        let [first, second, other] = &buffers;
        let first_map = map(&device, first, Direction::Both).unwrap();
        let second_map = map(&device, second, Direction::Both).unwrap();
        let others = map(&peer, other, Direction::Both).unwrap();
        let at = [&first_map, &second_map].map(|mapping| mapping.addr().raw());
        assert!(at.iter().all(|at| disk.write(*at, &[2; 8]) == Outcome::Clear));

        // The first entry does not go: that is told, and the other goes all the same.
        rig.iommu.fail_unmap(0);
        let error = device.lose_trust().unwrap_err();
        assert_eq!((error.device.as_str(), error.code), ("disk", Some(0x5c21)));
        let reached = at.map(|at| disk.write(at, &[3; 8]));
        assert_eq!(reached.iter().filter(|outcome| **outcome == Outcome::Fault).count(), 1);
        assert_eq!(error.addr.raw() & !(PAGE - 1), at[0] & !(PAGE - 1));
        assert_eq!(disk.write(others.addr().raw(), &[4; 8]), Outcome::Clear, "its own entry");
        let refused = map(&device, second, Direction::Both).unwrap_err();
        assert_eq!(refused.reason, Refuse::TrustLost);

        // Its maps end by being finished; what is still in reach is nobody's until then.
        let held = rig.pool.used();
        finish(&device, second_map, 64);
        finish(&peer, others, 64);
        assert_eq!((rig.domain.lost(), rig.domain.mapped()), (2 * PAGE, 0));
        assert_eq!(rig.pool.used(), if direct { 0 } else { held - 2 });
        finish(&device, first_map, 5000);
        rig.assert_clean();
    }
}

#[test]
fn faults_are_counted_and_told() {
    let rig = Rig::new(PlatformName::Tdx, Trust::Untrusted);
    assert_eq!(rig.disk().write(0xdead_b000, &[0; 8]), Outcome::Fault);
    let addr = DmaAddr::new(0xdead_b000);
    let reason = FaultReason::Mapping;
    let fault = Fault { source: SOURCE, addr, write: Some(true), reason, code: 5 };
    assert_eq!(rig.iommu.faults(), [fault]);
    rig.dma.fault(&fault);
    assert_eq!(rig.dma.faults(), 1);
    assert!(rig.heard.has("device 0x310: write to 0xdeadb000 refused by the IOMMU"));
    // Not every IOMMU says what the device wanted; nobody then claims that it was a read.
    rig.dma.fault(&Fault { write: None, ..fault });
    assert!(rig.heard.has("device 0x310: access to 0xdeadb000 refused by the IOMMU"));
}
