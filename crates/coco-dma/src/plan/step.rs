//! The story of a decision: each rule that was applied, in order. A plan without a listener
//! builds none of it.

use super::memory::Protection;
use super::rule::Rule;
use super::transfer::Transfer;
use crate::addr::AddressLimit;
use crate::addr::Alignment;
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

    /// Whether anybody listens. Steps that take work of their own are left out if not.
    #[inline]
    fn listens(&self) -> bool {
        true
    }
}

impl Trace for () {
    #[inline(always)]
    fn step(&mut self, _: Step) {}

    #[inline(always)]
    fn listens(&self) -> bool {
        false
    }
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
    /// It does not begin where the device can take it.
    Start(Alignment),
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
    /// The operation does not take these attributes.
    NotTaken(Attrs),
    /// The range is memory or registers of this machine.
    Range(PhysRange),
    /// The device takes lengths of these multiples only.
    Length(Alignment),
    /// It is longer than the device takes at once, wherever it lies.
    TooLong(Misfit),
    /// The segments of a list against the most that the device takes.
    Segments {
        /// How many the list is.
        count: usize,
        /// How many there may be.
        most: usize,
    },
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
    /// It is another device's memory.
    Peer,
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
    /// A bounce is wanted: whether there is a pool for it comes next.
    Wanted(Bounce),
    /// One pool was looked at.
    Pool {
        /// Its label.
        label: PoolLabel,
        /// Where it lies.
        range: PhysRange,
        /// What was found.
        verdict: PoolVerdict,
    },
    /// Of several pools that can take it: which is tried when.
    Order {
        /// Its place, from 0.
        place: usize,
        /// Its label.
        label: PoolLabel,
        /// Where it lies.
        range: PhysRange,
        /// Whether it is the device's own.
        own: bool,
        /// Whether it lies on another node than the device.
        far: bool,
    },
    /// The place that the first pool gives where it is empty.
    Slot {
        /// The pool's label.
        label: PoolLabel,
        /// Where it lies.
        range: PhysRange,
        /// The address that the device is given; `None` where a domain gives it.
        addr: Option<DmaAddr>,
    },
    /// A heap's memory is never bounced.
    InPlaceOnly,
    /// Pages of our own can be had.
    Pages {
        /// The state that they have to be brought into.
        state: State,
        /// Whether they have to be converted for it.
        convert: bool,
        /// How much is taken, in bytes.
        len: u64,
        /// Its alignment in bytes.
        align: u64,
    },
    /// No pages of our own are within the device's reach.
    PagesOutOfReach {
        /// The state that they would have.
        state: State,
        /// The last address in reach, with the mark of the state.
        limit: AddressLimit,
    },
    /// A part of an allocation against its bounds, in bytes.
    Part {
        /// Where it begins.
        offset: u64,
        /// How long it is.
        part: u64,
        /// How long the allocation is.
        len: u64,
        /// Whether the part lies in it.
        inside: bool,
    },
    /// The device is dead or distrusted.
    Revoked,
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
    /// Memory would have to be converted, and the caller may not wait.
    Atomic,
    /// The decision: where memory comes from, in the order in which it is tried.
    Source {
        /// Its place, from 0.
        place: usize,
        /// Which.
        source: Source,
    },
    /// The decision: the device touches the memory where it lies.
    Direct(Direct),
    /// The decision: the bytes go through a pool.
    Bounce(Bounce),
    /// The decision: refused.
    Refuse(Refuse),
}

/// A source of memory for an allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Pools kept for coherent memory.
    Reservoir {
        /// Whether a closed one may be grown.
        grow: bool,
    },
    /// Pages of our own.
    Pages,
    /// Pools for more than that.
    Pools,
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
    /// The device is not accepted, so that its registers are the host's.
    Host,
}

impl Step {
    /// The rule that was applied.
    pub const fn rule(&self) -> Rule {
        match self {
            Self::Attributes(_) | Self::NotTaken(_) => Rule::Attributes,
            Self::Peer => Rule::Peer,
            Self::Segments { .. } => Rule::Segments,
            Self::Length(_) | Self::Range(_) | Self::Unlocated => Rule::Range,
            Self::Memory { .. } => Rule::MemoryState,
            Self::Reach { .. } => Rule::Reach,
            Self::Restricted { .. } => Rule::Restricted,
            Self::Forced => Rule::Forced,
            Self::Unmapped(_) => Rule::BusRange,
            Self::Form { .. } | Self::Translated(_) => Rule::Form,
            Self::TooLong(_) | Self::Limit { .. } => Rule::Limit,
            Self::Misaligned(_) => Rule::Alignment,
            Self::InPlaceOnly => Rule::InPlace,
            Self::SharesPages => Rule::External,
            Self::Wanted(_) => Rule::Wanted,
            Self::Pool { .. } => Rule::Pool,
            Self::Order { .. } => Rule::PoolOrder,
            Self::Slot { .. } => Rule::Slot,
            Self::Pages { .. } | Self::PagesOutOfReach { .. } => Rule::Pages,
            Self::Part { .. } => Rule::Bounds,
            Self::Revoked => Rule::Revoked,
            Self::Transfer(_) => Rule::Copy,
            Self::Protection { .. } => Rule::CpuForm,
            Self::Free { .. } => Rule::Ownership,
            Self::Atomic => Rule::Context,
            Self::Source { .. } | Self::Direct(_) | Self::Bounce(_) | Self::Refuse(_) => {
                Rule::Decision
            }
        }
    }
}
