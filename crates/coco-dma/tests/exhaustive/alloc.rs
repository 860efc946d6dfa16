//! Allocations, their ends, and how they are mapped.

use coco_dma::addr::PhysAddr;
use coco_dma::addr::PhysRange;
use coco_dma::attrs::Attrs;
use coco_dma::plan::PoolInfo;
use coco_dma::plan::{self, AllocKind, AllocRequest, DeviceInfo, Limits, MmapRequest};
use coco_dma::reason::Refuse;
use coco_dma::regime::{Parameters, PlatformName};
use coco_dma::state::{Attachment, CacheMode, Context, PoolLabel, PoolUse, State, Trust};

use super::pools;
use super::table::{accepts, cpu_mark, form, own_state, pool_state};

const KINDS: [AllocKind; 3] = [AllocKind::Coherent, AllocKind::Pages, AllocKind::NonContiguous];
const CONTEXTS: [Context; 2] = [Context::Blocking, Context::Atomic];
const LEN: u64 = 0x3000;
/// What it is aligned to.
const NATURAL: u64 = 0x4000;
const GRANULE: u64 = 0x1_0000;

/// What Linux 7.3 takes for each kind; the other two say the last in their page flags.
fn takes(kind: AllocKind, attr: Attrs) -> bool {
    let coherent = [1, 2, 4, 6, 7, 8, 9];
    match kind {
        AllocKind::Coherent => coherent.contains(&attr.bits().trailing_zeros()),
        AllocKind::Pages => attr == Attrs::NO_WARN,
        AllocKind::NonContiguous => attr == Attrs::NO_WARN || attr == Attrs::ALLOC_SINGLE_PAGES,
    }
}

/// None, each, and each pair.
fn pool_sets() -> Vec<Vec<PoolInfo>> {
    let mut single = Vec::new();
    for label in PoolLabel::ALL {
        for purpose in pools::PURPOSES {
            for (base, restricted) in [(0x1000_0000, false), (0x1000_0000, true), (1 << 33, false)]
            {
                let range = PhysRange::new(PhysAddr::new(base), 0x10_0000).unwrap();
                let own = base == 1 << 33;
                single.push(PoolInfo { restricted, purpose, own, ..PoolInfo::new(label, range) });
            }
        }
    }
    pools::sets(&single)
}

/// The pools that may give it, in order: kept for it, then the reserve where nobody waits, then the
/// rest; memory behind the cipher, the device's own and what was given first go before.
fn in_order(platform: PlatformName, request: &AllocRequest<'_>) -> Vec<usize> {
    let (device, pools) = (request.device, request.pools);
    let restricted = pools.iter().any(|pool| pool.restricted);
    let fits = |pool: &PoolInfo| {
        let Some(state) = pool_state(platform, pool.label) else { return false };
        let trusts = match state {
            State::SHARED => device.trust == Trust::Untrusted,
            State::PRIVATE => device.trust == Trust::Accepted,
            _ => true,
        };
        let last = form(platform, device.trust, state, pool.range.last().raw());
        let reached = device.attachment == Attachment::Translated
            || last.is_some_and(|last| last <= device.limits.mask.raw());
        let purpose = match pool.purpose {
            PoolUse::All | PoolUse::Coherent => true,
            PoolUse::Reserve => request.context == Context::Atomic,
            PoolUse::Streaming => false,
        };
        (pool.restricted || !restricted) && trusts && reached && purpose
    };
    let mut wanted: Vec<usize> = (0..pools.len()).filter(|index| fits(&pools[*index])).collect();
    wanted.sort_by_key(|index| {
        let pool = &pools[*index];
        let purpose = [PoolUse::Coherent, PoolUse::Reserve, PoolUse::All];
        let purpose = purpose.iter().position(|purpose| *purpose == pool.purpose);
        (purpose, pool.label == PoolLabel::HostPlain, !pool.own)
    });
    wanted
}

