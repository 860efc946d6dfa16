//! The pools of `explain`, as they are written.

use coco_dma::addr::PhysAddr;
use coco_dma::addr::PhysRange;
use coco_dma::plan::PoolInfo;
use coco_dma::state::PoolLabel;
use coco_dma::state::PoolUse;

use super::words::node_number;
use crate::number::size;
use crate::words::lookup;
use crate::words::unknown;

/// A pool as it was written.
#[derive(Clone, Debug)]
pub(crate) struct NamedPool {
    pub(crate) name: String,
    pub(crate) info: PoolInfo,
}

/// What may stand before a label, and what it changes.
type Change = fn(&mut PoolInfo);
const PREFIXES: [(&str, Change); 5] = [
    ("restricted", |pool| pool.restricted = true),
    ("machine", |pool| pool.own = false),
    ("coherent", |pool| pool.purpose = PoolUse::Coherent),
    ("streaming", |pool| pool.purpose = PoolUse::Streaming),
    ("reserve", |pool| pool.purpose = PoolUse::Reserve),
];

/// The size of a pool that was given without one.
const POOL_SIZE: u64 = 64 << 20;

/// `PREFIX:LABEL@ADDR+SIZE,node=N`, of which all but label and address may be left out.
pub(crate) fn pool(text: &str) -> Result<NamedPool, String> {
    let (rest, node) = match text.split_once(",node=") {
        Some((rest, node)) => (rest, Some(node_number(node)?)),
        None => (text, None),
    };
    let (words, place) = rest.split_once('@').ok_or_else(|| {
        format!("a pool is LABEL@ADDR or LABEL@ADDR+SIZE, as guest-shared@0x90000000, not '{text}'")
    })?;
    let (prefixes, label) = words.rsplit_once(':').unwrap_or(("", words));
    let label = lookup("pool label", label, &PoolLabel::ALL.map(|label| (label.name(), label)))?;
    let (base, len) = match place.split_once('+') {
        Some((base, len)) => (size(base)?, size(len)?),
        None => (size(place)?, POOL_SIZE),
    };
    let range = PhysRange::new(PhysAddr::new(base), len)
        .ok_or_else(|| format!("the pool '{text}' is empty or wraps"))?;
    let mut info = PoolInfo { own: true, node, ..PoolInfo::new(label, range) };
    for prefix in prefixes.split(':').filter(|_| words.contains(':')) {
        let known = PREFIXES.iter().find(|(word, _)| *word == prefix);
        let (_, change) = known.ok_or_else(|| {
            unknown("kind of pool", prefix, PREFIXES.iter().map(|(word, _)| *word))
        })?;
        change(&mut info);
    }
    if info.restricted && !info.own {
        return Err(format!("a restricted pool is its device's, not the machine's: '{text}'"));
    }
    Ok(NamedPool { name: text.to_owned(), info })
}
