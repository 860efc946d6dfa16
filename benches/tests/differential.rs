//! The reference as an oracle: what it satisfies in an empty pool, `plan` and the pool satisfy
//! too, every alignment rule included.

#![allow(clippy::unwrap_used, reason = "a test: a panic is how it fails")]

use coco_dma::addr::AlignMask;
use coco_dma::addr::Boundary;
use coco_dma::addr::PhysAddr;
use coco_dma::addr::PhysRange;
use coco_dma::attrs::Attrs;
use coco_dma::plan;
use coco_dma::plan::Candidate;
use coco_dma::plan::DeviceInfo;
use coco_dma::plan::Limits;
use coco_dma::plan::MapRequest;
use coco_dma::plan::Place;
use coco_dma::plan::Plan;
use coco_dma::plan::PoolInfo;
use coco_dma::regime::Parameters;
use coco_dma::regime::PlatformName;
use coco_dma::state::Attachment;
use coco_dma::state::Direction;
use coco_dma::state::Memory;
use coco_dma::state::PoolLabel;
use coco_dma::state::State;
use coco_dma_bench::reference::Ask;
use coco_dma_bench::reference::Reference;
use coco_dma_bench::reference::SLOT;
use proptest::prelude::*;

/// A pool of both: 512 slots in two areas.
const SLOTS: usize = 512;
/// Where the page's size of the reference begins to matter.
const PAGE: u64 = 4096;

/// What our layer answers in an empty pool: the place of the mapping, from the pool's first byte.
fn ours(base: usize, ask: &Ask) -> Option<u64> {
    let regime = PlatformName::Tdx.regime(&Parameters::default()).unwrap();
    let range = PhysRange::new(PhysAddr::new(base as u64), (SLOTS * SLOT) as u64).unwrap();
    let pools = [PoolInfo::new(PoolLabel::GuestShared, range)];
    // An alignment of the whole allocation is an IOMMU's matter.
    let behind = ask.align_mask != 0;
    let limits = Limits {
        min_align: AlignMask::new(ask.keep_mask as u64).unwrap(),
        boundary: Boundary::new((ask.boundary_mask as u64).wrapping_add(1)),
        ..Limits::NONE
    };
    let attachment = if behind { Attachment::Translated } else { Attachment::None };
    let device = DeviceInfo { limits, attachment, ..DeviceInfo::PLAIN };
    let request = MapRequest {
        regime: &regime,
        device: &DeviceInfo { force_bounce: true, ..device },
        place: Place::At(PhysAddr::new(ask.original as u64)),
        len: ask.len as u64,
        memory: Memory::Known(State::PRIVATE),
        direction: Direction::ToDevice,
        attrs: Attrs::NONE,
        align: ask.align_mask as u64 + 1,
        pools: &pools,
    };
    let Plan::Bounce { mut pools, .. } = plan::map(&request, &mut ()) else { return None };
    let Candidate { places, pad, .. } = pools.next()?;
    Some(places.lowest() + pad)
}

fn ask() -> impl Strategy<Value = (usize, Ask)> {
    let masks = prop::sample::select(vec![0usize, 0x1ff, 0x7ff, 0xfff, 0x3fff, 0xffff]);
    let granules = prop::sample::select(vec![0usize, 0, 0xfff]);
    let boundaries =
        prop::sample::select(vec![usize::MAX, usize::MAX, 0xffff, 0x3_ffff, 0xffff_ffff]);
    let lens = prop_oneof![1usize..5000, 1usize..300_000];
    let bases = prop::sample::select(vec![0x400_0000usize, 0x401_0000, 0x7_f000_1000]);
    (bases, 1usize..1 << 34, lens, granules, masks, boundaries).prop_map(
        |(base, original, len, align_mask, keep_mask, boundary_mask)| {
            (base, Ask { original, len, align_mask, keep_mask, boundary_mask })
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn what_the_reference_satisfies_we_satisfy((base, ask) in ask()) {
        let reference = Reference::new(base, SLOTS, 2).unwrap();
        if let Some(theirs) = reference.map(0, &ask) {
            let keeps = ask.keep_mask & (ask.align_mask | (SLOT - 1) | ask.keep_mask);
            prop_assert_eq!(theirs & keeps, ask.original & keeps, "the reference itself");
            let at = ours(base, &ask);
            prop_assert!(at.is_some(), "the reference has {:#x}", theirs);
            let at = at.unwrap();
            let addr = base as u64 + at;
            let (keep, original) = (ask.keep_mask as u64, ask.original as u64);
            // Behind an IOMMU the domain gives the address, and the low bits of a page come from
            // the place.
            let kept = if ask.align_mask == 0 { keep } else { keep & (PAGE - 1) };
            prop_assert_eq!(addr & kept, original & kept, "low bits are kept");
            prop_assert!(at + ask.len as u64 <= (SLOTS * SLOT) as u64, "inside the pool");
            if let Some(boundary) = Boundary::new((ask.boundary_mask as u64).wrapping_add(1))
                && ask.align_mask == 0
            {
                prop_assert!(!boundary.crossed_by(addr, ask.len as u64), "no boundary is crossed");
            }
            if ask.align_mask == 0 && ask.keep_mask == 0 && ask.len as u64 >= PAGE {
                prop_assert_eq!(addr % PAGE, 0, "a page or more is page-aligned");
            }
        }
    }
}

/// No run of ours ends at a set of 128 slots.
#[test]
fn one_mapping_is_as_long_as_the_pool() {
    let whole = Ask::of(0x1000, SLOTS * SLOT);
    assert_eq!(Reference::new(0x400_0000, SLOTS, 2).unwrap().map(0, &whole), None);
    assert_eq!(ours(0x400_0000, &whole), Some(0));
}
