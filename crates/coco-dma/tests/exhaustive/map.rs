//! `plan::map` at every point of its finite core, against invariants that are written down here
//! and nowhere else: this file knows the form table by heart and asks no codec.
//!
//! In a release build all points are visited (`cargo xtask test` does that); a debug build visits
//! every 97th.

use coco_dma::addr::AddressLimit;
use coco_dma::addr::BusRanges;
use coco_dma::addr::PhysAddr;
use coco_dma::addr::PhysRange;
use coco_dma::attrs::Attrs;
use coco_dma::plan;
use coco_dma::plan::DeviceFace;
use coco_dma::plan::Limits;
use coco_dma::plan::MapRequest;
use coco_dma::plan::Place;
use coco_dma::plan::Plan;
use coco_dma::plan::PoolFace;
use coco_dma::regime::Parameters;
use coco_dma::regime::PlatformName;
use coco_dma::state::Attachment;
use coco_dma::state::Direction;
use coco_dma::state::Memory;
use coco_dma::state::PoolLabel;
use coco_dma::state::State;
use coco_dma::state::Trust;

use super::judge::judge;

const MEMORIES: [Memory; 11] = [
    Memory::Known(State::PRIVATE),
    Memory::Known(State::SHARED),
    Memory::Known(State::ENCRYPTED),
    Memory::Known(State::PLAIN),
    Memory::Known(State::Ordinary),
    Memory::Untracked,
    Memory::Mixed,
    Memory::Mmio,
    Memory::Peer,
    Memory::Converting,
    Memory::Quarantined,
];

const ATTRS: [Attrs; 8] = [
    Attrs::NONE,
    Attrs::CC_SHARED,
    Attrs::MMIO,
    Attrs::MMIO.with(Attrs::CC_SHARED),
    Attrs::REQUIRE_COHERENT,
    Attrs::CC_SHARED.with(Attrs::REQUIRE_COHERENT),
    Attrs::SKIP_CPU_SYNC,
    Attrs::WRITE_COMBINE,
];

/// Where buffers lie: in the low pool, below and above 4 GiB, at the top of small spaces.
const PLACES: [u64; 4] = [0x1000_0800, 0x4000_0000, 0x1_4000_0000, 0x7f_ffff_f000];
const LEN: u64 = 4096;
const MASKS: [u32; 4] = [24, 32, 40, 64];
const NEAR: u64 = 0x1000_0000;
const FAR: u64 = 0x2_0000_0000;
const POOL: u64 = 0x10_0000;

/// Pools: none, each alone, each pair; near and far, restricted and not.
fn pool_sets() -> Vec<Vec<PoolFace>> {
    let mut single = Vec::new();
    for label in PoolLabel::ALL {
        for base in [NEAR, FAR] {
            for restricted in [false, true] {
                let range = PhysRange::new(PhysAddr::new(base), POOL).unwrap();
                single.push(PoolFace { restricted, ..PoolFace::new(label, range) });
            }
        }
    }
    let mut sets = vec![Vec::new()];
    sets.extend(single.iter().map(|one| vec![*one]));
    for first in &single {
        sets.extend(single.iter().map(|second| vec![*first, *second]));
    }
    sets
}

#[test]
fn every_point_keeps_every_invariant() {
    let every = if cfg!(debug_assertions) { 97 } else { 1 };
    let sets = pool_sets();
    let (mut points, mut visited) = (0u64, 0u64);
    let [mut direct, mut bounced, mut refused] = [0u64; 3];
    for platform in PlatformName::ALL {
        let regime = platform.regime(&Parameters::default()).unwrap();
        for bits in 0..64u32 {
            let flag = |bit: u32| bits >> bit & 1 == 1;
            let attachment = match bits >> 4 {
                0 => Attachment::None,
                1 => Attachment::Passthrough,
                2 => Attachment::Translated,
                _ => continue,
            };
            for mask in MASKS {
                let device = DeviceFace {
                    trust: if flag(0) { Trust::Accepted } else { Trust::Untrusted },
                    limits: Limits::mask_bits(mask),
                    bus_limit: AddressLimit::NONE,
                    bus: BusRanges::IDENTITY,
                    attachment,
                    coherent: !flag(1),
                    external_facing: flag(2),
                    force_bounce: flag(3),
                    node: None,
                };
                for memory in MEMORIES {
                    for attrs in ATTRS {
                        for pools in &sets {
                            for place in PLACES {
                                points += 1;
                                if points % every != 0 {
                                    continue;
                                }
                                visited += 1;
                                let request = MapRequest {
                                    regime: &regime,
                                    device: &device,
                                    place: Place::At(PhysAddr::new(place)),
                                    len: LEN,
                                    memory,
                                    direction: Direction::Both,
                                    attrs,
                                    align: 1,
                                    pools,
                                };
                                let plan = plan::map(&request, &mut ());
                                if let Err(broken) = judge(platform, &request, &plan) {
                                    panic!("{broken}: {platform} {request:#?} {plan:#?}");
                                }
                                match plan {
                                    Plan::Direct { .. } => direct += 1,
                                    Plan::Bounce { .. } => bounced += 1,
                                    Plan::Refuse(_) => refused += 1,
                                }
                            }
                        }
                    }
                }
            }
        }
    }
    println!("{visited} of {points} points: {direct} direct, {bounced} bounced, {refused} refused");
    assert!(direct > 0 && bounced > 0 && refused > 0);
}
