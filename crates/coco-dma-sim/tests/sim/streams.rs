//! The layer's maps on each platform, seen from the device.

use coco_dma::Dma;
use coco_dma::device::Endpoint;
use coco_dma::plan::Limits;
use coco_dma::regime::PlatformName;
use coco_dma::state::Direction;
use coco_dma::state::PoolLabel;
use coco_dma::state::Trust;
use coco_dma_sim::Machine;
use coco_dma_sim::Outcome;
use coco_dma_sim::SimDevice;
use coco_dma_sim::marker;

use crate::support::finish;
use crate::support::machine;
use crate::support::map;
use crate::support::pool;
use crate::support::vouch;

/// The pool that a device of this trust bounces through here.
fn label(platform: PlatformName, trust: Trust) -> PoolLabel {
    match (platform, trust) {
        (PlatformName::Open, _) => PoolLabel::Ordinary,
        (PlatformName::Sme, _) => PoolLabel::HostPlain,
        (_, Trust::Untrusted) => PoolLabel::GuestShared,
        (_, Trust::Accepted) => PoolLabel::GuestPrivate,
    }
}

/// Lets a device read and write through maps of three lengths, and says how many were bounced.
fn stream(machine: &Machine, trust: Trust, limits: Limits) -> usize {
    let platform = machine.name();
    let memory = machine.adopt_pool(label(platform, trust), 1 << 16).unwrap();
    let words = memory.words();
    let pools = [pool(&memory, &words)];
    let dma = Dma::new(machine, &pools);
    let endpoint = match trust {
        Trust::Untrusted => Endpoint::new("disk"),
        Trust::Accepted => Endpoint::new("disk").accepted(vouch()),
    };
    let device = dma.bind(endpoint, limits).unwrap();
    let disk = SimDevice::new(machine, "disk", trust)
        .address_bits(u64::BITS - limits.mask.raw().leading_zeros());
    for (len, offset) in [(1, 0), (512, 3), (9000, 4000)] {
        let buffer = machine.alloc_at_offset(len, offset).unwrap();
        let bytes: Vec<u8> = marker(9).iter().copied().cycle().take(len).collect();
        buffer.write(&bytes);
        let mapping = map(&device, &buffer, Direction::ToDevice).unwrap();
        assert_eq!(disk.fetch(mapping.addr().raw(), len), Ok(bytes.clone()), "{platform} {trust}");
        finish(&device, mapping, 0);

        let mapping = map(&device, &buffer, Direction::FromDevice).unwrap();
        let addr = mapping.addr().raw();
        if mapping.is_bounced() {
            assert_eq!(disk.fetch(addr, len), Ok(vec![0; len]), "nothing old goes out");
        }
        let answer: Vec<u8> = bytes.iter().map(|byte| !byte).collect();
        assert_eq!(disk.write(addr, &answer), Outcome::Clear, "{platform} {trust}");
        finish(&device, mapping, len);
        assert_eq!(buffer.read(), answer, "{platform} {trust}");
    }
    assert_eq!(device.counters().live(), 0);
    assert_eq!(machine.violations(), []);
    device.counters().bounced
}

#[test]
fn an_untrusted_device_reads_and_writes_exactly_the_buffer() {
    for platform in PlatformName::ALL {
        let bounced = stream(&machine(platform), Trust::Untrusted, Limits::NONE);
        let direct = matches!(platform, PlatformName::Open | PlatformName::Sme);
        assert_eq!(bounced, if direct { 0 } else { 6 }, "{platform}");
    }
}

#[test]
fn an_accepted_device_does_in_place() {
    for platform in PlatformName::ALL {
        let machine = machine(platform);
        use coco_dma::platform::Platform;
        if machine.regime().has_accepted_devices() {
            assert_eq!(stream(&machine, Trust::Accepted, Limits::NONE), 0, "{platform}");
        }
    }
}

#[test]
fn a_short_mask_bounces_where_the_form_does_not_fit() {
    // The C-bit is beyond 40 bits: the device gets at nothing but plain memory.
    let sme = machine(PlatformName::Sme);
    assert_eq!(stream(&sme, Trust::Untrusted, Limits::mask_bits(40)), 6);
    let tdx = machine(PlatformName::Tdx);
    assert_eq!(stream(&tdx, Trust::Untrusted, Limits::mask_bits(32)), 6);
}