/// Whether memory is given, or which invariant is broken.
fn judge(platform: PlatformName, request: &AllocRequest<'_>) -> Result<bool, String> {
    let ensure = |holds: bool, what: &str| if holds { Ok(()) } else { Err(what.to_owned()) };
    let device = request.device;
    let atomic = request.context == Context::Atomic;
    let restricted = request.pools.iter().any(|pool| pool.restricted);
    let translated = device.attachment == Attachment::Translated;
    let carries_c_bit = translated || device.limits.mask.raw() >= 1 << 47;
    let wanted_state = own_state(platform, device.trust, carries_c_bit);
    let converts = matches!(wanted_state, State::SHARED | State::PLAIN);
    let addr = form(platform, device.trust, wanted_state, LEN);
    let reached = translated || addr.is_some_and(|addr| addr <= device.limits.mask.raw());
    let late = atomic && converts;
    let own = request.pages && !restricted && reached && !late;
    let plan = match plan::alloc(request, &mut ()) {
        Ok(plan) => plan,
        Err(reason) => {
            let sound = !matches!(reason, Refuse::BadAttribute | Refuse::TrustLost);
            ensure(!(own && sound), "refused although there are pages in reach")?;
            ensure(
                match reason {
                    Refuse::BadAttribute => {
                        request.attrs != Attrs::NONE && !takes(request.kind, request.attrs)
                    }
                    Refuse::TrustLost => device.trust == Trust::Accepted && !accepts(platform),
                    Refuse::AtomicNeedsConversion => {
                        late && request.pages && !restricted && reached
                    }
                    Refuse::NoPool => {
                        !restricted
                            || request.pools.iter().all(|pool| {
                                !pool.restricted
                                    || !matches!(pool.purpose, PoolUse::All | PoolUse::Coherent)
                            })
                    }
                    Refuse::NoPrivatePool => device.trust == Trust::Accepted,
                    Refuse::PoolLabelMismatch => !request.pools.is_empty(),
                    Refuse::NoReachablePool => !translated && !request.pools.is_empty(),
                    _ => false,
                },
                &format!("{reason} is not true"),
            )?;
            return Ok(false);
        }
    };
    ensure(request.attrs.is_empty() || takes(request.kind, request.attrs), "an alien attribute")?;
    ensure(plan.needs_sync == (!device.coherent && request.kind != AllocKind::Coherent), "syncs")?;
    let cached = device.coherent || plan.needs_sync;
    ensure((plan.cache == CacheMode::WriteBack) == cached, "cached where nobody keeps it true")?;
    let combined = plan.cache == CacheMode::WriteCombine;
    ensure(!combined || request.attrs == Attrs::WRITE_COMBINE, "combined, and nobody asked")?;
    ensure(
        plan.scattered == (translated && request.kind == AllocKind::NonContiguous),
        "in several runs where nothing joins them",
    )?;
    let wanted = in_order(platform, request);
    let spares = plan.pages.is_none_or(|pages| pages.convert && request.len < 2 << 20);
    let kept = |index: &usize| request.pools[*index].purpose == PoolUse::Coherent;
    ensure(
        plan.reservoir.is_some() == (spares && wanted.iter().any(kept)),
        "the reservoir where it spares nothing, or not where it does",
    )?;
    if let Some(reservoir) = plan.reservoir {
        ensure(reservoir.grow != atomic, "atomic context grows, or another does not")?;
        let first: Vec<usize> = reservoir.pools.map(|candidate| candidate.index).collect();
        ensure(first.iter().all(kept), "not kept for it")?;
    }
    ensure(plan.pages.is_some() == own, "pages out of reach, or none that could be had")?;
    if let Some(pages) = plan.pages {
        ensure(request.pages && !restricted, "pages where none may be")?;
        ensure(!(pages.convert && atomic), "atomic context converts")?;
        ensure(pages.convert == converts, "converted for nothing")?;
        ensure(pages.state == wanted_state, "pages in another state than this device's")?;
        // An SME host converts page by page.
        let granules = pages.convert && platform != PlatformName::Sme;
        let unit = if granules { GRANULE } else { request.page };
        ensure(
            pages.unit == unit && pages.len.is_multiple_of(unit),
            "a part of a granule converts",
        )?;
        ensure(pages.align == NATURAL.max(unit), "not aligned to its size, or to more")?;
        ensure(
            pages.len >= request.len && pages.len - request.len < unit,
            "too much or too little",
        )?;
    }
    ensure((plan.extent.len, plan.extent.align) == (LEN, NATURAL), "another extent")?;
    let first = plan.reservoir.into_iter().flat_map(|first| first.pools);
    let candidates: Vec<_> = first.chain(plan.pools.into_iter().flatten()).collect();
    let order: Vec<usize> = candidates.iter().map(|candidate| candidate.index).collect();
    ensure(order == wanted, "other pools, or another order")?;
    for candidate in candidates {
        let pool = request.pools[candidate.index];
        let state = pool_state(platform, pool.label);
        ensure(Some(candidate.state) == state, "the label's state")?;
        let base = form(platform, device.trust, candidate.state, pool.range.base().raw());
        let given = candidate.base.map(|base| base.raw());
        ensure(given == base.filter(|_| !translated), "the slot's form")?;
        let seen = base.filter(|_| !translated).unwrap_or(pool.range.base().raw());
        ensure((seen + candidate.places.lowest()).is_multiple_of(NATURAL), "the slot's alignment")?;
    }
    Ok(true)
}

