//! What can be wrong with a domain when it is made.

use core::fmt;

use super::IommuError;
use crate::addr::DmaAddr;
use crate::name::Name;
use crate::slots::SlotsError;

/// A domain that cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DomainError {
    /// The driver's page in bytes is no power of two, or less than 4096.
    Page(u64),
    /// The window holds not a single whole page.
    TooSmall,
    /// The window has more pages than half a word counts.
    TooLarge,
    /// The storage has fewer words than [`Domain::words`](super::Domain::words) asks for.
    Storage {
        /// Words needed.
        wanted: usize,
        /// Words given.
        given: usize,
    },
}

impl From<SlotsError> for DomainError {
    fn from(error: SlotsError) -> Self {
        match error {
            SlotsError::TooSmall => Self::TooSmall,
            SlotsError::TooLarge => Self::TooLarge,
            // The first word is not the slots'.
            SlotsError::Storage { wanted, given } => {
                Self::Storage { wanted: wanted.saturating_add(1), given: given.saturating_add(1) }
            }
        }
    }
}

impl fmt::Display for DomainError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Page(page) => {
                write!(f, "an IOMMU page of {page} bytes: not a power of two from 4096 on")
            }
            Self::TooSmall => f.write_str("the window needs room for at least one page"),
            Self::TooLarge => f.write_str("the window is longer than this machine can count"),
            Self::Storage { wanted, given } => {
                write!(f, "the domain's bookkeeping needs {wanted} words, and {given} were given")
            }
        }
    }
}

impl core::error::Error for DomainError {}

/// An IOMMU could not unmap. The device may still reach what lies there, so that all of it is kept:
/// the addresses, and the slots, the pages or the pin. Whoever has the record tries again by ending
/// it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnmapError {
    /// The device.
    pub device: Name,
    /// The first address.
    pub addr: DmaAddr,
    /// Bytes, in whole pages of the IOMMU.
    pub len: u64,
    /// The code of the IOMMU's driver; none where another thread was unmapping it at that moment,
    /// because the device lost the guest's trust.
    pub code: Option<u64>,
}

impl fmt::Display for UnmapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { device, addr, len, code } = self;
        write!(f, "{device}: {len:#x} bytes at {addr} could not be unmapped, and are kept")?;
        match code {
            Some(code) if *code == IommuError::ONLY_CLAIMED.code => {
                f.write_str(": the driver says that it was, and its table has them still")
            }
            Some(code) => write!(f, " (code {code:#x})"),
            None => f.write_str(" until another thread has ended it"),
        }
    }
}

impl core::error::Error for UnmapError {}
