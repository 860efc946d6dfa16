//! Whether a device touches memory where it lies: limits, boundaries, cache lines, pages.

use coco_dma::addr::AddressLimit;
use coco_dma::addr::AlignMask;
use coco_dma::addr::Alignment;
use coco_dma::addr::Boundary;
use coco_dma::addr::BusRange;
use coco_dma::addr::BusRanges;
use coco_dma::addr::CacheLine;
use coco_dma::state::State;

use super::*;

const POOLS: [PoolInfo; 0] = [];

fn low_pool() -> [PoolInfo; 1] {
    [pool(PoolLabel::Ordinary, 0x10_0000)]
}

#[test]
fn the_last_byte_has_to_be_in_reach_and_the_tighter_limit_is_the_reason() {
    let open = regime(PlatformName::Open);
    let pools = low_pool();
    let bus = AddressLimit::last;
    for (mask, bus_limit, past) in [
        (30, AddressLimit::NONE, Bounce::BeyondMask),
        (30, AddressLimit::bits(30), Bounce::BeyondMask),
        (30, AddressLimit::bits(31), Bounce::BeyondMask),
        (32, AddressLimit::bits(30), Bounce::BeyondBusLimit),
        (64, bus(0x3fff_ffff), Bounce::BeyondBusLimit),
    ] {
        let device = DeviceInfo { bus_limit, ..short(mask) };
        let of = |base| answer(&MapRequest { place: at(base), ..ask(&open, &device, &pools) });
        assert_eq!(of(0x3fff_f000), in_reach(0x3fff_f000));
        assert_eq!(of(0x3fff_f001), Answer::Bounce(past, vec![0]), "{mask} {bus_limit}");
    }
}

#[test]
fn behind_a_domain_shared_memory_is_in_reach_of_an_accepted_device() {
    let snp = regime(PlatformName::Snp);
    let memory = Memory::Known(State::SHARED);
    let device = translated(ACCEPTED);
    let request = MapRequest { memory, ..ask(&snp, &device, &POOLS) };
    assert_eq!(answer(&request), Answer::Direct(Direct::AlreadyShared, None));
    // Private memory of an untrusted one is not, whatever an entry could carry.
    let device = translated(PLAIN);
    let pools = [pool(PoolLabel::GuestShared, 0x1000_0000)];
    let memory = Memory::Known(State::PRIVATE);
    let request = MapRequest { memory, ..ask(&snp, &device, &pools) };
    assert_eq!(answer(&request), Answer::Bounce(Bounce::PrivateMemory, vec![0]));
}

#[test]
fn an_external_facing_device_behind_a_domain_is_shown_whole_pages_of_memory() {
    let open = regime(PlatformName::Open);
    let pools = low_pool();
    let device = DeviceInfo { external_facing: true, ..translated(PLAIN) };
    let request = ask(&open, &device, &pools);
    assert_eq!(answer(&request), Answer::Direct(Direct::InReach, None));
    let shares = Answer::Bounce(Bounce::ExternalFacing, vec![0]);
    let part = MapRequest { place: at(0x4000_0800), ..request };
    assert_eq!(answer(&part), shares);
    // Where the IOMMU's page is larger, one of 4 KiB is a part.
    assert_eq!(answer(&MapRequest { align: 0x1_0000, ..request }), shares);
    // Registers share nothing with other data, and others are not asked.
    assert!(answer(&MapRequest { attrs: Attrs::MMIO, ..part }).is_direct());
    for device in [
        DeviceInfo { external_facing: true, ..PLAIN },
        DeviceInfo { external_facing: false, ..device },
    ] {
        assert!(answer(&MapRequest { device: &device, ..part }).is_direct());
    }
}

#[test]
fn a_mapping_is_as_long_as_a_segment_at_most() {
    let open = regime(PlatformName::Open);
    let pools = low_pool();
    for (len, direct) in [(4095, true), (4096, true), (4097, false), (8192, false)] {
        let limits = Limits { segment: Some(4096), ..Limits::NONE };
        let device = DeviceInfo { limits, ..PLAIN };
        let request = MapRequest { len, ..ask(&open, &device, &pools) };
        let refused = Answer::Refuse(Refuse::TooLarge);
        assert_eq!(answer(&request), if direct { in_reach(0x4000_0000) } else { refused }, "{len}");
    }
}

