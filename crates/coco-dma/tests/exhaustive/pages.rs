//! Pages of our own: a source is asked for every place in the device's reach and for no other, window
//! by window, for every state and limit, by trying addresses.

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
    &[((1 << 40) - 0x2000_0000, 0, 0x4000_0000), ((1 << 47) - 0x1_0000, 1 << 31, 0x4000_0000)],
    &[(0, 0x4000_0000, 0x4000_0000), (1 << 52, 0, 0x4000_0000)],
];
const LEN: u64 = 0x3000;
/// What it is aligned to; the offsets of all windows are multiples of it.
const ALIGN: u64 = 0x4000;

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
fn a_source_is_asked_for_all_that_is_in_reach_and_aligned() {
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
                    page: 0x1000,
                    align: 1,
                    attrs: Attrs::NONE,
                    context: Context::Blocking,
                    pages: true,
                    pools: &[],
                };
                let plan = plan::alloc(&request, &mut ()).map(|plan| plan.pages.unwrap());
                let what = format!("{platform} {device:#?} {plan:#?}");
                let translated = device.attachment == Attachment::Translated;
                let each: Vec<&[(u64, u64, u64)]> = match windows {
                    _ if translated => vec![&[]],
                    [] => vec![&[]],
                    windows => windows.chunks(1).collect(),
                };
                let places = |window: &[(u64, u64, u64)], p: u64| {
                    let seen = |p| match translated {
                        true => (p <= memory_last(platform)).then_some(p),
                        false => seen(platform, &device, window, p),
                    };
                    let end = p.checked_add(LEN - 1).and_then(seen);
                    seen(p).is_some_and(|addr| addr % ALIGN == 0 && end == Some(addr + (LEN - 1)))
                };
                // Every edge that there is, and the places around it: where there is a place at all,
                // one is the first or the last of its window.
                let has_place = |window: &&&[(u64, u64, u64)]| {
                    let bits = (0..64u32).map(|bit| 1u64 << bit).chain([0, u64::MAX]);
                    let edges = bits.flat_map(|edge| {
                        let moved = window.iter().flat_map(move |(cpu, bus, len)| {
                            [*cpu, cpu + len, edge.wrapping_sub(*bus).wrapping_add(*cpu)]
                        });
                        moved.chain([edge]).collect::<Vec<_>>()
                    });
                    let mut near = edges.flat_map(|edge| {
                        (0..=2 * ALIGN / 0x1000).map(move |page| {
                            (edge & !0xfff).wrapping_sub(ALIGN).wrapping_add(page * 0x1000)
                        })
                    });
                    near.any(|p| places(window, p))
                };
                let wanted: Vec<_> = each.iter().filter(has_place).collect();
                let Ok(pages) = plan else {
                    assert_eq!(plan.err(), Some(Refuse::NoPool), "{what}");
                    assert!(wanted.is_empty(), "{what}");
                    continue;
                };
                given += 1;
                let queries: Vec<_> = pages.queries(&regime, &device, Context::Blocking).collect();
                assert_eq!(queries.len(), wanted.len(), "{queries:#?} {what}");
                for (query, window) in queries.iter().zip(wanted) {
                    let asked = query.constraints;
                    let (first, last) = (asked.first.raw(), asked.last.raw() - (LEN - 1));
                    assert_eq!((asked.len, asked.align), (LEN, ALIGN), "{query:#?} {what}");
                    for (p, good) in [
                        (Some(first), true),
                        (Some(last), true),
                        (first.checked_sub(ALIGN), false),
                        (last.checked_add(ALIGN), false),
                    ] {
                        let found = p.is_some_and(|p| places(window, p));
                        assert_eq!(found, good, "{p:x?} {query:#?} {what}");
                    }
                }
            }
        }
    }
    println!("{given} of {points} points of pages of our own are given some");
    assert!(given > 0 && given < points);
}
