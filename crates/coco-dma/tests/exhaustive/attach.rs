//! Heaps: a device touches what it attaches to where it lies, or does not attach.

use coco_dma::addr::{PhysAddr, PhysRange};
use coco_dma::attrs::Attrs;
use coco_dma::plan::{self, DeviceInfo, Limits, MapRequest, Place, Plan, PoolInfo, Step};
use coco_dma::reason::{Bounce, Refuse};
use coco_dma::regime::{Parameters, PlatformName};
use coco_dma::state::{Attachment, Direction, Memory, PoolLabel, State, Trust};

use super::table::form;

/// Why a map of this would have to bounce, by what the steps found.
fn wanted(request: &MapRequest<'_>) -> Option<Bounce> {
    let mut reason = None;
    let _ = plan::attach(request, &mut |step: Step| match step {
        Step::Restricted { inside: false } => reason = Some(Bounce::RestrictedPool),
        Step::Forced => reason = Some(Bounce::Forced),
        Step::Reach { state: State::PRIVATE, reached: false, .. } => {
            reason = Some(Bounce::PrivateMemory);
        }
        Step::Reach { reached: false, .. } => reason = Some(Bounce::SharedUnreachable),
        Step::Limit { last, limit, by_bus: false }
            if last.is_none_or(|last| last.raw() > limit.raw()) =>
        {
            reason = Some(Bounce::BeyondMask);
        }
        _ => {}
    });
    reason
}

const MEMORIES: [Memory; 7] = [
    Memory::Known(State::PRIVATE),
    Memory::Known(State::SHARED),
    Memory::Known(State::ENCRYPTED),
    Memory::Known(State::PLAIN),
    Memory::Untracked,
    Memory::Mixed,
    Memory::Mmio,
];

#[test]
fn every_attachment() {
    let range = PhysRange::new(PhysAddr::new(0x1000_0000), 0x10_0000).unwrap();
    let mut sets = vec![Vec::new()];
    for label in PoolLabel::ALL {
        for restricted in [false, true] {
            sets.push(vec![PoolInfo { restricted, ..PoolInfo::new(label, range) }]);
        }
    }
    let attrs =
        [Attrs::NONE, Attrs::CC_SHARED, Attrs::REQUIRE_COHERENT, Attrs::MMIO, Attrs::WRITE_COMBINE];
    let (mut points, mut attached) = (0u64, 0u64);
    for platform in PlatformName::ALL {
        let regime = platform.regime(&Parameters::default()).unwrap();
        for bits in 0..96u32 {
            let flag = |bit: u32| bits >> bit & 1 == 1;
            let device = DeviceInfo {
                trust: if flag(0) { Trust::Accepted } else { Trust::Untrusted },
                coherent: !flag(1),
                external_facing: flag(2),
                force_bounce: flag(3),
                limits: Limits::mask_bits(if flag(4) { 32 } else { 64 }),
                attachment: match bits / 32 {
                    0 => Attachment::None,
                    1 => Attachment::Passthrough,
                    _ => Attachment::Translated,
                },
                ..DeviceInfo::PLAIN
            };
            for (memory, place) in
                MEMORIES.iter().flat_map(|m| [0x1000_0000, 0x4000_0000].map(|at| (*m, at)))
            {
                for (pools, attrs) in
                    sets.iter().flat_map(|pools| attrs.map(|attrs| (pools, attrs)))
                {
                    points += 1;
                    let request = MapRequest {
                        regime: &regime,
                        device: &device,
                        place: Place::At(PhysAddr::new(place)),
                        len: 0x1000,
                        memory,
                        direction: Direction::Both,
                        attrs,
                        align: 1,
                        pools,
                    };
                    let said = format!("{platform} {request:?}");
                    let mapped = plan::map(&request, &mut ());
                    match (plan::attach(&request, &mut ()), mapped) {
                        (Ok(done), Plan::Direct { reason, addr, state, cache_work }) => {
                            let same = (done.reason, done.addr, done.state, done.cache_work);
                            assert_eq!(same, (reason, addr, state, cache_work), "{said}");
                            assert!(!done.cache_work || !device.coherent, "{said}");
                            let private = done.state == State::PRIVATE;
                            assert!(!private || device.trust == Trust::Accepted, "{said}");
                            attached += 1;
                            let wanted = form(platform, device.trust, done.state, place);
                            let addr = done.addr.map(|addr| addr.raw());
                            let translated = device.attachment.is_translated();
                            assert_eq!(addr, wanted.filter(|_| !translated), "{said}");
                        }
                        (Err(why), Plan::Bounce { reason, .. }) => {
                            assert_eq!(why, Refuse::from(reason), "{said}");
                        }
                        // What a map is refused for before anybody asks for reach stands; where it
                        // would have bounced, the reason for that is the attachment's.
                        (Err(why), Plan::Refuse(of_map)) => {
                            let bounced = wanted(&request);
                            assert_eq!(why, bounced.map_or(of_map, Refuse::from), "{said}");
                        }
                        (got, mapped) => panic!("{said} {got:?} {mapped:?}"),
                    }
                }
            }
        }
    }
    println!("{attached} of {points} points of attachments attach");
    assert!(attached > 0);
}
