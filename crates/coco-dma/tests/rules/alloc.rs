//! Where an allocation comes from.

use coco_dma::state::{CacheMode, State};

use super::*;

/// The state of the pages and whether they convert, and how many pools follow; or why nothing.
type Sources = Result<(Option<(State, bool)>, usize), Refuse>;

fn sources(request: &AllocRequest<'_>) -> Sources {
    plan::alloc(request, &mut ()).map(|plan| {
        let pages = plan.pages.map(|pages| (pages.state, pages.convert));
        (pages, plan.pools.map_or(0, |pools| indexes(pools).len()))
    })
}

#[test]
fn an_allocation_takes_attributes_of_allocations_alone() {
    let open = regime(PlatformName::Open);
    let of = |attrs| sources(&AllocRequest { attrs, ..ask_alloc(&open, &PLAIN, &[]) });
    let pages = Ok((Some((State::Ordinary, false)), 0));
    assert_eq!(of(Attrs::WRITE_COMBINE), pages);
    assert_eq!(of(Attrs::CC_SHARED), Err(Refuse::BadAttribute));
    assert_eq!(of(Attrs::WRITE_COMBINE.with(Attrs::CC_SHARED)), Err(Refuse::BadAttribute));
}

#[test]
fn an_allocation_is_not_empty_and_aligned_to_a_power_of_two() {
    let open = regime(PlatformName::Open);
    for (len, align, good) in [(1, 1, true), (0, 1, false), (1, 3, false), (1, 0, false)] {
        let request = AllocRequest { len, align, ..ask_alloc(&open, &PLAIN, &[]) };
        let refused = sources(&request) == Err(Refuse::InvalidRange);
        assert_eq!(refused, !good, "{len} {align}");
    }
}

#[test]
fn accepted_devices_exist_on_some_platforms_alone() {
    for (platform, device, wanted) in [
        (PlatformName::Sev, &ACCEPTED, Err(Refuse::TrustLost)),
        (PlatformName::Open, &ACCEPTED, Err(Refuse::TrustLost)),
        (PlatformName::Sev, &PLAIN, Ok((Some((State::SHARED, true)), 0))),
        (PlatformName::Tdx, &PLAIN, Ok((Some((State::SHARED, true)), 0))),
        (PlatformName::Tdx, &ACCEPTED, Ok((Some((State::PRIVATE, false)), 0))),
    ] {
        let regime = regime(platform);
        assert_eq!(sources(&ask_alloc(&regime, device, &[])), wanted, "{platform}");
    }
}

#[test]
fn atomic_context_takes_what_is_in_the_right_state_already() {
    let tdx = regime(PlatformName::Tdx);
    let pools = [pool(PoolLabel::GuestShared, 0x1000_0000)];
    let (atomic, blocking) = (Context::Atomic, Context::Blocking);
    let converted = Some((State::SHARED, true));
    for (device, context, pages, pools, wanted) in [
        (&PLAIN, blocking, true, &pools[..], Ok((converted, 1))),
        (&PLAIN, atomic, true, &pools, Ok((None, 1))),
        (&PLAIN, atomic, true, &[], Err(Refuse::AtomicNeedsConversion)),
        (&PLAIN, atomic, false, &[], Err(Refuse::NoPool)),
        (&PLAIN, blocking, false, &[], Err(Refuse::NoPool)),
        (&ACCEPTED, atomic, true, &[], Ok((Some((State::PRIVATE, false)), 0))),
        // There are pools, and why they do not suit is the reason.
        (&ACCEPTED, atomic, false, &pools, Err(Refuse::NoPrivatePool)),
    ] {
        let request = AllocRequest { context, pages, ..ask_alloc(&tdx, device, pools) };
        assert_eq!(sources(&request), wanted, "{device:?} {context:?} {pages}");
    }
}

#[test]
fn with_a_restricted_pool_there_are_no_other_pages() {
    let tdx = regime(PlatformName::Tdx);
    let pools = [restricted(PoolLabel::GuestShared, 0x1000_0000)];
    assert_eq!(sources(&ask_alloc(&tdx, &PLAIN, &pools)), Ok((None, 1)));
    let none = [PoolInfo { purpose: PoolUse::Streaming, ..pools[0] }];
    assert_eq!(sources(&ask_alloc(&tdx, &PLAIN, &none)), Err(Refuse::NoPool));
}

