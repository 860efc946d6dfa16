//! What the memory is, whether the request makes sense, and what comes of it.

use coco_dma::plan::Step;
use coco_dma::state::State;

use super::*;

#[test]
fn attributes_are_told_where_there_are_any() {
    let open = regime(PlatformName::Open);
    for (attrs, told) in [(Attrs::NONE, 0), (Attrs::NO_WARN, 1)] {
        let mut count = 0;
        let mut trace = |step| count += usize::from(matches!(step, Step::Attributes(_)));
        let _ = plan::map(&MapRequest { attrs, ..ask(&open, &PLAIN, &[]) }, &mut trace);
        assert_eq!(count, told, "{attrs}");
    }
}

#[test]
fn a_map_takes_no_attribute_of_allocations() {
    let open = regime(PlatformName::Open);
    let of = |attrs| answer(&MapRequest { attrs, ..ask(&open, &PLAIN, &[]) });
    assert_eq!(of(Attrs::WRITE_COMBINE), Answer::Refuse(Refuse::BadAttribute));
    assert_eq!(of(Attrs::WEAK_ORDERING), in_reach(0x4000_0000));
}

#[test]
fn memory_in_no_single_run_bounces_unless_it_is_empty() {
    let open = regime(PlatformName::Open);
    let pools = [pool(PoolLabel::Ordinary, 0x1000_0000)];
    let request = MapRequest { place: Place::Unlocated, ..ask(&open, &PLAIN, &pools) };
    assert_eq!(answer(&request), Answer::Bounce(Bounce::Unlocated, vec![0]));
    let empty = MapRequest { len: 0, ..request };
    assert_eq!(answer(&empty), Answer::Refuse(Refuse::InvalidRange));
}

#[test]
fn memory_ends_below_the_first_mark() {
    for (platform, device) in [(PlatformName::Tdx, &ACCEPTED), (PlatformName::Sev, &PLAIN)] {
        let regime = regime(platform);
        let memory = Memory::Known(if device.trust == Trust::Accepted {
            State::PRIVATE
        } else {
            State::SHARED
        });
        let last = (1 << 51) - 4096;
        let request = MapRequest { place: at(last), memory, ..ask(&regime, device, &[]) };
        assert!(matches!(answer(&request), Answer::Direct(_, Some(addr)) if addr == last));
        let past = MapRequest { place: at(last + 1), ..request };
        assert_eq!(answer(&past), Answer::Refuse(Refuse::InvalidRange));
        let far = MapRequest { place: at(1 << 60), ..request };
        assert_eq!(answer(&far), Answer::Refuse(Refuse::InvalidRange));
    }
}

#[test]
fn memory_of_an_sme_host_that_nobody_tracks_is_behind_the_cipher() {
    let sme = regime(PlatformName::Sme);
    let request = ask(&sme, &PLAIN, &[]);
    assert_eq!(answer(&request), in_reach(0x4000_0000 + (1 << 47)));
    // Registers are not: no memory controller stands before them.
    for memory in [Memory::Untracked, Memory::Mmio] {
        let registers = MapRequest { attrs: Attrs::MMIO, memory, ..request };
        assert_eq!(answer(&registers), in_reach(0x4000_0000), "{memory}");
    }
}

#[test]
fn the_attribute_and_the_ledger_agree_on_what_is_registers() {
    let contradicts = || Answer::Refuse(Refuse::AttributeContradictsLedger);
    let (tdx, sme) = (regime(PlatformName::Tdx), regime(PlatformName::Sme));
    let shared_registers = Attrs::MMIO.with(Attrs::CC_SHARED);
    for (regime, state, attrs) in
        [(&tdx, State::SHARED, shared_registers), (&sme, State::PLAIN, Attrs::MMIO)]
    {
        let memory = Memory::Known(state);
        let request = MapRequest { memory, attrs, ..ask(regime, &PLAIN, &[]) };
        assert_eq!(answer(&request), contradicts(), "{state}");
        let memory = Memory::Mmio;
        assert!(answer(&MapRequest { memory, ..request }).is_direct(), "{state}");
        let silent = MapRequest { memory, attrs: attrs.without(Attrs::MMIO), ..request };
        assert!(answer(&silent).is_direct(), "{state}");
        let peer = MapRequest { memory: Memory::Peer, ..silent };
        // In a guest it is a peer's, whatever the caller says.
        let guest = Answer::Refuse(Refuse::PeerToPeer);
        assert_eq!(answer(&peer), if regime.is_guest() { guest } else { contradicts() });
    }
}

