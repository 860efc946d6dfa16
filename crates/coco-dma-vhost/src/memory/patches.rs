//! Memory that is private or shared patch by patch, and changes from one to the other.
//!
//! A patch never changes what lies in it, it is replaced: fresh private memory for a memory file
//! and the reverse, at the same place of this process. A device that keeps a file that it was
//! once given, against the protocol, keeps that file and sees nothing of what came after it.

use core::ptr::NonNull;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::MemoryError;
use super::map::{Mapping, PAGE};
use super::shared::sealed;

/// The name under which patches stand in `/proc/PID/maps` while they are shared, after `memfd:`.
pub const REGION_NAME: &str = "coco-dma-region";

/// What lies in a patch now.
#[derive(Debug)]
pub(crate) enum Patch {
    /// Memory of this process alone: not secret, but kept out of children and core dumps.
    Private,
    /// A memory file.
    Shared(OwnedFd),
    /// The kernel failed to replace it half-way: nobody knows.
    Unknown,
}

impl Patch {
    /// The file, while it is shared.
    pub(crate) fn file(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Shared(file) => Some(file.as_fd()),
            Self::Private | Self::Unknown => None,
        }
    }
}

/// A patch that was not replaced.
#[derive(Debug)]
pub(crate) enum Lost {
    /// It is as it was.
    Nothing(io::Error),
    /// What lies there now nobody knows.
    Everything(io::Error),
}

/// Patches of one size, side by side. They keep no record of what lies where: their owner does.
#[derive(Debug)]
pub(crate) struct Patches {
    memory: Mapping,
    size: usize,
}

impl Patches {
    /// `count` patches of `size` bytes (whole pages), all of them private and filled with zeroes.
    pub(crate) fn new(count: usize, size: usize) -> Result<Self, MemoryError> {
        let len = count.checked_mul(size).filter(|len| *len > 0 && size.is_multiple_of(PAGE));
        let limit = isize::MAX.unsigned_abs();
        let len = len.filter(|len| *len <= limit).ok_or(MemoryError::Size {
            what: "a region, in whole pages of 4096 bytes,",
            size,
            limit,
        })?;
        let kernel = |source| MemoryError::Kernel { what: "room for regions", source };
        let memory = Mapping::anonymous(len).map_err(kernel)?;
        memory.keep_to_ourselves().map_err(kernel)?;
        Ok(Self { memory, size })
    }

    /// Puts a fresh memory file, filled with zeroes, into a private patch.
    pub(crate) fn share(&self, number: usize) -> Result<OwnedFd, Lost> {
        let file = sealed(REGION_NAME, self.size).map_err(Lost::Nothing)?;
        match self.memory.put_file(number * self.size, self.size, file.as_fd()) {
            Ok(()) => Ok(file),
            Err(error) => match self.reclaim(number) {
                Ok(()) => Err(Lost::Nothing(error)),
                Err(_) => Err(Lost::Everything(error)),
            },
        }
    }

    /// Puts fresh private memory, filled with zeroes, into a patch. After an error nobody knows
    /// what lies there.
    pub(crate) fn reclaim(&self, number: usize) -> io::Result<()> {
        self.memory.put_anonymous(number * self.size, self.size)
    }

    /// Bytes of a patch.
    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// Where the first patch starts in this process; the others follow.
    pub(crate) fn start(&self) -> NonNull<u8> {
        self.memory.start()
    }

    /// How far into the patches `bytes` start, where they lie in them wholly.
    pub(crate) fn offset_of(&self, bytes: NonNull<[u8]>) -> Option<usize> {
        self.memory.offset_of(bytes)
    }
}
