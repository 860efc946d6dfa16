//! Which pools take a bounce or an allocation, in which order, and where in them.

use coco_dma::addr::AlignMask;
use coco_dma::addr::Boundary;
use coco_dma::state::State;

use super::*;

fn forced(device: DeviceInfo<'static>) -> DeviceInfo<'static> {
    DeviceInfo { force_bounce: true, ..device }
}

#[test]
fn every_label_has_its_state_and_its_devices() {
    use PoolLabel::{GuestPrivate, GuestShared, HostPlain, Ordinary};
    let pools: Vec<_> = (0x1000_0000..).step_by(0x10_0000).zip(PoolLabel::ALL).collect();
    let pools: Vec<_> = pools.into_iter().map(|(base, label)| pool(label, base)).collect();
    for (platform, device, wanted) in [
        (PlatformName::Open, PLAIN, vec![(Ordinary, State::Ordinary)]),
        (PlatformName::Sme, PLAIN, vec![(Ordinary, State::ENCRYPTED), (HostPlain, State::PLAIN)]),
        (PlatformName::Tdx, PLAIN, vec![(GuestShared, State::SHARED)]),
        (PlatformName::Tdx, ACCEPTED, vec![(GuestPrivate, State::PRIVATE)]),
    ] {
        let (regime, device) = (regime(platform), forced(device));
        let Plan::Bounce { pools: found, .. } = plan::map(&ask(&regime, &device, &pools), &mut ())
        else {
            panic!("{platform}: forced")
        };
        let found: Vec<_> =
            found.take(100).map(|one| (pools[one.index].label, one.state)).collect();
        assert_eq!(found, wanted, "{platform}");
    }
}

#[test]
fn the_label_that_fits_best_is_tried_first_whatever_the_order_given() {
    let sme = regime(PlatformName::Sme);
    let device = forced(PLAIN);
    let pools = [
        pool(PoolLabel::HostPlain, 0x1000_0000),
        pool(PoolLabel::Ordinary, 0x2000_0000),
        pool(PoolLabel::HostPlain, 0x3000_0000),
        pool(PoolLabel::Ordinary, 0x4000_0000),
    ];
    let place = at(0x8000_0000);
    let request = MapRequest { place, ..ask(&sme, &device, &pools) };
    assert_eq!(answer(&request), Answer::Bounce(Bounce::Forced, vec![1, 3, 0, 2]));
}

#[test]
fn a_restricted_pool_says_what_its_memory_is() {
    use PlatformName::{Open, Sme, Tdx};
    let direct = |reason, addr| Answer::Direct(reason, Some(addr));
    let here = 0x4000_0000;
    for (platform, device, label, wanted) in [
        (Open, PLAIN, PoolLabel::Ordinary, in_reach(here)),
        (Sme, PLAIN, PoolLabel::Ordinary, in_reach(here + (1 << 47))),
        (Sme, PLAIN, PoolLabel::HostPlain, in_reach(here)),
        (Tdx, PLAIN, PoolLabel::GuestShared, direct(Direct::AlreadyShared, here)),
        (Tdx, ACCEPTED, PoolLabel::GuestPrivate, in_reach(here)),
        (Tdx, PLAIN, PoolLabel::Ordinary, Answer::Refuse(Refuse::PoolLabelMismatch)),
    ] {
        let (regime, pools) = (regime(platform), [restricted(label, here)]);
        assert_eq!(answer(&ask(&regime, &device, &pools)), wanted, "{platform} {label}");
    }
}

#[test]
fn a_place_in_a_pool_is_as_long_as_a_segment_at_most() {
    let open = regime(PlatformName::Open);
    let pools = [pool(PoolLabel::Ordinary, 0x10_0000)];
    for (len, suits) in [(4095, true), (4096, true), (4097, false), (8192, false)] {
        let limits = Limits { segment: Some(4096), ..Limits::NONE };
        let device = forced(DeviceInfo { limits, ..PLAIN });
        let got = answer(&MapRequest { len, ..ask(&open, &device, &pools) });
        let bounce = Answer::Bounce(Bounce::Forced, vec![0]);
        assert_eq!(got, if suits { bounce } else { Answer::Refuse(Refuse::TooLarge) }, "{len}");
    }
}

/// How long a place is, how far apart places are and how far into one the mapping begins, for a
/// forced bounce behind a domain of pages of 4 KiB or of `page`.
fn pages(keep: u64, page: u64, base: u64, len: u64) -> Option<(u64, u64, u64)> {
    let open = regime(PlatformName::Open);
    let min_align = AlignMask::new(keep).unwrap();
    let limits = Limits { min_align, boundary: Boundary::new(0x1_0000), ..Limits::NONE };
    let device = forced(translated(DeviceInfo { limits, ..PLAIN }));
    let pools = [pool(PoolLabel::Ordinary, 0x100_0000)];
    let request = MapRequest { place: at(base), len, align: page, ..ask(&open, &device, &pools) };
    let Plan::Bounce { mut pools, .. } = plan::map(&request, &mut ()) else { return None };
    let found = pools.next().unwrap();
    Some((found.places.len(), found.places.from(1).unwrap(), found.pad))
}

#[test]
fn behind_a_domain_a_place_is_whole_pages_around_the_mapping() {
    for (keep, page, base, len, wanted) in [
        // Nothing is kept: the mapping begins where the place does.
        (0, 1, 0x4000_0123, 1, Some((0x1000, 0x1000, 0))),
        (0, 1, 0x4000_0123, 0x1000, Some((0x1000, 0x1000, 0))),
        (0, 1, 0x4000_0123, 0x1001, Some((0x2000, 0x1000, 0))),
        (0, 0x4000, 0x4000_0123, 1, Some((0x4000, 0x4000, 0))),
        // The low bits are kept, as far as they lie in the page.
        (0x1ff, 1, 0x4000_0723, 0x800, Some((0x1000, 0x1000, 0x123))),
        (0xfff, 1, 0x4000_0823, 0x7dd, Some((0x1000, 0x1000, 0x823))),
        (0xfff, 1, 0x4000_0823, 0x7de, Some((0x2000, 0x1000, 0x823))),
        (0x3fff, 1, 0x4000_6823, 0x7de, Some((0x2000, 0x1000, 0x823))),
        (0xfff, 0x4000, 0x4000_6823, 0x7de, Some((0x4000, 0x4000, 0x823))),
        // Where the kept bits and the length cross the boundary in any window, nothing suits.
        (0xfff, 1, 0x4000_0800, 0xf800, Some((0x1_0000, 0x1000, 0x800))),
        (0xfff, 1, 0x4000_0800, 0xf801, None),
        (0x3fff, 1, 0x4000_2800, 0xd801, None),
        (0x3fff, 1, 0x4000_4800, 0xf800, Some((0x1_0000, 0x1000, 0x800))),
    ] {
        assert_eq!(pages(keep, page, base, len), wanted, "{keep:#x} {page:#x} {base:#x} {len:#x}");
    }
}

#[test]
fn pools_lie_in_memory_and_wholly_in_reach() {
    let (sev, open) = (regime(PlatformName::Sev), regime(PlatformName::Open));
    let bounce = Answer::Bounce(Bounce::Forced, vec![0]);
    let device = forced(PLAIN);
    for (base, wanted) in [
        ((1 << 51) - 0x10_0000, bounce),
        ((1 << 51) - 0xf_f000, Answer::Refuse(Refuse::NoReachablePool)),
    ] {
        let pools = [pool(PoolLabel::GuestShared, base)];
        assert_eq!(answer(&ask(&sev, &device, &pools)), wanted, "{base:#x}");
        // Nor does a domain lead where no memory is.
        let device = translated(device);
        assert_eq!(answer(&ask(&sev, &device, &pools)), wanted, "{base:#x}");
    }
    let device = forced(short(32));
    for (base, suits) in [(0xfff0_0000, true), (0xfff0_1000, false), (0x1_0000_0000, false)] {
        let pools = [pool(PoolLabel::Ordinary, base)];
        let got = answer(&ask(&open, &device, &pools));
        assert_eq!(matches!(got, Answer::Bounce(..)), suits, "{base:#x}");
    }
}

#[test]
fn plain_memory_is_for_devices_that_cannot_carry_the_c_bit() {
    let sme = regime(PlatformName::Sme);
    let pools = [pool(PoolLabel::HostPlain, 0x1000_0000)];
    let short_of_it = short(47);
    let got = answer(&ask(&sme, &short_of_it, &pools));
    assert_eq!(got, Answer::Bounce(Bounce::BeyondMask, vec![0]));
    // A device that can has it by force alone: of a buffer that lies nowhere the cipher is kept.
    for device in [short(48), PLAIN, translated(short(47))] {
        let place = Place::Unlocated;
        let got = answer(&MapRequest { place, ..ask(&sme, &device, &pools) });
        assert_eq!(got, Answer::Refuse(Refuse::PoolLabelMismatch));
        let device = forced(device);
        let got = answer(&MapRequest { place, ..ask(&sme, &device, &pools) });
        assert_eq!(got, Answer::Bounce(Bounce::Forced, vec![0]));
    }
}

#[test]
fn a_pool_serves_what_it_is_for_and_the_reserve_goes_first_in_atomic_context() {
    let sme = regime(PlatformName::Sme);
    let of = |purpose, label, base| PoolInfo { purpose, ..pool(label, base) };
    let pools = [
        of(PoolUse::All, PoolLabel::Ordinary, 0x1000_0000),
        of(PoolUse::All, PoolLabel::HostPlain, 0x2000_0000),
        of(PoolUse::Streaming, PoolLabel::Ordinary, 0x3000_0000),
        of(PoolUse::Reserve, PoolLabel::HostPlain, 0x5000_0000),
        of(PoolUse::Reserve, PoolLabel::Ordinary, 0x6000_0000),
    ];
    let device = forced(PLAIN);
    let map = answer(&ask(&sme, &device, &pools));
    assert_eq!(map, Answer::Bounce(Bounce::Forced, vec![0, 2, 1]));
    let alloc = |context| {
        let request = AllocRequest { context, pages: false, ..ask_alloc(&sme, &PLAIN, &pools) };
        indexes(plan::alloc(&request, &mut ()).unwrap().pools.unwrap())
    };
    assert_eq!(alloc(Context::Blocking), [0, 1]);
    assert_eq!(alloc(Context::Atomic), [4, 3, 0, 1]);
}

#[test]
fn why_no_pool_suits_is_told_by_how_far_the_best_one_came() {
    use PoolLabel::{GuestPrivate, GuestShared, Ordinary};
    let tdx = regime(PlatformName::Tdx);
    let low = |label| pool_of(label, 0x1000_0000, 2048);
    let far = |label| pool(label, 0x10_0000_0000);
    let streaming = PoolInfo { purpose: PoolUse::Reserve, ..low(GuestShared) };
    let (untrusted, accepted) = (short(32), DeviceInfo { trust: Trust::Accepted, ..short(32) });
    for (device, pools, why) in [
        (&untrusted, vec![], Refuse::NoPool),
        (&untrusted, vec![streaming], Refuse::NoPool),
        (&untrusted, vec![low(GuestPrivate)], Refuse::PoolLabelMismatch),
        (&untrusted, vec![low(Ordinary), far(GuestShared)], Refuse::NoReachablePool),
        (&untrusted, vec![far(GuestShared), low(Ordinary)], Refuse::NoReachablePool),
        (&untrusted, vec![far(GuestShared), low(GuestShared)], Refuse::TooLarge),
        (&untrusted, vec![low(GuestShared), far(GuestShared)], Refuse::TooLarge),
        (&accepted, vec![low(GuestShared)], Refuse::NoPrivatePool),
        (&accepted, vec![low(Ordinary), low(GuestShared)], Refuse::PoolLabelMismatch),
        (&accepted, vec![low(GuestShared), low(Ordinary)], Refuse::PoolLabelMismatch),
        (&accepted, vec![far(GuestPrivate), low(GuestShared)], Refuse::NoReachablePool),
        (&accepted, vec![low(GuestPrivate), low(GuestShared)], Refuse::TooLarge),
    ] {
        // Above 4 GiB: out of reach whatever its state.
        let place = at(0x2_0000_0000);
        let request = MapRequest { place, ..ask(&tdx, device, &pools) };
        assert_eq!(answer(&request), Answer::Refuse(why), "{pools:?}");
    }
}
