//! The order of pools: what each is for, its label, whose it is, how far it is; then as given.

use coco_dma::addr::{PhysAddr, PhysRange};
use coco_dma::attrs::Attrs;
use coco_dma::plan::{self, DeviceInfo, MapRequest, Place, Plan, PoolInfo};
use coco_dma::regime::{Parameters, PlatformName};
use coco_dma::state::{Direction, Memory, PoolLabel, State};

/// One pool of every kind: two labels, own and machine's, on nodes 0, 1 and none.
fn pools(first: u64) -> Vec<PoolInfo> {
    let mut all = Vec::new();
    for label in [PoolLabel::Ordinary, PoolLabel::HostPlain] {
        for own in [false, true] {
            for node in [None, Some(0), Some(1)] {
                let at = first + 0x10_0000 * u64::try_from(all.len()).unwrap();
                let range = PhysRange::new(PhysAddr::new(at), 0x1_0000).unwrap();
                all.push(PoolInfo { own, node, ..PoolInfo::new(label, range) });
            }
        }
    }
    all
}

#[test]
fn every_triple_of_pools() {
    let regime = PlatformName::Sme.regime(&Parameters::default()).unwrap();
    let all = pools(0x1000_0000);
    let mut points = 0u64;
    for node in [None, Some(0), Some(1)] {
        let device = DeviceInfo { force_bounce: true, node, ..DeviceInfo::PLAIN };
        for a in &all {
            for b in &all {
                for c in &all {
                    points += 1;
                    let given = [*a, *b, *c];
                    let request = MapRequest {
                        regime: &regime,
                        device: &device,
                        place: Place::At(PhysAddr::new(0x4000_0000)),
                        len: 4096,
                        memory: Memory::Known(State::ENCRYPTED),
                        direction: Direction::Both,
                        attrs: Attrs::NONE,
                        align: 1,
                        pools: &given,
                    };
                    let Plan::Bounce { pools, .. } = plan::map(&request, &mut ()) else {
                        panic!("{request:?}")
                    };
                    let got: Vec<usize> = pools.map(|candidate| candidate.index).collect();
                    let mut wanted = vec![0, 1, 2];
                    wanted.sort_by_key(|index: &usize| {
                        let pool = given[*index];
                        let far = pool.node.is_some() && node.is_some() && pool.node != node;
                        (pool.label == PoolLabel::HostPlain, !pool.own, far)
                    });
                    assert_eq!(got, wanted, "{given:?} {node:?}");
                }
            }
        }
    }
    println!("{points} triples of pools");
}