#[test]
fn every_allocation() {
    let every = if cfg!(debug_assertions) { 97 } else { 1 };
    let (sets, mut points, mut given) = (pool_sets(), 0u64, 0u64);
    let attrs: Vec<Attrs> =
        Attrs::NAMED.iter().map(|(_, attr)| *attr).chain([Attrs::NONE]).collect();
    for platform in PlatformName::ALL {
        let numbers = Parameters { granule: Some(GRANULE), ..Parameters::default() };
        let regime = platform.regime(&numbers).unwrap();
        for bits in 0..96u32 {
            let flag = |bit: u32| bits >> bit & 1 == 1;
            let device = DeviceInfo {
                trust: if flag(0) { Trust::Accepted } else { Trust::Untrusted },
                coherent: !flag(1),
                limits: Limits::mask_bits(if flag(2) { 32 } else { 64 }),
                attachment: match bits / 32 {
                    0 => Attachment::None,
                    1 => Attachment::Passthrough,
                    _ => Attachment::Translated,
                },
                ..DeviceInfo::PLAIN
            };
            for kind in KINDS {
                for attrs in &attrs {
                    for pools in &sets {
                        points += 1;
                        if points % every != 0 {
                            continue;
                        }
                        let request = AllocRequest {
                            regime: &regime,
                            device: &device,
                            kind,
                            len: LEN,
                            page: 0x1000,
                            align: 1,
                            attrs: *attrs,
                            context: if flag(3) { Context::Atomic } else { Context::Blocking },
                            pages: flag(4),
                            pools,
                        };
                        match judge(platform, &request) {
                            Ok(memory) => given += u64::from(memory),
                            Err(broken) => panic!("{broken}: {platform} {request:#?}"),
                        }
                    }
                }
            }
        }
    }
    println!("{given} of {points} points of allocations are given memory");
    assert!(given > 0);
}

#[test]
fn every_free() {
    for converted in [false, true] {
        for context in CONTEXTS {
            let refused = converted && context == Context::Atomic;
            assert_eq!(plan::free(converted, context, &mut ()).is_err(), refused);
        }
    }
}

#[test]
fn every_mapping_of_an_allocation() {
    let parts = [0, 1, 0x1000, 0x2000, 0x2001, u64::MAX];
    let (mut points, mut mapped) = (0u64, 0u64);
    for platform in PlatformName::ALL {
        let regime = platform.regime(&Parameters::default()).unwrap();
        for state in
            [State::PRIVATE, State::SHARED, State::ENCRYPTED, State::PLAIN, State::Ordinary]
        {
            for (kind, coherent) in KINDS.into_iter().flat_map(|kind| [(kind, true), (kind, false)])
            {
                for attrs in Attrs::NAMED.iter().map(|(_, attr)| *attr).chain([Attrs::NONE]) {
                    for (offset, part) in
                        parts.iter().flat_map(|offset| parts.map(|part| (*offset, part)))
                    {
                        let len = 0x2000;
                        let request = MmapRequest {
                            regime: &regime,
                            kind,
                            state,
                            coherent,
                            attrs,
                            len,
                            offset,
                            part,
                        };
                        points += 1;
                        let end = u128::from(offset) + u128::from(part);
                        let inside = part > 0 && end <= u128::from(len);
                        match plan::mmap(&request, &mut ()) {
                            Err(Refuse::BadAttribute) => {
                                assert!(!attrs.is_empty() && !takes(kind, attrs));
                            }
                            Err(Refuse::OutOfBounds) => assert!(!inside),
                            Err(Refuse::InvalidRange) => {
                                assert_eq!(cpu_mark(platform, state), None);
                            }
                            Err(other) => panic!("{other}: {request:?}"),
                            Ok(protection) => {
                                assert!(inside && (attrs.is_empty() || takes(kind, attrs)));
                                mapped += 1;
                                assert_eq!(Some(protection.mark), cpu_mark(platform, state));
                                let cached = coherent || kind != AllocKind::Coherent;
                                assert_eq!(protection.cache == CacheMode::WriteBack, cached);
                                if protection.cache == CacheMode::WriteCombine {
                                    assert_eq!(attrs, Attrs::WRITE_COMBINE);
                                }
                            }
                        }
                    }
                }
            }
        }
    }
    println!("{mapped} of {points} points of mappings of allocations are mapped");
    assert!(mapped > 0);
}