#[test]
fn pages_of_an_sme_host_are_plain_for_devices_that_cannot_carry_the_c_bit() {
    let sme = regime(PlatformName::Sme);
    let encrypted = Ok((Some((State::ENCRYPTED, false)), 0));
    let plain = Ok((Some((State::PLAIN, true)), 0));
    for (device, wanted) in [
        (short(11), Err(Refuse::NoPool)),
        (short(32), plain),
        (short(47), plain),
        (short(48), encrypted),
        (PLAIN, encrypted),
        (translated(short(32)), encrypted),
    ] {
        assert_eq!(sources(&ask_alloc(&sme, &device, &[])), wanted, "{device:?}");
    }
    let atomic = AllocRequest { context: Context::Atomic, ..ask_alloc(&sme, &PLAIN, &[]) };
    assert_eq!(sources(&atomic), encrypted);
    let narrow = short(32);
    let atomic = AllocRequest { context: Context::Atomic, ..ask_alloc(&sme, &narrow, &[]) };
    assert_eq!(sources(&atomic), Err(Refuse::AtomicNeedsConversion));
}

#[test]
fn the_reservoir_goes_first_where_it_spares_the_conversion_of_less_than_a_large_page() {
    let tdx = regime(PlatformName::Tdx);
    let of = |purpose, label, base| PoolInfo { purpose, ..pool_of(label, base, 4 << 20) };
    let shared = |purpose, base| of(purpose, PoolLabel::GuestShared, base);
    let pools = [
        shared(PoolUse::All, 0x1000_0000),
        PoolInfo { own: true, ..shared(PoolUse::Reserve, 0x2000_0000) },
        shared(PoolUse::Coherent, 0x3000_0000),
        of(PoolUse::Coherent, PoolLabel::GuestPrivate, 0x4000_0000),
        of(PoolUse::All, PoolLabel::GuestPrivate, 0x5000_0000),
    ];
    let large = plan::LARGE_PAGE;
    let (atomic, blocking) = (Context::Atomic, Context::Blocking);
    for (device, len, context, pages, first, grow, rest) in [
        (&PLAIN, large - 4096, blocking, true, vec![2], true, vec![0]),
        (&PLAIN, large, blocking, true, vec![], false, vec![2, 0]),
        (&PLAIN, large, blocking, false, vec![2], true, vec![0]),
        (&PLAIN, 4096, atomic, true, vec![2], false, vec![1, 0]),
        // What needs no conversion leaves it to others.
        (&ACCEPTED, 4096, blocking, true, vec![], false, vec![3, 4]),
    ] {
        let request = AllocRequest { len, context, pages, ..ask_alloc(&tdx, device, &pools) };
        let plan = plan::alloc(&request, &mut ()).unwrap();
        let grows = plan.reservoir.is_some_and(|reservoir| reservoir.grow);
        let kept = plan.reservoir.map_or(vec![], |reservoir| indexes(reservoir.pools));
        assert_eq!((kept, grows), (first, grow), "{len:#x} {context:?} {pages}");
        assert_eq!(indexes(plan.pools.unwrap()), rest, "{len:#x} {context:?} {pages}");
    }
}

#[test]
fn pages_that_convert_are_whole_granules() {
    let numbers = Parameters { granule: Some(0x1_0000), ..Parameters::default() };
    let cca = PlatformName::Cca.regime(&numbers).unwrap();
    for (device, len, align, wanted) in [
        (&PLAIN, 4096, 4096, Some((0x1_0000, 0x1_0000))),
        (&PLAIN, 0x1_0001, 4096, Some((0x2_0000, 0x2_0000))),
        (&PLAIN, 4096, 0x2_0000, Some((0x1_0000, 0x2_0000))),
        (&PLAIN, u64::MAX, 4096, None),
        (&ACCEPTED, 4097, 4096, Some((8192, 8192))),
    ] {
        let request = AllocRequest { len, align, ..ask_alloc(&cca, device, &[]) };
        let plan = plan::alloc(&request, &mut ());
        let pages = plan.ok().and_then(|plan| plan.pages).map(|pages| (pages.len, pages.align));
        assert_eq!(pages, wanted, "{len:#x} {align:#x}");
    }
}

#[test]
fn pages_of_our_own_are_as_long_as_what_is_in_reach_at_most() {
    let open = regime(PlatformName::Open);
    // 13 bits reach two pages.
    let device = short(13);
    for (len, last) in [(0x1000, Some(0x1fff)), (0x2000, Some(0x1fff)), (0x2001, None)] {
        let plan = plan::alloc(&AllocRequest { len, ..ask_alloc(&open, &device, &[]) }, &mut ());
        let pages = plan.map(|plan| {
            let mut queries = plan.pages.unwrap().queries(&open, &device, Context::Blocking);
            queries.next().unwrap().constraints.last.raw()
        });
        assert_eq!(pages, last.ok_or(Refuse::NoPool), "{len:#x}");
    }
}

