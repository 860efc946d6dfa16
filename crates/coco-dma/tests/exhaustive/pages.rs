//! Pages of our own: the last address that they may have is the last that the device reaches, for
//! every state, limit and window, by trying addresses.

use coco_dma::addr::{AddressLimit, BusRange, BusRanges, PhysAddr, PhysRange};
use coco_dma::attrs::Attrs;
use coco_dma::plan::{self, AllocKind, AllocRequest, DeviceInfo, Limits};
use coco_dma::reason::Refuse;
use coco_dma::regime::{Parameters, PlatformName};
use coco_dma::state::{Attachment, Context, Trust};

use super::table::{accepts, form, memory_last, own_state};

/// Windows of a bus: memory, bus, length. They may show memory from its top down.
const BUSES: [&[(u64, u64, u64)]; 6] = [
    &[],
    &[(0x4000_0000, 0, 0x1000_0000)],
    &[(0, 0x8000_0000, 0x4000_0000), (0x1_0000_0000, 0, 0x4000_0000)],
    &[(0, 1 << 39, 0x4000_0000), (1 << 46, 1 << 46, 0x4000_0000)],
    // Windows that show more than memory, in part or as a whole.
    &[((1 << 40) - 0x2000_0000, 0, 0x4000_0000), ((1 << 47) - 0x1000, 1 << 31, 0x4000_0000)],
    &[(0, 0x4000_0000, 0x4000_0000), (1 << 52, 0, 0x4000_0000)],
];
const LEN: u64 = 0x3000;

/// The address at which the device sees the byte at `p`, which is in its reach.
fn seen(
    platform: PlatformName,
    device: &DeviceInfo<'_>,
    windows: &[(u64, u64, u64)],
    p: u64,
) -> Option<u64> {
    let limit = device.limits.mask.raw().min(device.bus_limit.raw());
    let bus = match windows {
        [] => p,
        _ => windows
            .iter()
            .find(|(cpu, _, len)| p >= *cpu && p - cpu < *len)
            .map(|(cpu, bus, _)| p - cpu + bus)?,
    };
    let last = memory_last(platform);
    let addr =
        form(platform, device.trust, own_state(platform, device.trust, limit >= 1 << 47), bus)?;
    (p <= last && bus <= last && addr <= limit).then_some(addr)
}

#[test]
fn the_last_page_is_the_last_in_reach() {
    let (mut points, mut given) = (0u64, 0u64);
    let numbers = [12, 13, 14, 20, 24, 30, 31, 32, 36, 39, 40, 41, 46, 47, 48, 51, 52, 63, 64];
    for platform in PlatformName::ALL {
        let regime = platform.regime(&Parameters::default()).unwrap();
        for (mask, by_bus) in numbers.iter().flat_map(|mask| numbers.map(|by_bus| (*mask, by_bus)))
        {
            for (windows, bits) in
                BUSES.iter().flat_map(|bus| (0..6u32).map(move |bits| (*bus, bits)))
            {
                let shown: Vec<BusRange> = windows
                    .iter()
                    .map(|(cpu, bus, len)| {
                        BusRange::new(PhysRange::new(PhysAddr::new(*cpu), *len).unwrap(), *bus)
                            .unwrap()
                    })
                    .collect();
                let device = DeviceInfo {
                    trust: if bits & 1 == 1 { Trust::Accepted } else { Trust::Untrusted },
                    limits: Limits::mask_bits(mask),
                    bus_limit: AddressLimit::bits(by_bus),
                    bus: BusRanges::new(&shown),
                    attachment: match bits / 2 {
                        0 => Attachment::None,
                        1 => Attachment::Passthrough,
                        _ => Attachment::Translated,
                    },
                    ..DeviceInfo::PLAIN
                };
                if device.trust == Trust::Accepted && !accepts(platform) {
                    continue;
                }
                points += 1;
                let request = AllocRequest {
                    regime: &regime,
                    device: &device,
                    kind: AllocKind::Coherent,
                    len: LEN,
                    align: 0x1000,
                    attrs: Attrs::NONE,
                    context: Context::Blocking,
                    pages: true,
                    pools: &[],
                };
                let plan = plan::alloc(&request, &mut ()).map(|plan| plan.pages.unwrap());
                let what = format!("{platform} {device:#?} {plan:#?}");
                if device.attachment == Attachment::Translated {
                    assert_eq!(plan.unwrap().last.raw(), memory_last(platform), "{what}");
                    continue;
                }
                // Every edge that there is, and its neighbours: what reaches one byte and not the
                // next has an edge there.
                let edges = (0..64u32).map(|bit| 1u64 << bit).chain([0, u64::MAX]);
                let edges: Vec<u64> = edges
                    .flat_map(|edge| {
                        windows
                            .iter()
                            .flat_map(move |(cpu, bus, len)| {
                                [*cpu, cpu + len, edge.wrapping_sub(*bus).wrapping_add(*cpu)]
                            })
                            .chain([edge])
                            .collect::<Vec<_>>()
                    })
                    .flat_map(|edge| [edge.wrapping_sub(1), edge, edge.wrapping_add(1)])
                    .collect();
                let highest = edges
                    .iter()
                    .copied()
                    .filter(|p| seen(platform, &device, windows, *p).is_some())
                    .max();
                match plan {
                    Ok(pages) => {
                        given += 1;
                        assert_eq!(Some(pages.last.raw()), highest, "{what}");
                    }
                    Err(reason) => {
                        assert_eq!(reason, Refuse::NoPool, "{what}");
                        assert!(highest.is_none_or(|last| last < LEN - 1), "{highest:x?} {what}");
                    }
                }
            }
        }
    }
    println!("{given} of {points} points of pages of our own are given some");
    assert!(given > 0 && given < points);
}
