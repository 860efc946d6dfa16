//! Bus windows, bus limit, boundary, segment, kept bits, granule of an IOMMU and direction: each
//! alone and each pair, against every state, trust and place.

use coco_dma::addr::{AddressLimit, AlignMask, Boundary, BusRange, BusRanges, PhysAddr, PhysRange};
use coco_dma::attrs::Attrs;
use coco_dma::plan::{self, DeviceInfo, Limits, MapRequest, Place, Plan, PoolInfo};
use coco_dma::regime::{Parameters, PlatformName};
use coco_dma::state::{Attachment, Direction, Memory, PoolLabel, Trust};

use super::table::form;

const LEN: u64 = 0x1800;
const PLACES: [u64; 5] = [0x1000_0000, 0x1000_f000, 0x3fff_f000, 0x4000_0040, 0x1_0000_0000];
/// Two windows with a hole between them: the second is shown elsewhere.
pub(super) const WINDOWS: [(u64, u64, u64); 2] =
    [(0, 0, 0x4000_0000), (0x1_0000_0000, 0x8000_0000, 0x1000_0000)];

/// One thing that differs from a device without limits.
pub(super) fn vary<'a>(
    what: usize,
    mut device: DeviceInfo<'a>,
    windows: &'a [BusRange],
) -> DeviceInfo<'a> {
    let limits = &mut device.limits;
    match what {
        0 => {}
        1 => device.bus = BusRanges::new(windows),
        2 => device.bus_limit = AddressLimit::last(0x3fff_ffff),
        3 => limits.boundary = Boundary::new(0x1_0000),
        4 => limits.boundary = Boundary::new(0x1000),
        5 => limits.segment = Some(0x1000),
        6 => limits.min_align = AlignMask::new(0xfff).unwrap(),
        7 => device.coherent = false,
        8 => device.external_facing = true,
        9 => device.force_bounce = true,
        _ => *limits = Limits { mask: AddressLimit::bits(30), ..*limits },
    }
    device
}

/// Where the bus shows all of a run.
fn shown(device: &DeviceInfo<'_>, base: u64, len: u64) -> Option<u64> {
    if device.bus.is_identity() {
        return Some(base);
    }
    WINDOWS
        .into_iter()
        .find(|(cpu, _, size)| base >= *cpu && base + len <= cpu + size)
        .map(|(cpu, bus, _)| base - cpu + bus)
}

fn judge(platform: PlatformName, request: &MapRequest<'_>) -> Result<bool, String> {
    let ensure = |holds: bool, what: &str| if holds { Ok(()) } else { Err(what.to_owned()) };
    let device = request.device;
    let Place::At(base) = request.place else { return Err("placed".to_owned()) };
    let limits = &device.limits;
    let limit = limits.mask.raw().min(device.bus_limit.raw());
    let fits = |addr: u64, len: u64| {
        let boundary = limits.boundary.map_or(u64::MAX, |boundary| boundary.bytes());
        addr / boundary == (addr + len - 1) / boundary
    };
    match plan::map(request, &mut ()) {
        Plan::Direct { addr, state, .. } => {
            ensure(limits.segment.is_none_or(|most| request.len <= most), "too long")?;
            ensure(!device.force_bounce, "forced")?;
            if !device.coherent && request.direction != Direction::ToDevice {
                ensure(
                    base.raw().is_multiple_of(64) && request.len.is_multiple_of(64),
                    "a shared cache line",
                )?;
            }
            let Some(addr) = addr else { return Ok(true) };
            let bus = shown(device, base.raw(), request.len);
            let wanted = bus.and_then(|bus| form(platform, device.trust, state, bus));
            ensure(Some(addr.raw()) == wanted, "the form")?;
            ensure(addr.raw() + request.len - 1 <= limit, "past the limit")?;
            ensure(fits(addr.raw(), request.len), "across the boundary")?;
            Ok(true)
        }
        Plan::Bounce { pools, .. } => {
            for candidate in pools {
                let pool = request.pools[candidate.index].range;
                ensure(request.len <= pool.len(), "longer than the pool")?;
                ensure(limits.segment.is_none_or(|most| request.len <= most), "too long")?;
                let Some(seen) = candidate.base else { continue };
                let bus = shown(device, pool.base().raw(), pool.len());
                let wanted = bus.and_then(|bus| form(platform, device.trust, candidate.state, bus));
                ensure(Some(seen.raw()) == wanted, "the slot's form")?;
                ensure(seen.raw() + pool.len() - 1 <= limit, "a pool past the limit")?;
                let addr = seen.raw() + candidate.places.lowest();
                ensure(fits(addr, request.len), "a slot across the boundary")?;
                let kept = limits.min_align.raw();
                ensure(addr & kept == base.raw() & kept, "the kept bits")?;
            }
            Ok(true)
        }
        Plan::Refuse(_) => Ok(false),
    }
}

#[test]
fn every_pair_of_limits() {
    let windows: Vec<BusRange> = WINDOWS
        .iter()
        .map(|(cpu, bus, len)| {
            BusRange::new(PhysRange::new(PhysAddr::new(*cpu), *len).unwrap(), *bus).unwrap()
        })
        .collect();
    let pools: Vec<PoolInfo> = PoolLabel::ALL
        .into_iter()
        .flat_map(|label| [0x2000_0000, 0x2_0000_0000].map(|base| (label, base)))
        .map(|(label, base)| {
            PoolInfo::new(label, PhysRange::new(PhysAddr::new(base), 0x10_0000).unwrap())
        })
        .collect();
    let (mut points, mut taken) = (0u64, 0u64);
    for platform in PlatformName::ALL {
        let regime = platform.regime(&Parameters::default()).unwrap();
        for (first, second) in (0..11).flat_map(|first| (0..11).map(move |second| (first, second)))
        {
            for bits in 0..6u32 {
                let plain = DeviceInfo {
                    trust: if bits & 1 == 1 { Trust::Accepted } else { Trust::Untrusted },
                    attachment: match bits / 2 {
                        0 => Attachment::None,
                        1 => Attachment::Passthrough,
                        _ => Attachment::Translated,
                    },
                    ..DeviceInfo::PLAIN
                };
                let device = vary(second, vary(first, plain, &windows), &windows);
                for state in regime.states() {
                    for direction in [Direction::ToDevice, Direction::FromDevice, Direction::Both] {
                        for (place, len) in PLACES.iter().flat_map(|at| [(*at, LEN), (*at, 0x800)])
                        {
                            points += 1;
                            let request = MapRequest {
                                regime: &regime,
                                device: &device,
                                place: Place::At(PhysAddr::new(place)),
                                len,
                                memory: Memory::Known(*state),
                                direction,
                                attrs: Attrs::NONE,
                                align: 1,
                                pools: &pools,
                            };
                            match judge(platform, &request) {
                                Ok(done) => taken += u64::from(done),
                                Err(broken) => panic!("{broken}: {platform} {request:#?}"),
                            }
                        }
                    }
                }
            }
        }
    }
    println!("{taken} of {points} points of limits are mapped");
    assert!(taken > points / 4);
}
