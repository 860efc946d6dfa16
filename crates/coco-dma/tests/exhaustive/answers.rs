//! What a driver is told before it maps, against what its maps come to: an answer that promises
//! something is kept at every point.

use coco_dma::addr::{AddressLimit, BusRange, MemoryMap, PhysAddr, PhysRange};
use coco_dma::attrs::Attrs;
use coco_dma::plan::{
    self, DeviceInfo, DomainInfo, Limits, MapRequest, Place, Plan, PoolInfo, Question,
};
use coco_dma::reason::Bounce;
use coco_dma::regime::{Parameters, PlatformName};
use coco_dma::state::{Attachment, Direction, Memory, PoolLabel, Trust};

use super::limits::{WINDOWS, vary};
use super::table::{accepts, memory_last};

/// Memory that a machine has, and the last address that it may ever have.
type Map = (&'static [(u64, u64)], Option<u64>);
const MAPS: [Map; 6] = [
    (&[], None),
    (&[(0x1000_0000, 0x1000_0000)], None),
    (&[(0x1000_0000, 0x1000_0000)], Some(0x1fff_ffff)),
    (&[(0x1000_0000, 0x1000_0000)], Some(0x1_0fff_ffff)),
    (&[(0x1_0000_0000, 0x800_0000), (0x1_0800_0000, 0x800_0000)], Some(0x1_0fff_ffff)),
    (&[(0x3fff_0000, 0x1_0000), (0x4000_0000, 0x1_0000)], Some(0x4000_ffff)),
];

/// Places of buffers, most of them at an edge of something.
const STARTS: [u64; 12] = [
    0,
    0x1000_0000,
    0x1000_f000,
    0x1000_0040,
    0x1fff_f000,
    0x3fff_f000,
    0x4000_0000,
    0x7fff_f800,
    0xffff_f000,
    0x1_0000_0000,
    0x1_07ff_f000,
    0x1_0fff_f800,
];
const LENS: [u64; 6] = [1, 0x40, 0x800, 0x1000, 0x1800, 0x1_0000];

/// Whether a buffer may lie there.
fn may_be(map: &Map, last: u64, start: u64, len: u64) -> bool {
    let end = start + (len - 1);
    let (present, ceiling) = map;
    let highest = present.iter().map(|(base, len)| base + len - 1).max();
    match (highest, ceiling) {
        (Some(highest), Some(ceiling)) if *ceiling <= highest => {
            // Extents that touch are one.
            let inside = |at: u64| present.iter().any(|(base, len)| at >= *base && at < base + len);
            inside(start)
                && inside(end)
                && present.iter().all(|(base, _)| *base <= start || *base > end || inside(base - 1))
        }
        _ => end <= ceiling.unwrap_or(u64::MAX).min(last),
    }
}

/// Whether the device can take a buffer as it lies, for all that a pool could mend.
fn suits(device: &DeviceInfo<'_>, start: u64, len: u64, bus: u64) -> bool {
    let crossed = device.limits.boundary.is_some_and(|boundary| {
        // A domain and a bus keep what of the address counts here.
        boundary.crossed_by(bus, len) || boundary.crossed_by(start, len)
    });
    let aligned = |to: u64| start.is_multiple_of(to) && len.is_multiple_of(to);
    let translated = device.attachment == Attachment::Translated;
    !crossed
        && (device.coherent || aligned(64))
        && (!(device.external_facing && translated) || aligned(0x1000))
}

/// Whether some pool of the device takes a bounce of one byte.
fn takes_what_does_not(request: &MapRequest<'_>) -> bool {
    let byte =
        MapRequest { place: Place::Unlocated, len: 1, memory: Memory::Untracked, ..*request };
    matches!(plan::map(&byte, &mut ()), Plan::Bounce { .. })
}

#[derive(Debug, Default)]
struct Promised {
    no_sync: u64,
    long: u64,
    none: u64,
    all: u64,
}

fn judge(
    question: &Question<'_>,
    request: &MapRequest<'_>,
    ordinary: bool,
    suits: bool,
    promised: &mut Promised,
) -> Result<(), &'static str> {
    let plan = plan::map(request, &mut ());
    let direct = matches!(plan, Plan::Direct { .. });
    let bounced = matches!(plan, Plan::Bounce { .. });
    if !question.needs_sync() {
        promised.no_sync += 1;
        if bounced || matches!(plan, Plan::Direct { cache_work: true, .. }) {
            return Err("it needs a sync");
        }
    }
    if ordinary && suits && request.len <= question.max_mapping() {
        promised.long += 1;
        if !direct && !bounced {
            return Err("it is refused, and not too long");
        }
    }
    if ordinary && question.cannot_reach_memory() {
        promised.none += 1;
        if direct {
            return Err("it reaches some");
        }
    }
    let out_of_reach = |reason| {
        matches!(reason, Bounce::BeyondMask | Bounce::BeyondBusLimit | Bounce::UnmappedBusRange)
    };
    if !question.addressing_limited() {
        promised.all += 1;
        if let Plan::Bounce { reason, .. } = plan
            && out_of_reach(reason)
        {
            return Err("it is past what the device addresses");
        }
    }
    if let Plan::Direct { addr: Some(addr), .. } = plan
        && addr.raw() + (request.len - 1) > question.required_mask().raw()
    {
        return Err("it is past the mask that was said to do");
    }
    Ok(())
}

