//! `plan::map` at every point of its finite core, against invariants that are written down here
//! and nowhere else: this file knows the form table by heart and asks no codec.
//!
//! In a release build all points are visited (`cargo xtask test` does that); a debug build visits
//! those of every 97th set of pools.

use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use coco_dma::addr::AddressLimit;
use coco_dma::addr::BusRanges;
use coco_dma::addr::PhysAddr;
use coco_dma::attrs::Attrs;
use coco_dma::plan;
use coco_dma::plan::DeviceInfo;
use coco_dma::plan::Limits;
use coco_dma::plan::MapRequest;
use coco_dma::plan::Place;
use coco_dma::plan::Plan;
use coco_dma::plan::PoolInfo;
use coco_dma::regime::Parameters;
use coco_dma::regime::PlatformName;
use coco_dma::regime::Regime;
use coco_dma::state::Attachment;
use coco_dma::state::Direction;
use coco_dma::state::Memory;
use coco_dma::state::PoolUse;
use coco_dma::state::State;
use coco_dma::state::Trust;

use super::judge::judge;
use super::pools;

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

/// The attributes that decide.
const DECIDING: [Attrs; 3] = [Attrs::CC_SHARED, Attrs::MMIO, Attrs::REQUIRE_COHERENT];

/// Where buffers lie: in the low pool, below and above 4 GiB, at the top of small spaces.
const PLACES: [u64; 4] = [0x1000_0800, 0x4000_0000, 0x1_4000_0000, 0x7f_ffff_f000];
const LEN: u64 = 4096;
const MASKS: [u32; 4] = [24, 32, 40, 64];

/// Every combination of the attributes that decide.
fn deciding() -> Vec<Attrs> {
    let chosen = |set: usize| {
        let chosen = DECIDING.iter().enumerate().filter(move |(bit, _)| set >> bit & 1 == 1);
        chosen.fold(Attrs::NONE, |all, (_, attr)| all.with(*attr))
    };
    (0..1 << DECIDING.len()).map(chosen).collect()
}

/// Every attribute of Linux, and every pair.
fn alone_and_in_pairs() -> Vec<Attrs> {
    let named = Attrs::NAMED.iter().enumerate();
    let with_later = |(at, (_, first)): (usize, &(&str, Attrs))| {
        let first = *first;
        Attrs::NAMED.iter().skip(at).map(move |(_, second)| first.with(*second))
    };
    named.flat_map(with_later).collect()
}

/// The axes that a sweep has beside platform and device.
struct Sweep {
    memories: Vec<Memory>,
    attrs: Vec<Attrs>,
    pools: Vec<Vec<PoolInfo>>,
    places: Vec<u64>,
}

/// What came of the points that were visited.
#[derive(Default)]
struct Tally {
    /// Points but for the places of the buffer.
    runs: usize,
    visited: u64,
    direct: u64,
    bounced: u64,
    refused: u64,
}

impl Tally {
    fn add(&mut self, other: &Self) {
        self.runs += other.runs;
        self.visited += other.visited;
        self.direct += other.direct;
        self.bounced += other.bounced;
        self.refused += other.refused;
    }

    fn tell(&self, what: &str, places: usize) {
        let points = self.runs * places;
        let Self { visited, direct, bounced, refused, .. } = self;
        println!(
            "{visited} of {points} points of {what}: {direct} direct, {bounced} bounced, {refused} refused"
        );
        assert!(*direct > 0 && *bounced > 0 && *refused > 0);
    }
}

impl Sweep {
    /// Every point on every platform, two platforms at a time.
    fn run(&self, what: &str) {
        let next = AtomicUsize::new(0);
        let total = Mutex::new(Tally::default());
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while let Some(platform) =
                        PlatformName::ALL.get(next.fetch_add(1, Ordering::Relaxed))
                    {
                        let tally = self.platform(*platform);
                        total.lock().unwrap().add(&tally);
                    }
                });
            }
        });
        total.into_inner().unwrap().tell(what, self.places.len());
    }

    fn platform(&self, platform: PlatformName) -> Tally {
        let regime = platform.regime(&Parameters::default()).unwrap();
        let mut tally = Tally::default();
        for bits in 0..48u32 {
            let flag = |bit: u32| bits >> bit & 1 == 1;
            for mask in MASKS {
                let device = DeviceInfo {
                    trust: if flag(0) { Trust::Accepted } else { Trust::Untrusted },
                    limits: Limits::mask_bits(mask),
                    bus_limit: AddressLimit::NONE,
                    bus: BusRanges::IDENTITY,
                    attachment: match bits >> 4 {
                        0 => Attachment::None,
                        1 => Attachment::Passthrough,
                        _ => Attachment::Translated,
                    },
                    coherent: !flag(1),
                    external_facing: flag(2),
                    force_bounce: flag(3),
                    node: None,
                };
                self.device(platform, &regime, &device, &mut tally);
            }
        }
        tally
    }

    fn device(
        &self,
        platform: PlatformName,
        regime: &Regime,
        device: &DeviceInfo<'_>,
        tally: &mut Tally,
    ) {
        let every = if cfg!(debug_assertions) { 97 } else { 1 };
        let (memories, attrs, pools) = (self.memories.len(), self.attrs.len(), self.pools.len());
        let runs = memories * attrs * pools;
        let first = tally.runs.next_multiple_of(every) - tally.runs;
        tally.runs += runs;
        for run in (first..runs).step_by(every) {
            let (kinds, pools) = (run / pools, &self.pools[run % pools]);
            let (memory, attrs) = (self.memories[kinds / attrs], self.attrs[kinds % attrs]);
            for place in &self.places {
                tally.visited += 1;
                let request = MapRequest {
                    regime,
                    device,
                    place: Place::At(PhysAddr::new(*place)),
                    len: LEN,
                    memory,
                    direction: Direction::Both,
                    attrs,
                    align: 1,
                    pools,
                };
                let plan = plan::map(&request, &mut ());
                let judged = judge(platform, &request, &plan);
                assert_eq!(judged, Ok(()), "{platform} {request:#?} {plan:#?}");
                match plan {
                    Plan::Direct { .. } => tally.direct += 1,
                    Plan::Bounce { .. } => tally.bounced += 1,
                    Plan::Refuse(_) => tally.refused += 1,
                }
            }
        }
    }
}

#[test]
fn every_point_keeps_every_invariant() {
    let sweep = Sweep {
        memories: MEMORIES.to_vec(),
        attrs: deciding(),
        pools: pools::sets(&pools::placed(&[PoolUse::All])),
        places: PLACES.to_vec(),
    };
    sweep.run("maps");
}

/// What a pool is for, with all else that pools differ in.
#[test]
fn every_purpose_of_pools() {
    let sweep = Sweep {
        memories: vec![
            Memory::Known(State::PRIVATE),
            Memory::Known(State::SHARED),
            Memory::Known(State::ENCRYPTED),
            Memory::Known(State::Ordinary),
        ],
        attrs: vec![Attrs::NONE],
        pools: pools::sets(&pools::placed(&pools::PURPOSES)),
        places: vec![0x4000_0000],
    };
    sweep.run("maps with pools for one use");
}

/// The attributes that decide nothing but whether they are taken, and what is done to caches.
#[test]
fn every_attribute_alone_and_in_pairs() {
    let sweep = Sweep {
        memories: MEMORIES.to_vec(),
        attrs: alone_and_in_pairs(),
        pools: pools::sets(&pools::near()).into_iter().filter(|set| set.len() < 2).collect(),
        places: PLACES.to_vec(),
    };
    sweep.run("maps with an attribute or two");
}
