//! What a driver is told of its device, on random machines: no map disproves an answer.

use coco_dma::Dma;
use coco_dma::addr::AddressLimit;
use coco_dma::addr::AlignMask;
use coco_dma::addr::Boundary;
use coco_dma::addr::BusRange;
use coco_dma::addr::BusRanges;
use coco_dma::addr::PhysAddr;
use coco_dma::attrs::Attrs;
use coco_dma::device::Endpoint;
use coco_dma::plan::Limits;
use coco_dma::pool::Pool;
use coco_dma::reason::Bounce;
use coco_dma::reason::Refuse;
use coco_dma::regime::PlatformName;
use coco_dma::state::Context;
use coco_dma::state::Direction;
use coco_dma::state::PoolLabel;
use coco_dma_sim::Machine;
use coco_dma_sim::Rng;

use crate::support::adopt;
use crate::support::alloc;
use crate::support::bytes_at;
use crate::support::finish;
use crate::support::free;
use crate::support::map;
use crate::support::run;
use crate::support::vouch;
use crate::support::words;

/// Bytes of RAM in each of its extents.
const EXTENT: u64 = 0x2_0000;
/// Bytes of the pool, the last of an extent.
const POOL: u64 = 0x8000;

/// How many machines: 1,000, and five times the cases of a property test where those are asked for,
/// which is 100,000 in `deep`.
fn machines() -> u64 {
    let asked = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse::<u64>().ok());
    asked.map_or(1000, |cases| cases * 5)
}

fn pick<T: Copy>(rng: &mut Rng, from: &[T]) -> T {
    from[rng.below(from.len() as u64) as usize]
}

/// What came of the questions: each answer has to have promised something.
#[derive(Debug, Default)]
struct Met {
    no_sync: u64,
    bounced: u64,
    direct: u64,
    kept: u64,
    longest: u64,
    none: u64,
    plain: u64,
}

#[test]
fn no_map_disproves_an_answer() {
    let mut met = Met::default();
    for seed in 0..machines() {
        one(seed, &mut met);
    }
    let Met { no_sync, bounced, direct, kept, longest, none, plain } = met;
    assert!(
        [no_sync, bounced, direct, kept, longest, none, plain].iter().all(|count| *count > 10),
        "{met:?}"
    );
}