#[test]
fn a_domain_may_place_a_mapping_anew_but_for_the_low_bits_that_it_keeps() {
    let open = regime(PlatformName::Open);
    let pools = low_pool();
    let of = |min_align: u64, align, base, len| {
        let min_align = AlignMask::new(min_align).unwrap();
        let limits = Limits { boundary: Boundary::new(0x1_0000), min_align, ..Limits::NONE };
        let device = translated(DeviceInfo { limits, ..PLAIN });
        let place = at(base);
        answer(&MapRequest { place, len, align, ..ask(&open, &device, &pools) })
    };
    // What is kept: the offset in the IOMMU's page, at least.
    for (min_align, align, kept) in
        [(0, 1, 0x0800), (0xfff, 1, 0x0800), (0x3fff, 1, 0x2800), (0, 0x4000, 0x2800)]
    {
        // An address in the last page of a window, where the device would have it cross.
        let base = 0x4000_c000 + kept;
        assert!(of(min_align, align, base, 0x1_0000 - kept).is_direct(), "{min_align:#x}");
        assert!(!of(min_align, align, base, 0x1_0001 - kept).is_direct(), "{min_align:#x}");
    }
}

#[test]
fn without_a_domain_a_boundary_is_where_the_device_sees_it() {
    let open = regime(PlatformName::Open);
    let pools = low_pool();
    let limits = Limits { boundary: Boundary::new(0x1_0000), ..Limits::NONE };
    let device = DeviceInfo { limits, ..PLAIN };
    let of = |base| answer(&MapRequest { place: at(base), ..ask(&open, &device, &pools) });
    assert_eq!(of(0x4000_f000), in_reach(0x4000_f000));
    assert_eq!(of(0x4000_f001), Answer::Bounce(Bounce::Alignment, vec![0]));
}

#[test]
fn a_device_that_bypasses_the_caches_writes_whole_lines_alone() {
    let open = regime(PlatformName::Open);
    let pools = low_pool();
    let line = |bytes| DeviceInfo {
        coherent: false,
        limits: Limits { cache_line: CacheLine::new(bytes).unwrap(), ..Limits::NONE },
        ..PLAIN
    };
    let blind = line(64);
    let request = MapRequest {
        place: at(0x4000_0020),
        direction: Direction::FromDevice,
        ..ask(&open, &blind, &pools)
    };
    assert_eq!(answer(&request), Answer::Bounce(Bounce::Alignment, vec![0]));
    assert!(answer(&MapRequest { place: at(0x4000_0040), ..request }).is_direct(), "whole lines");
    assert!(!answer(&MapRequest { place: at(0x4000_0040), len: 4095, ..request }).is_direct());
    assert!(answer(&MapRequest { direction: Direction::ToDevice, ..request }).is_direct());
    assert!(answer(&MapRequest { attrs: Attrs::MMIO, ..request }).is_direct(), "registers");
    assert!(!answer(&MapRequest { attrs: Attrs::SKIP_CPU_SYNC, ..request }).is_direct(), "no sync");
    assert!(answer(&MapRequest { device: &PLAIN, ..request }).is_direct(), "coherent");
    assert!(answer(&MapRequest { device: &line(32), ..request }).is_direct(), "shorter lines");
    assert!(answer(&MapRequest { device: &line(1), ..request }).is_direct(), "no lines");
}