#[test]
fn what_a_driver_is_told_is_kept() {
    let windows: Vec<BusRange> = WINDOWS
        .iter()
        .map(|(cpu, bus, len)| {
            BusRange::new(PhysRange::new(PhysAddr::new(*cpu), *len).unwrap(), *bus).unwrap()
        })
        .collect();
    let of = |base, len| PhysRange::new(PhysAddr::new(base), len).unwrap();
    let mut pools: Vec<Vec<PoolInfo>> = vec![vec![]];
    for label in PoolLabel::ALL {
        for base in [0x1800_0000, 0x1_0400_0000] {
            let pool = PoolInfo::new(label, of(base, 0x8000));
            pools.push(vec![pool]);
            pools.push(vec![PoolInfo { restricted: true, ..pool }]);
        }
    }
    let (mut points, mut promised) = (0u64, Promised::default());
    // A debug build, which is some thirty times as slow, judges a part of them.
    let (every, mut number) = (if cfg!(debug_assertions) { 97_u64 } else { 1 }, 0);
    for platform in PlatformName::ALL {
        let regime = platform.regime(&Parameters::default()).unwrap();
        let usual = regime.states()[0];
        for (map, bits) in MAPS.iter().flat_map(|map| (0..6u32).map(move |bits| (map, bits))) {
            let present: Vec<PhysRange> = map.0.iter().map(|(base, len)| of(*base, *len)).collect();
            let memory = MemoryMap { present: &present, ceiling: map.1.map(PhysAddr::new) };
            let trust = if bits & 1 == 1 { Trust::Accepted } else { Trust::Untrusted };
            if trust == Trust::Accepted && !accepts(platform) {
                continue;
            }
            let attachment = match bits / 2 {
                0 => Attachment::None,
                1 => Attachment::Passthrough,
                _ => Attachment::Translated,
            };
            let translated = attachment == Attachment::Translated;
            for (first, second) in
                (0..14).flat_map(|first| [0, 1, 3, 6, 7, 9].map(move |second| (first, second)))
            {
                let mut device = DeviceInfo { trust, attachment, ..DeviceInfo::PLAIN };
                match first {
                    11 => device.limits = Limits::mask_bits(32),
                    12 => device.limits = Limits::mask_bits(48),
                    13 => device.bus_limit = AddressLimit::last(u64::MAX - 1),
                    first => device = vary(first, device, &windows),
                }
                let device = vary(second, device, &windows);
                let domain = translated.then_some(DomainInfo {
                    page: 0x1000,
                    first: 0x10_0000,
                    last: 0x60_0000 - 1,
                    in_reach: 0x50_0000,
                });
                for pools in &pools {
                    let question =
                        Question { regime: &regime, device: &device, memory, pools, domain };
                    for (start, len) in
                        STARTS.iter().flat_map(|start| LENS.map(|len| (*start, len)))
                    {
                        number += 1;
                        if number % every != 0 || !may_be(map, memory_last(platform), start, len) {
                            continue;
                        }
                        let bus = device.bus.to_bus(of(start, len)).unwrap_or(start);
                        let known = regime.states().iter().map(|state| Memory::Known(*state));
                        for memory in known.chain([Memory::Untracked]) {
                            points += 1;
                            let ordinary = matches!(memory, Memory::Untracked)
                                || memory == Memory::Known(usual);
                            let request = MapRequest {
                                regime: &regime,
                                device: &device,
                                place: Place::At(PhysAddr::new(start)),
                                len,
                                memory,
                                direction: Direction::Both,
                                attrs: Attrs::NONE,
                                align: if translated { 0x1000 } else { 1 },
                                pools,
                            };
                            // Where a pool takes what does not suit, whatever lies anywhere does.
                            let suits =
                                suits(&device, start, len, bus) || takes_what_does_not(&request);
                            if let Err(broken) =
                                judge(&question, &request, ordinary, suits, &mut promised)
                            {
                                panic!("{broken}: {platform} {request:#?} {question:#?}");
                            }
                        }
                    }
                }
            }
        }
    }
    println!("{points} points of answers: {promised:?}");
    let Promised { no_sync, long, none, all } = promised;
    assert!([no_sync, long, none, all].iter().all(|kept| *kept > points / 50), "{promised:?}");
}
