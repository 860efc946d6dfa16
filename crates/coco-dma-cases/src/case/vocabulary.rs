//! The words of the format, each to its type.

use coco_dma::plan::AllocKind;
use coco_dma::reason::{Bounce, Direct, Refuse};
use coco_dma::regime::PlatformName;
use coco_dma::state::{
    Attachment, CacheMode, Context, Direction, PoolLabel, PoolOrigin, PoolUse, State, Trust,
    Visibility,
};

use crate::case::Truth;

/// The state of memory in the layer's books, as a case names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Books {
    Private,
    Shared,
    Unaccepted,
    Encrypted,
    Plain,
    Absent,
    Quarantined,
    Converting,
    Mixed,
    Untracked,
    ForeignPrivate,
    ForeignShared,
}

/// The word for a value of one of these tables.
pub(crate) fn word_of<T: PartialEq>(value: T, table: &[(&'static str, T)]) -> &'static str {
    table.iter().find(|(_, known)| *known == value).map_or("", |(word, _)| word)
}

pub(crate) fn platforms() -> [(&'static str, PlatformName); PlatformName::ALL.len()] {
    PlatformName::ALL.map(|platform| (platform.name(), platform))
}

pub(crate) fn labels() -> [(&'static str, PoolLabel); 4] {
    PoolLabel::ALL.map(|label| (label.name(), label))
}

pub(crate) const TRUST: [(&str, Trust); 2] =
    [("untrusted", Trust::Untrusted), ("accepted", Trust::Accepted)];

pub(crate) const DIRECTIONS: [(&str, Direction); 3] =
    [("to", Direction::ToDevice), ("from", Direction::FromDevice), ("both", Direction::Both)];

pub(crate) const IOMMU: [(&str, Attachment); 3] = [
    ("none", Attachment::None),
    ("passthrough", Attachment::Passthrough),
    ("translated", Attachment::Translated),
];

pub(crate) const CONTEXTS: [(&str, Context); 2] =
    [("blocking", Context::Blocking), ("atomic", Context::Atomic)];

pub(crate) const CACHES: [(&str, CacheMode); 3] = [
    ("write-back", CacheMode::WriteBack),
    ("write-combine", CacheMode::WriteCombine),
    ("uncached", CacheMode::Uncached),
];

pub(crate) const KINDS: [(&str, AllocKind); 3] = [
    ("coherent", AllocKind::Coherent),
    ("pages", AllocKind::Pages),
    ("non-contiguous", AllocKind::NonContiguous),
];

pub(crate) const ORIGINS: [(&str, PoolOrigin); 2] =
    [("adopted", PoolOrigin::Adopted), ("convertible", PoolOrigin::ConvertedAtAttach)];

pub(crate) const USES: [(&str, PoolUse); 4] = [
    ("all", PoolUse::All),
    ("streaming", PoolUse::Streaming),
    ("reserve", PoolUse::Reserve),
    ("coherent", PoolUse::Coherent),
];

pub(crate) const VISIBILITY: [(&str, Visibility); 2] =
    [("shared", Visibility::Shared), ("private", Visibility::Private)];

pub(crate) const TRUTHS: [(&str, Truth); 8] = [
    ("private", Truth::In(State::PRIVATE)),
    ("shared", Truth::In(State::SHARED)),
    ("encrypted", Truth::In(State::ENCRYPTED)),
    ("plain", Truth::In(State::PLAIN)),
    ("ordinary", Truth::In(State::Ordinary)),
    ("unaccepted", Truth::Unaccepted),
    ("lost", Truth::Lost),
    ("mixed", Truth::Mixed),
];

pub(crate) const BOOKS: [(&str, Books); 12] = [
    ("private", Books::Private),
    ("shared", Books::Shared),
    ("unaccepted", Books::Unaccepted),
    ("encrypted", Books::Encrypted),
    ("plain", Books::Plain),
    ("absent", Books::Absent),
    ("quarantined", Books::Quarantined),
    ("converting", Books::Converting),
    ("mixed", Books::Mixed),
    ("untracked", Books::Untracked),
    ("foreign-private", Books::ForeignPrivate),
    ("foreign-shared", Books::ForeignShared),
];

/// What the observer can be told.
pub(crate) const EVENTS: [&str; 10] = [
    "bounced",
    "refused",
    "converted",
    "conversion-failed",
    "cipher-changed",
    "cipher-failed",
    "recovered",
    "low-water",
    "revoked",
    "trust-lost",
];

/// Why a conversion, or a pool's growing, did not go through.
pub(crate) const CONVERSION_REASONS: [&str; 16] = [
    "wrong-state",
    "pinned",
    "untracked",
    "foreign",
    "misaligned",
    "border",
    "platform",
    "no-view",
    "quarantine-full",
    "stopped",
    "no-guest",
    "label",
    "already-open",
    "adopted",
    "closed",
    "in-use",
];

/// Why a device is not bound.
pub(crate) const BIND_REASONS: [&str; 8] = [
    "no-accepted-devices",
    "accepted-with-shared-pool",
    "restricted-label",
    "too-many-pools",
    "alignment",
    "too-many-devices",
    "pool-converts",
    "in-use",
];

pub(crate) fn direct_reasons() -> Vec<&'static str> {
    Direct::ALL.iter().map(|reason| reason.slug()).collect()
}

pub(crate) fn bounce_reasons() -> Vec<&'static str> {
    Bounce::ALL.iter().map(|reason| reason.slug()).collect()
}

/// Why what is really done is refused. What is out of reach is bounced then, or there is no pool: the
/// reasons of a bounce are those of questions about memory in place.
pub(crate) fn refuse_reasons_of_work() -> Vec<&'static str> {
    let (shared, mut reasons) = (Bounce::SharedUnreachable.slug(), refuse_reasons());
    reasons.retain(|slug| *slug == shared || !bounce_reasons().contains(slug));
    reasons
}

pub(crate) fn refuse_reasons() -> Vec<&'static str> {
    Refuse::ALL.iter().map(|reason| reason.slug()).collect()
}
