//! What a decision tells whoever listens.

use coco_dma::addr::BusRange;
use coco_dma::addr::BusRanges;
use coco_dma::plan::Source;
use coco_dma::plan::Step;
use coco_dma::regime::WrongParameter;
use coco_dma::state::State;

use super::*;

fn story(request: &MapRequest<'_>) -> Vec<(&'static str, String)> {
    let mut steps = Vec::new();
    let mut trace = |step: Step| steps.push((step.rule().name(), step.to_string()));
    let _ = plan::map(request, &mut trace);
    steps
}

#[test]
fn each_rule_is_told_by_name_in_the_order_in_which_it_was_applied() {
    let open = regime(PlatformName::Open);
    let steps = story(&MapRequest { attrs: Attrs::NO_WARN, ..ask(&open, &PLAIN, &[]) });
    let rules: Vec<_> = steps.iter().map(|(rule, _)| *rule).collect();
    assert_eq!(rules, ["attributes", "range", "memory-state", "dma-form", "limit", "decision"]);
    assert!(steps[5].1.starts_with("direct (in-reach): "), "{steps:?}");
}

#[test]
fn the_sources_of_an_allocation_are_told_in_the_order_in_which_they_are_tried() {
    let (tdx, snp) = (regime(PlatformName::Tdx), regime(PlatformName::Snp));
    let shared = pool(PoolLabel::GuestShared, 0x9000_0000);
    let pools = [shared, PoolInfo { purpose: PoolUse::Coherent, ..shared }];
    let told = |request: &AllocRequest<'_>| {
        let mut sources = Vec::new();
        let mut trace = |step: Step| {
            if let Step::Source { place, source } = step {
                assert_eq!(place, sources.len());
                sources.push(source);
            }
        };
        let _ = plan::alloc(request, &mut trace);
        sources
    };
    let request = ask_alloc(&tdx, &PLAIN, &pools);
    let all = [Source::Reservoir { grow: true }, Source::Pages, Source::Pools];
    assert_eq!(told(&request), all);
    let atomic = AllocRequest { context: Context::Atomic, ..request };
    assert_eq!(told(&atomic), [Source::Reservoir { grow: false }, Source::Pools]);
    assert_eq!(told(&AllocRequest { pools: &pools[1..], ..request }), all[..2]);
    assert_eq!(told(&AllocRequest { pools: &[], ..request }), [Source::Pages]);
    assert_eq!(told(&ask_alloc(&snp, &ACCEPTED, &pools)), [Source::Pages], "another label");
}

#[test]
fn the_last_byte_is_told_against_the_limit_that_it_keeps_or_passes() {
    let open = regime(PlatformName::Open);
    let limit = |device: &DeviceInfo<'_>, place| {
        let steps = story(&MapRequest { place, ..ask(&open, device, &[]) });
        steps.into_iter().find(|(rule, _)| *rule == "limit").unwrap().1
    };
    let device = short(30);
    assert_eq!(
        limit(&device, at(0x3fff_f000)),
        "its last byte 0x3fffffff is within the mask, up to 0x3fffffff"
    );
    assert_eq!(
        limit(&device, at(0x3fff_f001)),
        "its last byte 0x40000000 is past the mask, up to 0x3fffffff"
    );
    let windows = [BusRange::new(range(0x4000_0000, 0x1000), 0x1000).unwrap()];
    let device = DeviceInfo { bus: BusRanges::new(&windows), ..short(13) };
    assert_eq!(
        limit(&device, at(0x4000_0000)),
        "its last byte 0x1fff is within the mask, up to 0x1fff"
    );
}

#[test]
fn a_wrong_parameter_is_told_with_the_number_given() {
    for (wrong, number) in [
        (WrongParameter::CBit(63), "63"),
        (WrongParameter::IpaBits(64), "64"),
        (WrongParameter::Gpaw(50), "50"),
        (WrongParameter::Vtom(3), "0x3"),
        (WrongParameter::Granule(5), "0x5"),
    ] {
        assert!(wrong.to_string().ends_with(&format!(", not {number}")), "{wrong}");
    }
}

