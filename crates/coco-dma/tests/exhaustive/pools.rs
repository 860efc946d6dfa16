//! The pools of a point: none, each alone, each pair; in three modes.

use coco_dma::addr::{PhysAddr, PhysRange};
use coco_dma::plan::{MapRequest, PoolInfo};
use coco_dma::regime::PlatformName;
use coco_dma::state::{Attachment, PoolLabel, PoolUse, State, Trust};

use super::table::{form, pool_state};

pub(crate) const PURPOSES: [PoolUse; 4] =
    [PoolUse::All, PoolUse::Streaming, PoolUse::Reserve, PoolUse::Coherent];

const NEAR: u64 = 0x1000_0000;
const FAR: u64 = 0x2_0000_0000;
const LEN: u64 = 0x10_0000;

/// Whose a pool is: the machine's, the device's own, or the only one that the device may use.
const MODES: [(bool, bool); 3] = [(false, false), (true, false), (true, true)];

fn pools(bases: &[u64], purposes: &[PoolUse]) -> Vec<PoolInfo> {
    let mut all = Vec::new();
    for label in PoolLabel::ALL {
        for base in bases {
            let range = PhysRange::new(PhysAddr::new(*base), LEN).unwrap();
            for (own, restricted) in MODES {
                all.extend(purposes.iter().map(|purpose| PoolInfo {
                    own,
                    restricted,
                    purpose: *purpose,
                    ..PoolInfo::new(label, range)
                }));
            }
        }
    }
    all
}

/// One pool of each label below and above 4 GiB, in every mode, for each of these uses.
pub(crate) fn placed(purposes: &[PoolUse]) -> Vec<PoolInfo> {
    pools(&[NEAR, FAR], purposes)
}

/// The same below 4 GiB alone, for all uses.
pub(crate) fn near() -> Vec<PoolInfo> {
    pools(&[NEAR], &[PoolUse::All])
}

/// No pool, each of these alone, and each pair.
pub(crate) fn sets(single: &[PoolInfo]) -> Vec<Vec<PoolInfo>> {
    let alone = single.iter().map(|one| vec![*one]);
    let pairs = single.iter().flat_map(|a| single.iter().map(|b| vec![*a, *b]));
    [Vec::new()].into_iter().chain(alone).chain(pairs).collect()
}

/// What the pools of one map come to.
pub(crate) struct Found {
    /// Those that the device may use for a map at all.
    pub(crate) offered: Vec<usize>,
    /// Those of them whose label fits.
    pub(crate) labelled: Vec<usize>,
    /// Those of these that are in reach, in the order in which they are to be tried: memory behind
    /// the cipher, the device's own and what was given first go before.
    pub(crate) suit: Vec<usize>,
}

/// The pools for a bounce; `forced` is one that is wanted for its own sake.
pub(crate) fn found(platform: PlatformName, request: &MapRequest<'_>, forced: bool) -> Found {
    let (device, pools) = (request.device, request.pools);
    let limit = device.limits.mask.raw().min(device.bus_limit.raw());
    let translated = device.attachment == Attachment::Translated;
    let restricted = pools.iter().any(|pool| pool.restricted);
    let all = pools.iter().enumerate();
    let offered: Vec<usize> = all
        .filter(|(_, pool)| pool.restricted || !restricted)
        .filter(|(_, pool)| matches!(pool.purpose, PoolUse::All | PoolUse::Streaming))
        .map(|(index, _)| index)
        .collect();
    let fits = |index: &usize| match pool_state(platform, pools[*index].label) {
        None => false,
        Some(State::SHARED) => device.trust == Trust::Untrusted,
        Some(State::PRIVATE) => device.trust == Trust::Accepted,
        // The cipher is given up for a device that cannot carry its bit, or where a bounce is wanted.
        Some(State::PLAIN) => forced || (!translated && limit < 1 << 47),
        Some(_) => true,
    };
    let labelled: Vec<usize> = offered.iter().copied().filter(fits).collect();
    let reached = |index: &usize| {
        let pool = &pools[*index];
        let last = pool_state(platform, pool.label)
            .and_then(|state| form(platform, device.trust, state, pool.range.last().raw()));
        translated || last.is_some_and(|last| last <= limit)
    };
    let mut suit: Vec<usize> = labelled.iter().copied().filter(reached).collect();
    suit.sort_by_key(|index| (pools[*index].label == PoolLabel::HostPlain, !pools[*index].own));
    Found { offered, labelled, suit }
}
