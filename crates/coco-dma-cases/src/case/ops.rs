//! What a step can do, and what each can come to.

use coco_dma::addr::PhysRange;
use coco_dma::attrs::Attrs;
use coco_dma::plan::AllocKind;
use coco_dma::platform::ConvertError;
use coco_dma::state::{CacheMode, Context, Direction, State, Visibility};
use coco_dma_sim::{Really, Refusal};

use super::bytes::Bytes;
use super::operation::Question;

/// What a step does. Devices, pools and memories are by number, maps and allocations by name.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    Map {
        device: usize,
        memory: usize,
        offset: u64,
        size: u64,
        direction: Direction,
        attrs: Attrs,
        name: Option<String>,
    },
    MapList {
        device: usize,
        memories: Vec<usize>,
        direction: Direction,
        attrs: Attrs,
        name: Option<String>,
    },
    Unmap {
        map: String,
        /// Who ends it; without, the device that it was mapped for.
        by: Option<usize>,
        written: Option<u64>,
    },
    Sync {
        /// A map or an allocation.
        of: Target,
        for_device: bool,
        offset: u64,
        size: Option<u64>,
    },
    Alloc {
        device: usize,
        size: u64,
        kind: AllocKind,
        attrs: Attrs,
        context: Context,
        align: u64,
        name: Option<String>,
    },
    Free {
        alloc: String,
        /// Who frees it; without, the device that it was allocated for.
        by: Option<usize>,
        context: Context,
    },
    Convert {
        memory: usize,
        offset: u64,
        size: u64,
        to: Visibility,
    },
    /// Memory comes or goes.
    Plug {
        run: PhysRange,
        add: bool,
    },
    Grow(usize),
    Shrink(usize),
    Refill,
    Retry(usize),
    ReclaimAll,
    AllowSharing,
    Bind(usize),
    Rebind {
        device: usize,
        to: usize,
    },
    Revoke(usize),
    LoseTrust(usize),
    Ask(usize),
    DeviceAccess {
        device: Option<usize>,
        target: Target,
        offset: u64,
        size: Option<u64>,
        write: Option<Bytes>,
    },
    HostAccess {
        target: Target,
        offset: u64,
        size: Option<u64>,
        write: Option<Bytes>,
    },
    DriverAccess {
        target: Target,
        offset: u64,
        size: Option<u64>,
        write: Option<Bytes>,
    },
    FailConversion {
        skip: u64,
        says: Result<(), ConvertError>,
        really: Really,
    },
    RefuseConversions {
        to: Visibility,
        how: Refusal,
    },
    FailView(u64),
    FailUnmap {
        skip: u64,
        /// It answers well.
        claims: bool,
    },
    FailMap(u64),
    Heal,
    Protection {
        of: Protected,
        device: usize,
        attrs: Attrs,
    },
    Decide(Question),
    Mmap {
        alloc: String,
        offset: u64,
        size: Option<u64>,
        /// What the driver maps it with, against the layer's word.
        mark: Option<u64>,
        cache: Option<CacheMode>,
        name: Option<String>,
    },
    Check,
}

/// What a protection is asked for.
#[derive(Clone, Debug)]
pub(crate) enum Protected {
    State(State),
    Target(Target),
}

/// What bytes are touched in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Map(String),
    Alloc(String),
    /// A mapping for the CPU.
    Mapping(String),
    Memory(usize),
    Pool(usize),
    Address(u64),
}

/// The kind of a fact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Number,
    Flag,
    /// One of these words; of any where there is none.
    Word(&'static [&'static str]),
    Words,
}

/// Which reasons there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reasons {
    None,
    Plan,
    Conversion,
    Bind,
}

/// What one op can come to.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) op: &'static str,
    pub(super) outcomes: &'static [&'static str],
    pub(super) reasons: Reasons,
    pub(super) facts: &'static [(&'static str, Kind)],
    pub(super) bytes: bool,
    pub(super) rules: bool,
}

impl Rule {
    /// The outcomes that have a fact, where not all of them do.
    pub(super) fn only(&self, fact: &str) -> Option<&'static [&'static str]> {
        match fact {
            "address" => Some(&["direct", "bounce", "allocate", "done"]),
            "length" | "from" => Some(&["direct", "bounce", "allocate"]),
            "pool" | "pools" => Some(&["bounce", "allocate", "done"]),
            "cache-work" => Some(&["direct", "bounce"]),
            "segment" => Some(&["refuse"]),
            "segments" => Some(&["done"]),
            "mark" | "cache" => Some(&["done"]),
            _ => None,
        }
    }
}

