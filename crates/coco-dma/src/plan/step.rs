//! The story of a decision: each rule that was applied, in order. A plan without a listener
//! builds none of it.

use core::fmt;

use super::memory::Cache;
use super::memory::Protection;
use super::transfer::Bytes;
use super::transfer::Transfer;
use crate::addr::AddressLimit;
use crate::addr::DmaAddr;
use crate::addr::PhysRange;
use crate::attrs::Attrs;
use crate::reason::Bounce;
use crate::reason::Direct;
use crate::reason::Refuse;
use crate::state::PoolLabel;
use crate::state::State;
use crate::state::Trust;

/// Listens to the steps of a decision. `()` listens to nothing, at no cost.
pub trait Trace {
    /// One rule was applied.
    fn step(&mut self, step: Step);
}

impl Trace for () {
    #[inline(always)]
    fn step(&mut self, _: Step) {}
}

impl<F: FnMut(Step)> Trace for F {
    #[inline]
    fn step(&mut self, step: Step) {
        self(step);
    }
}

/// What was found about one pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolVerdict {
    /// It can take the mapping.
    Suits,
    /// Its label does not suit the device or the platform.
    Label,
    /// The device does not reach all of it.
    Reach,
    /// Not even empty could it hold the mapping.
    Size,
    /// The device has a restricted pool, and this is not it.
    NotRestricted,
    /// It is kept for something else.
    Purpose,
}

/// Which limit of a device a buffer breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misfit {
    /// It is longer than the longest segment, in bytes.
    Segment(u64),
    /// It crosses the boundary that no segment may cross.
    Boundary,
    /// It shares a cache line of this many bytes with a neighbour.
    CacheLine(u64),
}

/// One rule that was applied, with what it found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step {
    /// The operation takes these attributes.
    Attributes(Attrs),
    /// The range is memory or registers of this machine.
    Range(PhysRange),
    /// The memory is in no single run.
    Unlocated,
    /// What the memory is taken to be.
    Memory {
        /// Its state.
        state: State,
        /// Whether it is registers.
        mmio: bool,
        /// Why it is taken so.
        known: Known,
    },
    /// Whether a device of this trust can reach memory in this state at all.
    Reach {
        /// The device's trust.
        trust: Trust,
        /// The memory's state.
        state: State,
        /// The answer.
        reached: bool,
    },
    /// The device has a restricted pool.
    Restricted {
        /// Whether the memory lies in it.
        inside: bool,
    },
    /// Bouncing is forced.
    Forced,
    /// No window of the bus shows the range.
    Unmapped(PhysRange),
    /// The address that the device would be given.
    Form {
        /// The bus address.
        bus: u64,
        /// The mark that the state adds to it.
        mark: u64,
        /// The sum.
        addr: DmaAddr,
    },
    /// An IOMMU domain gives the address; the state goes into its entry.
    Translated(State),
    /// The last byte against the last address in reach.
    Limit {
        /// The last byte of the mapping as the device sees it, where it does not wrap.
        last: Option<DmaAddr>,
        /// The last address in reach.
        limit: AddressLimit,
        /// Whether it is the bus that limits, not the mask.
        by_bus: bool,
    },
    /// The buffer's place does not suit the device.
    Misaligned(Misfit),
    /// The buffer shares IOMMU pages with other data, and the device is external-facing.
    SharesPages,
    /// One pool was looked at.
    Pool {
        /// Its label.
        label: PoolLabel,
        /// Where it lies.
        range: PhysRange,
        /// What was found.
        verdict: PoolVerdict,
    },
    /// A heap's memory is never bounced.
    InPlaceOnly,
    /// Pages of our own can be had.
    Pages {
        /// The state that they have to be brought into.
        state: State,
        /// Whether they have to be converted for it.
        convert: bool,
    },
    /// What is done to the bytes of a map.
    Transfer(Transfer),
    /// How the CPU maps memory in a state.
    Protection {
        /// The state.
        state: State,
        /// What its page-table entries carry.
        protection: Protection,
    },
    /// What the record of an allocation says.
    Free {
        /// Whether we converted its memory.
        converted: bool,
    },
    /// Pools kept for coherent memory go first.
    Reservoir {
        /// Whether a closed one may be grown.
        grow: bool,
    },
    /// Memory would have to be converted, and the caller may not wait.
    Atomic,
    /// The decision: pages of our own.
    Allocate,
    /// The decision: the device touches the memory where it lies.
    Direct(Direct),
    /// The decision so far: the buffer has to go through a pool.
    Bounce(Bounce),
    /// The decision: refused.
    Refuse(Refuse),
}

