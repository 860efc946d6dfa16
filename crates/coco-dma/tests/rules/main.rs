//! The rules of `plan`, one a test: for each a request that meets it, and one that just misses it.
//! `tests/exhaustive` holds what is true of every answer; here stands what single answers are.

#![expect(clippy::unwrap_used, reason = "a test stops where it fails")]

mod alloc;
mod map;
mod pools;
mod reach;
mod story;

use coco_dma::addr::PhysAddr;
use coco_dma::addr::PhysRange;
use coco_dma::attrs::Attrs;
use coco_dma::plan;
use coco_dma::plan::AllocRequest;
use coco_dma::plan::DeviceInfo;
use coco_dma::plan::Limits;
use coco_dma::plan::MapRequest;
use coco_dma::plan::Place;
use coco_dma::plan::Plan;
use coco_dma::plan::PoolInfo;
use coco_dma::plan::ViewRequest;
use coco_dma::reason::Bounce;
use coco_dma::reason::Direct;
use coco_dma::reason::Refuse;
use coco_dma::regime::Parameters;
use coco_dma::regime::PlatformName;
use coco_dma::regime::Regime;
use coco_dma::state::Attachment;
use coco_dma::state::Context;
use coco_dma::state::Direction;
use coco_dma::state::Memory;
use coco_dma::state::PoolLabel;
use coco_dma::state::PoolUse;
use coco_dma::state::Trust;

/// Untrusted, coherent, 64 bits, no IOMMU.
const PLAIN: DeviceInfo<'static> = DeviceInfo::PLAIN;
const ACCEPTED: DeviceInfo<'static> = DeviceInfo { trust: Trust::Accepted, ..PLAIN };

fn short(bits: u32) -> DeviceInfo<'static> {
    DeviceInfo { limits: Limits::mask_bits(bits), ..PLAIN }
}

fn translated(device: DeviceInfo<'static>) -> DeviceInfo<'static> {
    DeviceInfo { attachment: Attachment::Translated, ..device }
}

fn regime(platform: PlatformName) -> Regime {
    platform.regime(&Parameters::default()).unwrap()
}

/// One page at 1 GiB, of which nobody knows anything, both ways.
fn ask<'a>(
    regime: &'a Regime,
    device: &'a DeviceInfo<'a>,
    pools: &'a [PoolInfo],
) -> MapRequest<'a> {
    MapRequest {
        regime,
        device,
        place: at(0x4000_0000),
        len: 4096,
        memory: Memory::Untracked,
        direction: Direction::Both,
        attrs: Attrs::NONE,
        align: 1,
        pools,
    }
}

/// One page from blocking context, with pages of our own at hand.
fn ask_alloc<'a>(
    regime: &'a Regime,
    device: &'a DeviceInfo<'a>,
    pools: &'a [PoolInfo],
) -> AllocRequest<'a> {
    let (len, page, align, attrs) = (4096, 4096, 1, Attrs::NONE);
    AllocRequest {
        kind: plan::AllocKind::Coherent,
        regime,
        device,
        len,
        page,
        align,
        attrs,
        context: Context::Blocking,
        pages: true,
        pools,
    }
}

fn at(base: u64) -> Place {
    Place::At(PhysAddr::new(base))
}

fn range(base: u64, len: u64) -> PhysRange {
    PhysRange::new(PhysAddr::new(base), len).unwrap()
}

/// A pool of 1 MiB for everything.
fn pool(label: PoolLabel, base: u64) -> PoolInfo {
    pool_of(label, base, 0x10_0000)
}

fn pool_of(label: PoolLabel, base: u64, len: u64) -> PoolInfo {
    PoolInfo::new(label, range(base, len))
}

fn restricted(label: PoolLabel, base: u64) -> PoolInfo {
    PoolInfo { restricted: true, ..pool(label, base) }
}

/// A plan, as far as it is compared.
#[derive(Debug, PartialEq)]
enum Answer {
    /// The reason, and the address where the plan says one.
    Direct(Direct, Option<u64>),
    /// The reason, and the pools in order.
    Bounce(Bounce, Vec<usize>),
    Refuse(Refuse),
}

impl Answer {
    fn is_direct(&self) -> bool {
        matches!(self, Self::Direct(..))
    }
}

fn answer(request: &MapRequest<'_>) -> Answer {
    match plan::map(request, &mut ()) {
        Plan::Direct { reason, addr, .. } => Answer::Direct(reason, addr.map(|addr| addr.raw())),
        Plan::Bounce { reason, pools, .. } => Answer::Bounce(reason, indexes(pools)),
        Plan::Refuse(reason) => Answer::Refuse(reason),
    }
}

/// Order without end is a mistake, too.
fn indexes(pools: plan::Candidates<'_>) -> Vec<usize> {
    pools.take(100).map(|candidate| candidate.index).collect()
}

fn in_reach(addr: u64) -> Answer {
    Answer::Direct(Direct::InReach, Some(addr))
}
