//! Errors of scatter lists.

use core::fmt;

use super::RawList;
use crate::iommu::UnmapError;
use crate::stream::MapError;

/// Why a list could not be mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ListError {
    /// It was refused.
    Refused {
        /// The element, from 0 on; none where it is the whole list.
        element: Option<usize>,
        /// Why.
        error: MapError,
    },
    /// Fewer entries were lent than the list has pieces.
    Entries {
        /// Pieces.
        wanted: usize,
        /// Entries.
        given: usize,
    },
    /// An entry that was lent holds a record.
    EntryInUse {
        /// Which, from 0 on.
        index: usize,
    },
}

impl fmt::Display for ListError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { element: Some(element), error } => {
                write!(f, "element {element}: {error}")
            }
            Self::Refused { element: None, error } => write!(f, "the whole list: {error}"),
            Self::Entries { wanted, given } => {
                write!(f, "a list of {wanted} pieces needs as many entries, not {given}")
            }
            Self::EntryInUse { index } => {
                write!(f, "entry {index} holds a record; lend empty ones")
            }
        }
    }
}

impl core::error::Error for ListError {}

/// A list that was not mapped. Nothing of it is, but for what an IOMMU could not unmap again.
#[derive(Debug)]
#[must_use = "what could not be unmapped is in it"]
pub struct ListFailed<'s> {
    /// Why.
    pub error: ListError,
    /// What was mapped before, and could not be unmapped again: to be unmapped once more, with
    /// nothing written.
    pub left: Option<RawList<'s>>,
}

impl From<ListError> for ListFailed<'_> {
    fn from(error: ListError) -> Self {
        Self { error, left: None }
    }
}

impl fmt::Display for ListFailed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)?;
        match self.left {
            None => Ok(()),
            Some(_) => f.write_str("; some of it is still mapped: unmap what is left"),
        }
    }
}

impl core::error::Error for ListFailed<'_> {}

/// A list that did not end, with all that it holds. Nothing was copied.
#[derive(Debug)]
pub enum UnmapListError<'s> {
    /// The list is another device's; unmap it there.
    NotThisDevice(RawList<'s>),
    /// The IOMMU could not unmap all of it: the device may still reach what the list holds. Unmapping
    /// it again tries again; the error is that of the first part that did not go.
    StillMapped(RawList<'s>, UnmapError),
}

impl<'s> UnmapListError<'s> {
    /// The list.
    pub fn into_list(self) -> RawList<'s> {
        match self {
            Self::NotThisDevice(list) | Self::StillMapped(list, _) => list,
        }
    }
}

impl fmt::Display for UnmapListError<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotThisDevice(_) => {
                f.write_str("the list was mapped by another device; unmap it there")
            }
            Self::StillMapped(_, error) => write!(f, "{error}; unmap the list again"),
        }
    }
}

impl core::error::Error for UnmapListError<'_> {}
