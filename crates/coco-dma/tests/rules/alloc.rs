//! Where an allocation comes from.

use coco_dma::state::State;

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
    let none = [PoolFace { purpose: PoolUse::Streaming, ..pools[0] }];
    assert_eq!(sources(&ask_alloc(&tdx, &PLAIN, &none)), Err(Refuse::NoPool));
}

#[test]
fn pages_of_an_sme_host_are_for_devices_that_carry_the_c_bit() {
    let sme = regime(PlatformName::Sme);
    let pages = Ok((Some((State::ENCRYPTED, false)), 0));
    for (device, wanted) in [
        (short(47), Err(Refuse::NoPool)),
        (short(48), pages),
        (PLAIN, pages),
        (translated(short(32)), pages),
    ] {
        assert_eq!(sources(&ask_alloc(&sme, &device, &[])), wanted, "{device:?}");
    }
}
