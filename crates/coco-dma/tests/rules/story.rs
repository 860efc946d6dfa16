//! What a decision tells whoever listens.

use coco_dma::addr::BusRange;
use coco_dma::addr::BusRanges;
use coco_dma::plan::Step;
use coco_dma::regime::WrongParameter;

use super::*;

fn story(request: &MapRequest<'_>) -> Vec<(&'static str, String)> {
    let mut steps = Vec::new();
    let mut trace = |step: Step| steps.push((step.rule(), step.to_string()));
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
fn the_last_byte_is_told_against_the_limit_that_it_keeps_or_passes() {
    let open = regime(PlatformName::Open);
    let limit = |device: &DeviceFace<'_>, place| {
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
    let device = DeviceFace { bus: BusRanges::new(&windows), ..short(13) };
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