#[test]
fn an_attribute_that_is_not_taken_is_told_with_the_reason() {
    for (attrs, why) in [
        (Attrs::WRITE_COMBINE, "another kind"),
        (Attrs::NO_KERNEL_MAPPING, "another kind"),
        (Attrs::FORCE_CONTIGUOUS, "another kind"),
        (Attrs::ALLOC_SINGLE_PAGES, "another kind"),
        (Attrs::ALLOC_CC_SHARED, "Linux's own mark"),
        (Attrs::CC_SHARED, "asserts"),
        (Attrs::MMIO, "registers"),
        (Attrs::REQUIRE_COHERENT, "about a map"),
        // The first of several is the one that is told.
        (Attrs::MMIO.with(Attrs::FORCE_CONTIGUOUS), "another kind"),
        (Attrs::MMIO.with(Attrs::CC_SHARED), "registers"),
    ] {
        assert!(attrs.why_not().contains(why), "{attrs}: {}", attrs.why_not());
    }
}

#[test]
fn sources_are_told_one_after_another() {
    let tdx = regime(PlatformName::Tdx);
    let reservoir = pool(PoolLabel::GuestShared, 0x1000_0000);
    let reservoir = PoolInfo { purpose: PoolUse::Coherent, ..reservoir };
    let pools = [reservoir, pool(PoolLabel::GuestShared, 0x2000_0000)];
    let mut told = Vec::new();
    let mut trace = |step| {
        if matches!(step, Step::Source { .. }) {
            told.push(step.to_string());
        }
    };
    let plan = plan::alloc(&ask_alloc(&tdx, &PLAIN, &pools), &mut trace).unwrap();
    assert!(plan.reservoir.is_some() && plan.pages.is_some() && plan.pools.is_ok());
    let firsts: Vec<_> = told.iter().map(|told| told.starts_with("allocate ")).collect();
    assert_eq!(firsts, [true, false, false], "{told:?}");
}

#[test]
fn the_order_of_pools_is_told_where_there_is_one() {
    let tdx = regime(PlatformName::Tdx);
    let pools = [0x1000_0000, 0x2000_0000].map(|base| pool(PoolLabel::GuestShared, base));
    let device = DeviceInfo { node: Some(0), ..PLAIN };
    let pools = [PoolInfo { node: Some(1), ..pools[0] }, PoolInfo { node: Some(0), ..pools[1] }];
    let two = vec![
        "1. guest-shared at 0x20000000..=0x200fffff: the machine's".to_owned(),
        "2. guest-shared at 0x10000000..=0x100fffff: the machine's, on another node".to_owned(),
    ];
    for (pools, told) in [(&pools[..1], vec![]), (&pools[..], two)] {
        let steps = story(&ask(&tdx, &device, pools));
        let order = steps.into_iter().filter(|(rule, _)| *rule == "pool-order");
        let order: Vec<_> = order.map(|(_, text)| text).collect();
        assert_eq!(order, told);
    }
}

#[test]
fn whether_the_cpu_caches_a_mapping_is_told_with_the_bits() {
    let tdx = regime(PlatformName::Tdx);
    for (coherent, attrs, state, told) in [
        (true, Attrs::NONE, State::SHARED, ["0x8000000000000", "and it is cached"]),
        (false, Attrs::NONE, State::SHARED, ["0x8000000000000", "not cached"]),
        (false, Attrs::WRITE_COMBINE, State::PRIVATE, ["no mark", "writes are combined"]),
    ] {
        let mut text = String::new();
        let mut trace = |step: Step| text = step.to_string();
        plan::protection(&tdx, state, coherent, attrs, &mut trace).unwrap();
        assert!(told.iter().all(|part| text.contains(part)), "{text}");
    }
}