#[test]
fn a_mapping_begins_where_the_device_takes_addresses() {
    let open = regime(PlatformName::Open);
    let pools = low_pool();
    let limits = Limits { align: Alignment::new(4).unwrap(), ..Limits::NONE };
    let bare = DeviceInfo { limits, ..PLAIN };
    let shares = || Answer::Bounce(Bounce::Alignment, vec![0]);
    for (base, whole) in [(0x4000_0004, true), (0x4000_0002, false), (0x4000_0001, false)] {
        let request = MapRequest { place: at(base), len: 7, ..ask(&open, &bare, &pools) };
        assert_eq!(answer(&request), if whole { in_reach(base) } else { shares() });
        // No pool, no way.
        let alone = answer(&MapRequest { pools: &[], ..request });
        assert_eq!(alone.is_direct(), whole, "{base:#x}");
        // A domain keeps the place in the page.
        let device = translated(bare);
        assert_eq!(answer(&MapRequest { device: &device, ..request }).is_direct(), whole);
    }
    // It is the device's address that counts: on a bus that shifts memory by two bytes.
    let windows = [BusRange::new(range(0x4000_0000, 0x10_0000), 2).unwrap()];
    let device = DeviceInfo { bus: BusRanges::new(&windows), ..bare };
    let seen = |base| answer(&MapRequest { place: at(base), ..ask(&open, &device, &[]) });
    assert!(!seen(0x4000_0000).is_direct());
    assert!(seen(0x4000_0002).is_direct());
    // Behind an IOMMU of larger pages, bits above 4 KiB are in the page, too.
    let limits = Limits { align: Alignment::new(0x2000).unwrap(), ..Limits::NONE };
    let device = translated(DeviceInfo { limits, ..PLAIN });
    let request = MapRequest { place: at(0x4000_1000), ..ask(&open, &device, &pools) };
    assert!(answer(&request).is_direct(), "the domain places whole pages as it likes");
    assert_eq!(answer(&MapRequest { align: 0x4000, ..request }), shares());
}

#[test]
fn a_length_that_the_device_does_not_take_is_invalid_with_any_pool() {
    let open = regime(PlatformName::Open);
    let pools = low_pool();
    let limits = Limits { len_align: Alignment::new(4).unwrap(), ..Limits::NONE };
    let device = DeviceInfo { limits, ..PLAIN };
    for (len, good) in [(3, false), (4, true), (5, false), (4096, true), (u64::MAX, false)] {
        let request = MapRequest { len, ..ask(&open, &device, &pools) };
        let wanted = Answer::Refuse(Refuse::InvalidRange);
        assert_eq!(answer(&request), if good { in_reach(0x4000_0000) } else { wanted }, "{len}");
        let device = DeviceInfo { force_bounce: true, ..device };
        let bounced = answer(&MapRequest { device: &device, ..request });
        let wanted = Answer::Refuse(Refuse::InvalidRange);
        let bounce = Answer::Bounce(Bounce::Forced, vec![0]);
        assert_eq!(bounced, if good { bounce } else { wanted }, "{len}");
    }
}

#[test]
fn what_no_pool_could_hold_is_too_large_whatever_pools_there_are() {
    let open = regime(PlatformName::Open);
    let segment = Limits { segment: Some(4096), ..Limits::NONE };
    let boundary = Limits { boundary: Boundary::new(4096), ..Limits::NONE };
    for limits in [segment, boundary] {
        for force_bounce in [false, true] {
            let device = DeviceInfo { limits, force_bounce, ..PLAIN };
            let high =
                [pool(PoolLabel::Ordinary, 0x10_0000), pool(PoolLabel::Ordinary, 0x1000_0000)];
            for pools in [&high[..0], &high[..1], &high[..]] {
                let of = |len| answer(&MapRequest { len, ..ask(&open, &device, pools) });
                assert_eq!(of(4097), Answer::Refuse(Refuse::TooLarge), "{limits:?} {pools:?}");
                // What fits somewhere wants a pool, where it has to bounce.
                let wanted = match (force_bounce, pools.is_empty()) {
                    (true, true) => Answer::Refuse(Refuse::NoPool),
                    (true, false) => Answer::Bounce(Bounce::Forced, (0..pools.len()).collect()),
                    (false, _) => in_reach(0x4000_0000),
                };
                assert_eq!(of(4096), wanted, "{limits:?} {pools:?}");
            }
        }
    }
}