fn one(seed: u64, met: &mut Met) {
    let mut rng = Rng::new(seed ^ 0x0061_6e73_7765_7273);
    let platform = pick(&mut rng, &PlatformName::ALL);
    let lowest = pick(&mut rng, &[0x1_0000, 0x4000_0000, 0xffff_0000]);
    let second = pick(&mut rng, &[lowest + EXTENT, 0x1_0001_0000, 0x20_0000_0000]);
    let mut builder = Machine::builder(platform).ram(lowest, EXTENT).ram(second, EXTENT);
    if rng.below(3) == 0 {
        builder = builder.ceiling(PhysAddr::new(pick(&mut rng, &[0x3f_ffff_ffff, 0xff_ffff_ffff])));
    }
    let Ok(machine) = builder.build() else { return };
    let extents = [run(lowest, EXTENT), run(second, EXTENT)];

    let label = pick(&mut rng, &PoolLabel::ALL);
    let storage = words(Pool::words(POOL));
    let home = pick(&mut rng, &extents);
    let place = home.slice(EXTENT - POOL, POOL).unwrap();
    let exists = match platform {
        PlatformName::Open => label == PoolLabel::Ordinary,
        PlatformName::Sme => matches!(label, PoolLabel::Ordinary | PoolLabel::HostPlain),
        _ => matches!(label, PoolLabel::GuestShared | PoolLabel::GuestPrivate),
    };
    let with_pool = exists && rng.below(4) > 0;
    let pools: Vec<Pool<'_>> =
        if with_pool { vec![adopt(&machine, label, place, &storage)] } else { vec![] };
    let dma = Dma::new(&machine, &pools);

    let whole = BusRange::new(run(0, 0x40_0000_0000), pick(&mut rng, &[0, 0x1000_0000])).unwrap();
    let low = BusRange::new(run(0, 0x1_0000_0000), 0).unwrap();
    let high = BusRange::new(run(0x1_0000_0000, 0x3f_0000_0000), 0x8000_0000).unwrap();
    let (one, part, two) = ([whole], [low], [low, high]);
    let windows = pick(&mut rng, &[&[][..], &[], &one, &part, &two]);
    let limits = Limits {
        mask: AddressLimit::bits(pick(&mut rng, &[30, 32, 40, 48, 64, 64])),
        boundary: Boundary::new(pick(&mut rng, &[0, 0, 0, 0x1000, 0x1_0000])),
        segment: pick(&mut rng, &[None, None, None, Some(0x3000)]),
        min_align: AlignMask::new(pick(&mut rng, &[0, 0, 0xfff])).unwrap(),
        ..Limits::NONE
    };
    let mut endpoint = Endpoint::new("nic").bus(BusRanges::new(windows));
    if rng.below(3) == 0 {
        endpoint = endpoint.accepted(vouch());
    }
    if rng.below(5) == 0 {
        endpoint = endpoint.not_coherent();
    }
    if rng.below(8) == 0 {
        endpoint = endpoint.force_bounce();
    }
    let Ok(device) = dma.bind(endpoint, limits) else { return };

    let (longest, needs_sync) = (device.max_mapping(), device.needs_sync());
    let (limited, none) = (device.addressing_limited(), device.cannot_reach_memory());
    let required = device.required_mask().raw();
    let what = || format!("machine {seed}: {platform} {device:?}");
    assert!(device.opt_mapping() <= longest, "{}", what());
    for _ in 0..8 {
        let extent = pick(&mut rng, &extents);
        let room = EXTENT - if with_pool && extent == home { POOL } else { 0 };
        // Whole cache lines inside one page or windows of a boundary suit without a pool; anything
        // else has to be taken where there is one.
        let offset = rng.below(room / 64) * 64;
        let most = longest.min(room - offset);
        let len = pick(&mut rng, &[64, 0x800, most, room - offset]).min(room - offset).max(1);
        let buffer = extent.slice(offset, len).unwrap();
        let plan = device.request(Some(buffer), len, Direction::Both, Attrs::NONE);
        let mut rules = Vec::new();
        let plan = coco_dma::plan::map(&plan, &mut |step: coco_dma::plan::Step| rules.push(step));
        let mapped = map(&device, bytes_at(&machine, buffer), Direction::Both, Attrs::NONE);
        let misfit = rules.iter().any(|step| step.rule().name() == "alignment");
        match mapped {
            Err(error) => {
                let fair = len > longest || (misfit && device.counters().bounced == 0);
                assert!(fair, "{} {len:#x} at {buffer} of {longest:#x}: {error}", what());
            }
            Ok(mapping) => {
                met.longest += u64::from(len == longest);
                let last = mapping.addr().raw() + (len - 1);
                if mapping.is_bounced() {
                    met.bounced += 1;
                    assert!(needs_sync, "{} bounces", what());
                    let coco_dma::plan::Plan::Bounce { reason, .. } = plan else {
                        panic!("{} bounces otherwise", what())
                    };
                    let far = matches!(
                        reason,
                        Bounce::BeyondMask | Bounce::BeyondBusLimit | Bounce::UnmappedBusRange
                    );
                    assert!(limited || !far, "{} {reason}", what());
                } else {
                    met.direct += 1;
                    met.no_sync += u64::from(!needs_sync);
                    assert!(!none, "{} reaches {buffer}", what());
                    assert!(last <= required, "{} {last:#x} past {required:#x}", what());
                }
                met.none += u64::from(none);
                met.kept += 1;
                finish(&device, mapping, 0);
            }
        }
    }
    // What is allocated is within the mask that was said to do, too.
    match alloc(&device, 4096, Context::Atomic) {
        Ok(memory) => {
            assert!(memory.addr().raw() + 4095 <= required, "{}", what());
            met.plain += 1;
            free(&device, memory);
        }
        Err(error) => assert_ne!(error.reason, Refuse::ConversionFailed, "{}", what()),
    }
    assert_eq!(machine.violations(), [], "{}", what());
}

#[test]
fn what_is_told_of_memory_is_what_counts() {
    // The same machine and device, told less and less.
    let machine = |ceiling: Option<u64>| {
        let builder = Machine::builder(PlatformName::Open).ram(0x4000_0000, EXTENT);
        let builder = ceiling.map_or(builder.clone(), |last| builder.ceiling(PhysAddr::new(last)));
        builder.build().unwrap()
    };
    for (ceiling, limited, bits) in
        [(None, false, 31), (Some(0x7fff_ffff), false, 31), (Some(0x1_0000_0000), true, 33)]
    {
        let machine = machine(ceiling);
        let dma = Dma::new(&machine, &[]);
        let device = dma.bind(Endpoint::new("nic"), Limits::mask_bits(32)).unwrap();
        assert_eq!(device.addressing_limited(), limited, "{ceiling:x?}");
        assert_eq!(device.required_mask(), AddressLimit::bits(bits), "{ceiling:x?}");
        assert_eq!(device.needs_sync(), limited, "{ceiling:x?}");
        assert_eq!(device.max_mapping() == 0, limited, "{ceiling:x?}");
        assert!(!device.cannot_reach_memory(), "{ceiling:x?}");
    }
}