#[test]
fn an_allocation_is_aligned_to_its_length_rounded_up_and_to_what_is_asked_for() {
    let open = regime(PlatformName::Open);
    for (len, page, align, wanted) in [
        (1, 4096, 1, (4096, 4096)),
        (4096, 4096, 1, (4096, 4096)),
        (4097, 4096, 1, (8192, 8192)),
        (0x3000, 4096, 1, (0x3000, 0x4000)),
        (0x3000, 4096, 0x4000, (0x3000, 0x4000)),
        (0x3000, 4096, 0x8000, (0x3000, 0x8000)),
        // The page of an IOMMU may be longer.
        (0x3000, 0x1_0000, 1, (0x1_0000, 0x1_0000)),
    ] {
        let request = AllocRequest { len, page, align, ..ask_alloc(&open, &PLAIN, &[]) };
        let plan = plan::alloc(&request, &mut ()).unwrap();
        let got = (plan.extent.len, plan.extent.align);
        assert_eq!(got, wanted, "{len:#x} {page:#x} {align:#x}");
        let pages = plan.pages.unwrap();
        assert_eq!((pages.len, pages.align), wanted, "{len:#x} {page:#x} {align:#x}");
    }
}

#[test]
fn an_allocation_is_no_longer_than_the_boundary_but_may_be_longer_than_the_segment() {
    let boundary = coco_dma::addr::Boundary::new(0x1_0000);
    let device =
        DeviceInfo { limits: Limits { boundary, segment: Some(4096), ..Limits::NONE }, ..PLAIN };
    for (device, platform, pools) in [
        (device, PlatformName::Open, vec![]),
        (translated(device), PlatformName::Open, vec![]),
        (device, PlatformName::Tdx, vec![pool(PoolLabel::GuestShared, 0x1000_0000)]),
    ] {
        let regime = regime(platform);
        let of = |len, pages| {
            let request = AllocRequest { len, pages, ..ask_alloc(&regime, &device, &pools) };
            plan::alloc(&request, &mut ()).map(|_| ())
        };
        for pages in [true, false].into_iter().take(1 + pools.len()) {
            assert_eq!(of(0x1_0000, pages), Ok(()), "{platform} {pages}");
            assert_eq!(of(0x1_0001, pages), Err(Refuse::TooLarge), "{platform} {pages}");
        }
    }
}

#[test]
fn a_place_in_a_pool_is_aligned_as_the_device_sees_it() {
    let open = regime(PlatformName::Open);
    let shown = coco_dma::addr::BusRange::new(range(0x1000_0000, 0x100_0000), 0x5000).unwrap();
    let windows = [shown];
    let bus = coco_dma::addr::BusRanges::new(&windows);
    let device = DeviceInfo { bus, ..PLAIN };
    let pools = [pool(PoolLabel::Ordinary, 0x1000_0000)];
    for (device, len, align, wanted) in [
        (&PLAIN, 0x3000, 1, 0),
        (&device, 0x1000, 1, 0),
        (&device, 0x3000, 1, 0x3000),
        (&device, 0x1000, 0x1_0000, 0xb000),
    ] {
        let request = AllocRequest { len, align, pages: false, ..ask_alloc(&open, device, &pools) };
        let plan = plan::alloc(&request, &mut ()).unwrap();
        let place = plan.pools.unwrap().next().unwrap();
        assert_eq!(place.places.lowest(), wanted, "{len:#x} {align:#x}");
    }
}

#[test]
fn the_cpu_does_not_cache_coherent_memory_that_the_device_sees_past_the_caches() {
    use coco_dma::plan::AllocKind::{Coherent, NonContiguous, Pages};
    let open = regime(PlatformName::Open);
    let blind = DeviceInfo { coherent: false, ..PLAIN };
    for (kind, device, attrs, wanted) in [
        (Coherent, PLAIN, Attrs::NONE, CacheMode::WriteBack),
        (Coherent, PLAIN, Attrs::WRITE_COMBINE, CacheMode::WriteBack),
        (Coherent, blind, Attrs::NONE, CacheMode::Uncached),
        (Coherent, translated(blind), Attrs::NONE, CacheMode::Uncached),
        (Coherent, blind, Attrs::WRITE_COMBINE, CacheMode::WriteCombine),
        (Pages, blind, Attrs::NONE, CacheMode::WriteBack),
        (NonContiguous, blind, Attrs::NONE, CacheMode::WriteBack),
    ] {
        let request = AllocRequest { kind, attrs, ..ask_alloc(&open, &device, &[]) };
        assert_eq!(plan::alloc(&request, &mut ()).unwrap().cache, wanted, "{kind:?} {attrs}");
    }
}

#[test]
fn registers_are_seen_as_the_host_shows_them_and_never_cached() {
    for (platform, state) in [
        (PlatformName::Open, State::Ordinary),
        (PlatformName::Sme, State::PLAIN),
        (PlatformName::Snp, State::SHARED),
        (PlatformName::S390, State::SHARED),
    ] {
        assert_eq!(plan::registers(&regime(platform)), (state, CacheMode::Uncached), "{platform}");
    }
}

