//! What a case asks `plan` itself, and how its story tells it.

use core::fmt;

use coco_dma::attrs::Attrs;
use coco_dma::plan::AllocKind;
use coco_dma::state::{Context, Direction};

use super::vocabulary::{CONTEXTS, KINDS, word_of};

/// What `decide` asks `plan`.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Operation {
    Map { direction: Direction, attrs: Attrs, align: u64 },
    Attach { direction: Direction, attrs: Attrs },
    Alloc { kind: AllocKind, context: Context, attrs: Attrs, align: u64, pages: bool },
    Free { context: Context, converted: bool },
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let with = |f: &mut fmt::Formatter<'_>, attrs: &Attrs, align: u64| {
            if !attrs.is_empty() {
                write!(f, ", {attrs}")?;
            }
            if align != 1 { write!(f, ", aligned to {align:#x})") } else { f.write_str(")") }
        };
        match self {
            Self::Map { direction, attrs, align } => {
                write!(f, "map ({direction}")?;
                with(f, attrs, *align)
            }
            Self::Attach { direction, attrs } => {
                write!(f, "attach ({direction}")?;
                with(f, attrs, 1)
            }
            Self::Alloc { kind, context, attrs, align, pages } => {
                let (kind, context) = (word_of(*kind, &KINDS), word_of(*context, &CONTEXTS));
                let source = if *pages { "" } else { ", without pages" };
                write!(f, "alloc ({kind}, {context}{source}")?;
                with(f, attrs, *align)
            }
            Self::Free { context, converted } => {
                let context = word_of(*context, &CONTEXTS);
                let verb = if *converted { "converted" } else { "not converted" };
                write!(f, "free ({context}, {verb})")
            }
        }
    }
}