/// Where the state of a memory was known from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// The machine has no other.
    Machine,
    /// The ledger, or the caller of `explain`.
    Ledger,
    /// The label of the restricted pool that it lies in.
    Label,
    /// The attributes, because nobody tracks it.
    Attributes,
}

impl Step {
    /// The stable name of the rule.
    pub const fn rule(&self) -> &'static str {
        match self {
            Self::Attributes(_) => "attributes",
            Self::Range(_) | Self::Unlocated => "range",
            Self::Memory { .. } => "memory-state",
            Self::Reach { .. } => "reach",
            Self::Restricted { .. } => "restricted-pool",
            Self::Forced => "forced",
            Self::Unmapped(_) => "bus-range",
            Self::Form { .. } | Self::Translated(_) => "dma-form",
            Self::Limit { .. } => "limit",
            Self::Misaligned(_) => "alignment",
            Self::InPlaceOnly => "in-place",
            Self::SharesPages => "external-facing",
            Self::Pool { .. } => "pool",
            Self::Pages { .. } => "pages",
            Self::Transfer(_) => "copy",
            Self::Protection { .. } => "cpu-form",
            Self::Free { .. } => "ownership",
            Self::Reservoir { .. } => "reservoir",
            Self::Atomic => "context",
            Self::Allocate | Self::Direct(_) | Self::Bounce(_) | Self::Refuse(_) => "decision",
        }
    }
}

