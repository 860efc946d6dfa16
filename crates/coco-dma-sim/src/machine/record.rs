//! What a machine remembers of what was done to it.

use std::fmt;

use coco_dma::addr::PhysAddr;
use coco_dma::addr::PhysRange;
use coco_dma::state::CacheMode;
use coco_dma::state::State;

use crate::ram::GranuleState;

/// Codes in the `ConvertError` of machines and decorators.
pub mod code {
    /// The run is not made of whole granules of RAM.
    pub const NOT_GRANULES: u64 = 1;
    /// No memory of this machine converts.
    pub const NOTHING_CONVERTS: u64 = 2;
    /// A script of [`Faulty`](crate::Faulty) refuses everything.
    pub const REFUSED: u64 = 3;
    /// An [`Adversary`](crate::Adversary) stopped the conversion.
    pub const HOSTILE: u64 = 4;
}

/// How often the layer did what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MachineCounts {
    /// Conversions to shared asked for.
    pub shares: u64,
    /// Conversions to private asked for.
    pub reclaims: u64,
    /// Granules that really changed their state in conversions.
    pub converted: u64,
    /// Granules that were in the wanted state already: nothing was done to them.
    pub already: u64,
    /// Views that began.
    pub views: u64,
    /// Bytes handed over to a device, in calls.
    pub hand_overs: u64,
    /// Bytes taken back from a device, in calls.
    pub take_backs: u64,
}

/// Something that a platform's contract forbids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Violation {
    /// A view was asked for in a state in which the memory is not. None was given.
    WrongView {
        /// The run to be seen.
        run: PhysRange,
        /// The state that was asked for.
        asked: State,
        /// The first granule, or address in it, that is in another one.
        at: PhysAddr,
        /// What that one is in; `None` where no memory is.
        found: Option<GranuleState>,
    },
    /// A view was ended that never began.
    UnknownView {
        /// The run that it was said to show.
        run: PhysRange,
    },
    /// Memory was converted that somebody had a view of.
    ConvertedUnderView {
        /// The run of the conversion.
        run: PhysRange,
        /// The run of the view.
        view: PhysRange,
    },
    /// A conversion was asked for of something else than whole granules of RAM.
    NotGranules {
        /// The run of the conversion.
        run: PhysRange,
    },
    /// A conversion was asked for on a machine where nothing converts.
    NothingConverts {
        /// The run of the conversion.
        run: PhysRange,
    },
    /// A conversion was asked for in atomic context.
    ConvertedInAtomic {
        /// The run of the conversion.
        run: PhysRange,
    },
    /// Memory was freed that was not in the state in which it was given.
    FreedConverted {
        /// The run that was freed.
        run: PhysRange,
        /// The first granule that differs.
        at: PhysAddr,
        /// What it is in.
        found: Option<GranuleState>,
    },
    /// Memory was freed that was not given, or not any more.
    FreedUntaken {
        /// The run that was freed.
        run: PhysRange,
    },
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WrongView { run, asked, at, found } => {
                write!(f, "a view of {run} as {asked} memory, but {at} is {found:?}")
            }
            Self::UnknownView { run } => write!(f, "the end of a view of {run} that never began"),
            Self::ConvertedUnderView { run, view } => {
                write!(f, "a conversion of {run} under a view of {view}")
            }
            Self::NotGranules { run } => {
                write!(f, "a conversion of {run}, which is not made of whole granules of RAM")
            }
            Self::NothingConverts { run } => {
                write!(f, "a conversion of {run} on a machine where nothing converts")
            }
            Self::ConvertedInAtomic { run } => {
                write!(f, "a conversion of {run} in atomic context")
            }
            Self::FreedConverted { run, at, found } => {
                write!(f, "{run} was freed, but {at} is {found:?}")
            }
            Self::FreedUntaken { run } => write!(f, "{run} was freed, but nobody had it"),
        }
    }
}

/// A view that has not ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct View {
    pub(super) start: usize,
    /// What the layer got with it, and gives back with it.
    pub(super) cookie: usize,
    pub(super) run: PhysRange,
    pub(super) cache: CacheMode,
}