const fn rule(op: &'static str, outcomes: &'static [&'static str]) -> Rule {
    Rule { op, outcomes, reasons: Reasons::None, facts: &[], bytes: false, rules: false }
}

const MAPPED: &[&str] = &["direct", "bounce", "refuse"];
const DONE: &[&str] = &["done"];
const ENDED: &[&str] = &["done", "still-mapped"];
const UNMAPPED: &[&str] = &["done", "still-mapped", "not-this-device"];
const FREED: &[&str] = &["done", "refuse", "still-mapped", "not-this-device"];
const DONE_OR_NOT: &[&str] = &["done", "refuse"];
const READ: &[&str] = &["clear", "ciphertext", "fault"];
const WRITTEN: &[&str] = &["clear", "corrupted", "lost", "fault"];
const POOL: Kind = Kind::Word(&[]);
const CONVERTED: &[(&str, Kind)] = &[("converted", Kind::Number), ("quarantined", Kind::Number)];
const CACHE: Kind = Kind::Word(&["write-back", "write-combine", "uncached"]);
const PROTECTION: &[(&str, Kind)] = &[("mark", Kind::Number), ("cache", CACHE)];
const ACCOUNT: &[(&str, Kind)] = &[
    ("shared", Kind::Number),
    ("pinned", Kind::Number),
    ("pools-in-use", Kind::Number),
    ("converting", Kind::Number),
    ("quarantined", Kind::Number),
    ("adopted", Kind::Number),
    ("foreign", Kind::Number),
];
const ANSWERS: &[(&str, Kind)] = &[
    ("max-mapping", Kind::Number),
    ("opt-mapping", Kind::Number),
    ("required-mask", Kind::Number),
    ("addressing-limited", Kind::Flag),
    ("cannot-reach-memory", Kind::Flag),
    ("needs-sync", Kind::Flag),
];

/// Every op.
pub(super) const RULES: &[Rule] = &[
    Rule {
        reasons: Reasons::Plan,
        facts: &[("address", Kind::Number), ("pool", POOL)],
        rules: true,
        ..rule("map", MAPPED)
    },
    Rule {
        reasons: Reasons::Plan,
        facts: &[("segment", Kind::Number), ("segments", Kind::Number), ("address", Kind::Number)],
        rules: true,
        ..rule("map-list", DONE_OR_NOT)
    },
    rule("unmap", UNMAPPED),
    rule("sync-for-cpu", DONE),
    rule("sync-for-device", DONE),
    Rule {
        reasons: Reasons::Plan,
        facts: &[
            ("address", Kind::Number),
            ("pool", POOL),
            ("from", Kind::Word(&["pages", "pool"])),
            ("length", Kind::Number),
        ],
        rules: true,
        ..rule("alloc", &["allocate", "refuse"])
    },
    Rule { reasons: Reasons::Plan, ..rule("free", FREED) },
    Rule { reasons: Reasons::Conversion, facts: CONVERTED, ..rule("share", DONE_OR_NOT) },
    Rule { reasons: Reasons::Conversion, facts: CONVERTED, ..rule("reclaim", DONE_OR_NOT) },
    Rule { reasons: Reasons::Conversion, ..rule("add-memory", DONE_OR_NOT) },
    Rule { reasons: Reasons::Conversion, ..rule("remove-memory", DONE_OR_NOT) },
    Rule { reasons: Reasons::Conversion, facts: CONVERTED, ..rule("grow", DONE_OR_NOT) },
    Rule { reasons: Reasons::Conversion, facts: CONVERTED, ..rule("shrink", DONE_OR_NOT) },
    Rule {
        reasons: Reasons::Conversion,
        facts: &[("pool", POOL), ("converted", Kind::Number), ("quarantined", Kind::Number)],
        ..rule("refill", DONE_OR_NOT)
    },
    Rule {
        facts: &[("recovered", Kind::Number), ("held", Kind::Number)],
        ..rule("retry-quarantine", DONE)
    },
    Rule { facts: ACCOUNT, ..rule("reclaim-all", &["done", "left"]) },
    rule("allow-sharing", DONE),
    Rule { reasons: Reasons::Bind, ..rule("bind", DONE_OR_NOT) },
    Rule { reasons: Reasons::Bind, ..rule("rebind", DONE_OR_NOT) },
    Rule { facts: &[("slots", Kind::Number)], ..rule("revoke", DONE) },
    rule("lose-trust", ENDED),
    Rule { facts: ANSWERS, ..rule("ask", DONE) },
    Rule { bytes: true, ..rule("device-read", &["clear", "ciphertext", "fault", "none"]) },
    rule("device-write", &["clear", "corrupted", "lost", "fault", "none"]),
    Rule { bytes: true, ..rule("host-read", READ) },
    rule("host-write", WRITTEN),
    Rule { bytes: true, ..rule("driver-read", &["done", "ciphertext", "fault"]) },
    rule("driver-write", &["done", "corrupted", "lost", "fault"]),
    rule("fail-conversion", DONE),
    rule("refuse-conversions", DONE),
    rule("fail-view", DONE),
    rule("fail-unmap", DONE),
    rule("fail-map", DONE),
    rule("heal", DONE),
    Rule { reasons: Reasons::Plan, facts: PROTECTION, rules: true, ..rule("mmap", DONE_OR_NOT) },
    Rule {
        reasons: Reasons::Plan,
        facts: PROTECTION,
        rules: true,
        ..rule("protection", DONE_OR_NOT)
    },
    Rule {
        reasons: Reasons::Plan,
        facts: &[
            ("address", Kind::Number),
            ("pool", POOL),
            ("pools", Kind::Words),
            ("from", Kind::Word(&["pages", "pool"])),
            ("length", Kind::Number),
            ("needs-sync", Kind::Flag),
            ("scattered", Kind::Flag),
            ("cache-work", Kind::Flag),
            ("mark", Kind::Number),
            ("cache", CACHE),
        ],
        rules: true,
        ..rule("decide", &["direct", "bounce", "refuse", "allocate", "done"])
    },
    rule("check", DONE),
];