const fn told(cache: Cache) -> &'static str {
    match cache {
        Cache::WriteBack => "and it is cached",
        Cache::WriteCombine => "and writes are combined: the device does not see the caches",
        Cache::Uncached => "and it is not cached: the device does not see the caches",
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Attributes(attrs) => write!(f, "attributes: {attrs}; the operation takes them"),
            Self::Range(range) => write!(f, "{range} is a range that this machine can have"),
            Self::Unlocated => f.write_str("the buffer is in no single run of physical memory"),
            Self::Memory { state, mmio, known } => {
                let what = if mmio { "registers are" } else { "memory is" };
                let why = match known {
                    Known::Machine => "this machine knows no other state",
                    Known::Ledger => "as the ledger has it",
                    Known::Label => "the label of the restricted pool that it lies in says so",
                    Known::Attributes => "nobody tracks it, so the attributes decide",
                };
                write!(f, "the {what} {state}: {why}")
            }
            Self::Reach { trust, state, reached } => {
                let verb = if reached { "reaches" } else { "cannot reach" };
                write!(f, "an {trust} device {verb} {state} memory")
            }
            Self::Restricted { inside: true } => {
                f.write_str("the memory lies in the device's restricted pool")
            }
            Self::Restricted { inside: false } => {
                f.write_str("the device has a restricted pool, and the memory lies outside")
            }
            Self::Forced => f.write_str("every map of this device is to be bounced"),
            Self::Unmapped(range) => write!(f, "no window of the bus shows {range} whole"),
            Self::Form { bus, mark: 0, addr } => {
                write!(f, "the device's address for it is {addr}: bus address {bus:#x}, no mark")
            }
            Self::Form { bus, mark, addr } => {
                write!(f, "the device's address for it is {addr}: bus address {bus:#x} plus ")?;
                write!(f, "the mark {mark:#x}")
            }
            Self::Translated(state) => {
                write!(f, "the domain gives an address, with an entry for {state} memory")
            }
            Self::Limit { last, limit, by_bus } => {
                let whose = if by_bus { "bus" } else { "mask" };
                match last {
                    Some(last) if last.raw() <= limit.raw() => {
                        write!(f, "its last byte {last} is within the {whose}, up to {limit}")
                    }
                    Some(last) => {
                        write!(f, "its last byte {last} is past the {whose}, up to {limit}")
                    }
                    None => write!(f, "its last byte is past 64 bits (the {whose}: up to {limit})"),
                }
            }
            Self::Misaligned(misfit) => match misfit {
                Misfit::Segment(most) => {
                    write!(f, "it is longer than the device's segments of {most:#x} bytes")
                }
                Misfit::Boundary => f.write_str("it crosses the device's segment boundary"),
                Misfit::CacheLine(line) => {
                    write!(f, "it shares a cache line of {line} bytes with a neighbour, and the ")?;
                    f.write_str("device writes past the caches")
                }
            },
            Self::SharesPages => f.write_str("other data lies in the pages that an entry shows"),
            Self::InPlaceOnly => {
                f.write_str("a heap never bounces: the device reaches the memory, or stays out")
            }
            Self::Pool { label, range, verdict } => {
                let found = match verdict {
                    PoolVerdict::Suits => "can take it",
                    PoolVerdict::Label => match label {
                        PoolLabel::GuestShared => "for untrusted devices of a guest alone",
                        PoolLabel::GuestPrivate => "for accepted devices of a guest alone",
                        PoolLabel::HostPlain => "for SME hosts, where the C-bit is out of reach",
                        PoolLabel::Ordinary => "for open machines and SME hosts alone",
                    },
                    PoolVerdict::Reach => "not wholly in the device's reach",
                    PoolVerdict::Size => "too small for it, even empty",
                    PoolVerdict::Purpose => "kept for something else",
                    PoolVerdict::NotRestricted => "is not the device's restricted pool",
                };
                write!(f, "{label} at {range}: {found}")
            }
            Self::Pages { state, convert: true } => {
                write!(f, "pages of our own are converted, and become {state}")
            }
            Self::Pages { state, convert: false } => {
                write!(f, "pages of our own are {state} already")
            }
            Self::Transfer(Transfer { bytes, cache_work }) => {
                f.write_str(match bytes {
                    Bytes::Stay => "no byte is copied",
                    Bytes::Out => "the buffer is copied into the slot",
                    Bytes::Zero => "the slot is zeroed: no byte goes out that was not given",
                    Bytes::Back => "what arrived is copied back to the buffer, and nothing else",
                })?;
                f.write_str(if cache_work { "; caches are maintained" } else { "" })
            }
            Self::Protection { state, protection: Protection { mark: 0, cache } } => {
                write!(f, "page-table entries for {state} memory carry no mark, {}", told(cache))
            }
            Self::Protection { state, protection: Protection { mark, cache } } => {
                write!(
                    f,
                    "page-table entries for {state} memory carry the mark {mark:#x}, {}",
                    told(cache)
                )
            }
            Self::Free { converted: true } => {
                f.write_str("the record says that we converted the memory, so we convert it back")
            }
            Self::Free { converted: false } => {
                f.write_str("the record says that we did not convert the memory, so nobody does")
            }
            Self::Reservoir { grow } => {
                f.write_str("from the reservoir first: its memory is converted already")?;
                f.write_str(if grow { "; it may grow by a region" } else { "" })
            }
            Self::Atomic => f.write_str("atomic context never converts memory"),
            Self::Allocate => f.write_str("allocate pages of our own"),
            Self::Direct(reason) => write!(f, "direct ({reason}): {}", reason.text()),
            Self::Bounce(reason) => {
                write!(f, "bounce ({reason}): the bytes have to go through a pool")
            }
            Self::Refuse(reason) => {
                write!(f, "refuse ({reason}): {}; way out: {}", reason.text(), reason.way_out())
            }
        }
    }
}
