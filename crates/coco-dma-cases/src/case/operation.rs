//! What a case asks `plan` itself, and how its story tells it.

use core::fmt;

use coco_dma::attrs::Attrs;
use coco_dma::plan::AllocKind;
use coco_dma::state::{Context, Direction, Memory};

use super::vocabulary::{CONTEXTS, KINDS, word_of};

/// A question for `plan`: an operation on memory, for one device.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Question {
    pub(crate) device: usize,
    pub(crate) operation: Operation,
    /// Where the memory lies, if in one run; of an allocation, from where on pages are given.
    pub(crate) at: Option<u64>,
    pub(crate) size: u64,
    pub(crate) memory: Memory,
}

/// What `decide` asks `plan`.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Operation {
    Map(MapOf),
    /// The end of such a map.
    Unmap(MapOf, Alive),
    /// Each sync that such a map has use for.
    Sync(MapOf, Alive),
    Attach {
        direction: Direction,
        attrs: Attrs,
    },
    Alloc(AllocOf),
    /// The end of an allocation that is told: whether its memory was converted.
    Free {
        context: Context,
        converted: bool,
    },
    /// The end of such an allocation, made from context that may block.
    FreeOf(AllocOf),
    /// A part of such an allocation for the CPU.
    MmapOf {
        alloc: AllocOf,
        offset: u64,
        /// The rest, if it is left out.
        length: Option<u64>,
    },
    /// Memory that is no allocation, for the CPU.
    View(Attrs),
}

/// What a map is asked for with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MapOf {
    pub(crate) direction: Direction,
    pub(crate) attrs: Attrs,
    pub(crate) align: u64,
}

/// Whether the device is believed when a map is synced or ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Alive {
    Yes,
    Revoked,
}

/// What an allocation is asked for with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AllocOf {
    pub(crate) kind: AllocKind,
    pub(crate) context: Context,
    pub(crate) attrs: Attrs,
    pub(crate) align: u64,
    /// Whether there is a source of pages.
    pub(crate) pages: bool,
}

impl fmt::Display for MapOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.direction, With(self.attrs, self.align))
    }
}

impl fmt::Display for AllocOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, context) = (word_of(self.kind, &KINDS), word_of(self.context, &CONTEXTS));
        let source = if self.pages { "" } else { ", without pages" };
        write!(f, "{kind}, {context}{source}{}", With(self.attrs, self.align))
    }
}

/// Attributes and alignment, where there are any.
struct With(Attrs, u64);

impl fmt::Display for With {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(attrs, align) = *self;
        if !attrs.is_empty() {
            write!(f, ", {attrs}")?;
        }
        if align != 1 { write!(f, ", aligned to {align:#x}") } else { Ok(()) }
    }
}

impl fmt::Display for Alive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Self::Revoked { ", revoked" } else { "" })
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Map(map) => write!(f, "map ({map})"),
            Self::Unmap(map, alive) => write!(f, "unmap ({map}{alive})"),
            Self::Sync(map, alive) => write!(f, "sync ({map}{alive})"),
            Self::Attach { direction, attrs } => {
                write!(f, "attach ({direction}{})", With(*attrs, 1))
            }
            Self::Alloc(alloc) => write!(f, "alloc ({alloc})"),
            Self::Free { context, converted } => {
                let context = word_of(*context, &CONTEXTS);
                let verb = if *converted { "converted" } else { "not converted" };
                write!(f, "free ({context}, {verb})")
            }
            Self::FreeOf(alloc) => write!(f, "free ({alloc})"),
            Self::MmapOf { alloc, .. } => write!(f, "mmap ({alloc})"),
            Self::View(attrs) if attrs.is_empty() => f.write_str("mmap"),
            Self::View(attrs) => write!(f, "mmap ({attrs})"),
        }
    }
}
