//! Limits that went wrong once: what a device can address, and how much of it at a time.

use coco_dma::Dma;
use coco_dma::addr::AlignMask;
use coco_dma::addr::Boundary;
use coco_dma::addr::BusRange;
use coco_dma::addr::BusRanges;
use coco_dma::attrs::Attrs;
use coco_dma::device::Endpoint;
use coco_dma::ledger::Ledger;
use coco_dma::plan::Limits;
use coco_dma::regime::PlatformName;
use coco_dma::state::Context;
use coco_dma::state::Direction;
use coco_dma::state::PoolLabel;
use coco_dma_sim::Rng;
use proptest::prelude::*;

use crate::support::Arena;
use crate::support::BASE;
use crate::support::GRANULE;
use crate::support::SIZE;
use crate::support::adopt_part;
use crate::support::alloc;
use crate::support::finish;
use crate::support::free;
use crate::support::machine;
use crate::support::map;
use crate::support::metadata;
use crate::support::metadata_words;
use crate::support::run;
use crate::support::vouch;
use crate::support::words;

#[test]
fn pages_lie_where_the_bus_shows_them_and_the_mask_reaches() {
    for platform in [PlatformName::Tdx, PlatformName::Cca, PlatformName::Open] {
        let machine = machine(platform);
        let arena = Arena::new(&machine, 32 * GRANULE);
        let storage = metadata_words(GRANULE);
        let metadata = metadata(GRANULE, &storage);
        let guest = platform != PlatformName::Open;
        let ledger = if guest { Ledger::new(&metadata).unwrap() } else { Ledger::EMPTY };
        let dma = Dma::new(&machine, &[]).with_ledger(ledger).with_pages(&arena);
        // The bus shows the first half of the arena, far above; the mask reaches half of that.
        let (shown, bus) = (arena.run().slice(0, 16 * GRANULE).unwrap(), 1 << 44);
        let windows = [BusRange::new(shown, bus).unwrap()];
        let mark = if platform == PlatformName::Cca { 1 << 47 } else { 0 };
        let mask = coco_dma::addr::AddressLimit::last(bus + mark + 8 * GRANULE - 1);
        let limits = Limits { mask, ..Limits::NONE };
        let endpoint = Endpoint::new("nic").bus(BusRanges::new(&windows));
        let device = dma.bind(endpoint, limits).unwrap();
        let mut memories = Vec::new();
        while let Ok(memory) = alloc(&device, 4096, Context::Blocking) {
            assert!(memory.addr().raw() - mark - bus < 8 * GRANULE, "{platform}");
            memories.push(memory);
        }
        assert_eq!(memories.len(), 8, "{platform}: all that can be reached");
        memories.into_iter().for_each(|memory| free(&device, memory));
        assert_eq!((arena.taken(), arena.faults()), (0, vec![]));
    }
}

#[test]
fn memory_that_no_window_shows_cannot_be_reached() {
    let machine = machine(PlatformName::Tdx);
    let storage = metadata_words(GRANULE);
    let metadata = metadata(GRANULE, &storage);
    let dma = Dma::new(&machine, &[]).with_ledger(Ledger::new(&metadata).unwrap());
    let windows = [BusRange::new(run(BASE, SIZE / 2), 0).unwrap()];
    let endpoint = Endpoint::new("gpu").accepted(vouch());
    let device = dma.bind(endpoint.bus(BusRanges::new(&windows)), Limits::NONE).unwrap();
    assert!(device.addressing_limited() && !device.cannot_reach_memory(), "it reaches half");
    let windows = [BusRange::new(run(BASE, SIZE), 0).unwrap()];
    let endpoint = Endpoint::new("gpu").accepted(vouch());
    let device = dma.bind(endpoint.bus(BusRanges::new(&windows)), Limits::NONE).unwrap();
    assert!(!device.cannot_reach_memory() && !device.addressing_limited());
}

#[test]
fn a_device_that_seldom_needs_a_pool_maps_without_one() {
    let boundary = Limits { boundary: Boundary::new(1 << 16), ..Limits::NONE };
    for (platform, accepted, endpoint, limits, longest) in [
        (PlatformName::Open, false, Endpoint::new("nic").not_coherent(), Limits::NONE, u64::MAX),
        (PlatformName::Open, false, Endpoint::new("nic"), boundary, 1 << 16),
        // No run is longer than memory can be.
        (PlatformName::Snp, true, Endpoint::new("nic"), Limits::NONE, 1 << 51),
        (PlatformName::Snp, false, Endpoint::new("nic"), Limits::NONE, 0),
        (PlatformName::Tdx, true, Endpoint::new("nic").force_bounce(), Limits::NONE, 0),
        (PlatformName::Sme, false, Endpoint::new("nic"), Limits::mask_bits(32), 0),
    ] {
        let machine = machine(platform);
        let dma = Dma::new(&machine, &[]);
        let endpoint = if accepted { endpoint.accepted(vouch()) } else { endpoint };
        let device = dma.bind(endpoint, limits).unwrap();
        assert_eq!(device.max_mapping(), longest, "{platform}");
        let buffer = machine.alloc(4096).unwrap();
        let mapped = map(&device, buffer.bytes(), Direction::Both, Attrs::NONE);
        assert_eq!(mapped.is_ok(), longest > 0, "{platform}");
        if let Ok(mapping) = mapped {
            finish(&device, mapping, 0);
        }
    }
}