#[test]
fn known_registers_are_never_bounced_whether_the_caller_says_it_or_not() {
    let forced = DeviceInfo { force_bounce: true, ..PLAIN };
    for (platform, label) in [
        (PlatformName::Open, PoolLabel::Ordinary),
        (PlatformName::Sme, PoolLabel::Ordinary),
        (PlatformName::Sev, PoolLabel::GuestShared),
    ] {
        let regime = regime(platform);
        let pools = [pool(label, 0x9000_0000)];
        let shared = if regime.is_guest() { Attrs::CC_SHARED } else { Attrs::NONE };
        for attrs in [shared, shared.with(Attrs::MMIO)] {
            let request =
                MapRequest { memory: Memory::Mmio, attrs, ..ask(&regime, &forced, &pools) };
            assert_eq!(answer(&request), Answer::Refuse(Refuse::MmioCannotBounce), "{platform}");
        }
    }
}

#[test]
fn registers_are_what_the_attribute_says_even_among_the_addresses_of_a_restricted_pool() {
    let tdx = regime(PlatformName::Tdx);
    let pools = [restricted(PoolLabel::GuestShared, 0x4000_0000)];
    let request = MapRequest { attrs: Attrs::MMIO, ..ask(&tdx, &PLAIN, &pools) };
    assert_eq!(answer(&request), Answer::Refuse(Refuse::PrivateMmio));
}

#[test]
fn an_assertion_that_holds_changes_nothing_and_one_that_does_not_is_refused() {
    let tdx = regime(PlatformName::Tdx);
    let of = |state| {
        let memory = Memory::Known(state);
        answer(&MapRequest { memory, attrs: Attrs::CC_SHARED, ..ask(&tdx, &PLAIN, &[]) })
    };
    assert_eq!(of(State::SHARED), Answer::Direct(Direct::AlreadyShared, Some(0x4000_0000)));
    assert_eq!(of(State::PRIVATE), Answer::Refuse(Refuse::AttributeContradictsLedger));
}

#[test]
fn shared_memory_for_which_there_is_neither_address_nor_pool_is_unreachable_and_not_too_large() {
    let snp = regime(PlatformName::Snp);
    let private = [pool_of(PoolLabel::GuestPrivate, 0x1000_0000, 4096)];
    let shared = [pool(PoolLabel::GuestShared, 0x1000_0000)];
    let of = |len, pools| {
        let memory = Memory::Known(State::SHARED);
        answer(&MapRequest { len, memory, ..ask(&snp, &ACCEPTED, pools) })
    };
    assert_eq!(of(4096, &private), Answer::Bounce(Bounce::SharedUnreachable, vec![0]));
    assert_eq!(of(4097, &private), Answer::Refuse(Refuse::TooLarge));
    assert_eq!(of(4096, &shared), Answer::Refuse(Refuse::SharedUnreachable));
    assert_eq!(of(4096, &[]), Answer::Refuse(Refuse::SharedUnreachable));
}

#[test]
fn an_attached_device_need_not_see_the_caches_unless_it_has_to() {
    let open = regime(PlatformName::Open);
    let blind = DeviceInfo { coherent: false, ..PLAIN };
    assert!(plan::attach(&ask(&open, &PLAIN, &[]), &mut ()).is_ok());
    let attached = plan::attach(&ask(&open, &blind, &[]), &mut ());
    assert!(attached.unwrap().cache_work);
    let strict = MapRequest { attrs: Attrs::REQUIRE_COHERENT, ..ask(&open, &blind, &[]) };
    assert_eq!(plan::attach(&strict, &mut ()).err(), Some(Refuse::RequireCoherent));
}