fn asked_for_a_view<'a>(regime: &'a Regime, memory: Memory, attrs: Attrs) -> ViewRequest<'a> {
    let (place, trust) = (at(0x4000_0000), Trust::Untrusted);
    ViewRequest { regime, place, len: 4096, memory, trust, coherent: true, attrs }
}

#[test]
fn registers_are_uncached_and_the_hosts_whoever_asks_for_their_protection() {
    let marks = [
        (PlatformName::Open, 0),
        (PlatformName::Sme, 0),
        (PlatformName::Sev, 0),
        (PlatformName::Tdx, 1 << 51),
        (PlatformName::Cca, 1 << 47),
    ];
    for (platform, mark) in marks {
        let regime = regime(platform);
        let every = [Attrs::NONE, Attrs::MMIO, Attrs::MMIO.with(Attrs::CC_SHARED)];
        for attrs in every
            .into_iter()
            .filter(|attrs| platform != PlatformName::Sme || !attrs.contains(Attrs::CC_SHARED))
        {
            let request = asked_for_a_view(&regime, Memory::Mmio, attrs);
            let seen = plan::view(&request, &mut ()).unwrap().protection;
            assert_eq!((seen.mark, seen.cache), (mark, CacheMode::Uncached), "{platform} {attrs}");
        }
    }
    // Private registers are an accepted device's own.
    let sev = regime(PlatformName::Snp);
    let request =
        ViewRequest { trust: Trust::Accepted, ..asked_for_a_view(&sev, Memory::Mmio, Attrs::MMIO) };
    let seen = plan::view(&request, &mut ()).unwrap().protection;
    assert_eq!((seen.mark, seen.cache), (1 << 51, CacheMode::Uncached));
    let shared = ViewRequest { attrs: Attrs::MMIO.with(Attrs::CC_SHARED), ..request };
    assert_eq!(plan::view(&shared, &mut ()).unwrap().protection.mark, 0);
}

#[test]
fn memory_that_nobody_may_touch_as_it_is_has_no_view() {
    let tdx = regime(PlatformName::Tdx);
    for (memory, attrs, why) in [
        (Memory::Peer, Attrs::NONE, Refuse::PeerToPeer),
        (Memory::Peer, Attrs::MMIO.with(Attrs::CC_SHARED), Refuse::PeerToPeer),
        (Memory::Unaccepted, Attrs::NONE, Refuse::Unaccepted),
        (Memory::Quarantined, Attrs::NONE, Refuse::Quarantined),
        (Memory::Converting, Attrs::NONE, Refuse::Busy),
        (Memory::Mixed, Attrs::NONE, Refuse::MixedRun),
        (Memory::Known(State::PRIVATE), Attrs::CC_SHARED, Refuse::AttributeContradictsLedger),
        (Memory::Known(State::SHARED), Attrs::MMIO, Refuse::AttributeContradictsLedger),
        (Memory::Known(State::SHARED), Attrs::REQUIRE_COHERENT, Refuse::BadAttribute),
    ] {
        let request = asked_for_a_view(&tdx, memory, attrs);
        assert_eq!(plan::view(&request, &mut ()), Err(why), "{memory} {attrs}");
    }
    let request = asked_for_a_view(&tdx, Memory::Untracked, Attrs::NONE);
    let nowhere = ViewRequest { place: Place::Unlocated, ..request };
    assert_eq!(plan::view(&nowhere, &mut ()), Err(Refuse::Unlocated));
    assert_eq!(plan::view(&ViewRequest { len: 0, ..request }, &mut ()), Err(Refuse::InvalidRange));
    assert_eq!(plan::view(&request, &mut ()).unwrap().protection.mark, 0);
}

#[test]
fn the_driver_syncs_what_is_cached_past_the_device_and_only_a_domain_joins_runs() {
    use coco_dma::plan::AllocKind::{Coherent, NonContiguous, Pages};
    let open = regime(PlatformName::Open);
    let blind = DeviceInfo { coherent: false, ..PLAIN };
    for (kind, device, wanted) in [
        (Coherent, PLAIN, (false, false)),
        (Coherent, translated(blind), (false, false)),
        (Pages, PLAIN, (false, false)),
        (Pages, translated(blind), (true, false)),
        (NonContiguous, blind, (true, false)),
        (NonContiguous, translated(PLAIN), (false, true)),
    ] {
        let request = AllocRequest { kind, ..ask_alloc(&open, &device, &[]) };
        let plan = plan::alloc(&request, &mut ()).unwrap();
        assert_eq!((plan.needs_sync, plan.scattered), wanted, "{kind:?}");
    }
}