/// Whether an empty pool has a place for `len` bytes that keep the low bits `low`, found by
/// looking at every place.
fn has_place(base: u64, pool: u64, len: u64, keep: u64, low: u64, boundary: Option<u64>) -> bool {
    let start = low.wrapping_sub(base) & keep;
    (start..pool)
        .step_by(usize::try_from((keep + 1).max(2048)).unwrap())
        .filter(|offset| offset + len <= pool)
        .any(|offset| boundary.is_none_or(|bytes| (base + offset) % bytes + len <= bytes))
}

proptest! {
    #![proptest_config(crate::random::config(200))]

    /// What `max_mapping` says works in an empty pool wherever the buffer lies, and one byte more
    /// does not work everywhere.
    #[test]
    fn the_longest_mapping_works_and_one_byte_more_does_not(
        place in 0u64..64,
        slots in 1u64..40,
        keep in 0u32..14,
        boundary in proptest::option::of(9u32..17),
        segment in proptest::option::of(1u64..0x1_0000),
        seed in any::<u64>(),
    ) {
        let machine = machine(PlatformName::Tdx);
        // A region of whole granules, of which the pool begins and ends at any slot.
        let region = run(BASE + SIZE / 2, SIZE / 2);
        let storage = words(1 << 9);
        machine.adopt_pool_at(PoolLabel::GuestShared, region).unwrap();
        let from = region.slice(place * 512, slots * 2048).unwrap();
        let pools = [adopt_part(&machine, PoolLabel::GuestShared, from, &storage)];
        let dma = Dma::new(&machine, &pools);
        let keep = (1u64 << keep) - 1;
        let limits = Limits {
            min_align: AlignMask::new(keep).unwrap(),
            boundary: boundary.and_then(|bits| Boundary::new(1 << bits)),
            segment,
            ..Limits::NONE
        };
        let device = dma.bind(Endpoint::new("nic"), limits).unwrap();
        let longest = device.max_mapping();
        let fits = |len, low| {
            segment.is_none_or(|segment| len <= segment)
                && has_place(from.base().raw(), from.len(), len, keep, low, boundary.map(|b| 1 << b))
        };
        let every = |len| (0..=keep).all(|low| fits(len, low));
        prop_assert!(longest == 0 || every(longest), "{longest:#x} is too much");
        prop_assert!(!every(longest + 1), "{longest:#x} is too little");
        // The map itself agrees.
        let mut rng = Rng::new(seed);
        for len in [longest, longest + 1] {
            let low = rng.below(keep + 1);
            let size = usize::try_from(len).unwrap();
            if len == 0 {
                continue;
            }
            let buffer = machine.alloc_at_offset(size, usize::try_from(low).unwrap()).unwrap();
            let mapped = map(&device, buffer.bytes(), Direction::ToDevice, Attrs::NONE);
            prop_assert_eq!(mapped.is_ok(), fits(len, low));
            if let Ok(mapping) = mapped {
                finish(&device, mapping, 0);
            }
        }
        prop_assert!(device.opt_mapping() <= longest);
    }
}

#[test]
fn the_required_mask_is_that_of_the_form_which_the_device_is_given() {
    for (platform, accepted, bits) in [
        (PlatformName::Open, false, 31),
        (PlatformName::Sme, false, 48),
        (PlatformName::Snp, false, 31),
        (PlatformName::Cca, false, 48),
        (PlatformName::Cca, true, 48),
        (PlatformName::Tdx, false, 31),
        (PlatformName::Tdx, true, 52),
        (PlatformName::SnpVtom, true, 41),
        (PlatformName::Hyperv, true, 31),
        (PlatformName::Pkvm, true, 31),
    ] {
        let machine = machine(platform);
        let storage = metadata_words(GRANULE);
        let metadata = metadata(GRANULE, &storage);
        let dma = Dma::new(&machine, &[]).with_ledger(Ledger::new(&metadata).unwrap());
        let endpoint = || {
            let endpoint = Endpoint::new("nic");
            if accepted { endpoint.accepted(vouch()) } else { endpoint }
        };
        let device = dma.bind(endpoint(), Limits::NONE).unwrap();
        assert_eq!(device.required_mask(), coco_dma::addr::AddressLimit::bits(bits), "{platform}");
        assert!(!device.addressing_limited(), "{platform}");
        let device = dma.bind(endpoint(), Limits::mask_bits(bits - 1)).unwrap();
        assert!(device.addressing_limited(), "{platform}");
        // All of it is past 30 bits, private, or behind the C-bit; else the device misses the last
        // part alone, or one state.
        let none = match platform {
            PlatformName::Cca | PlatformName::Tdx | PlatformName::SnpVtom => !accepted,
            _ => true,
        };
        assert_eq!(device.cannot_reach_memory(), none, "{platform}");
    }
}
