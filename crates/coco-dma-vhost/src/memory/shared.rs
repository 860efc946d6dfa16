//! Memory that a device process is given.

use core::ptr::NonNull;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{MemfdFlags, SealFlags};

use super::MemoryError;
use super::map::{Mapping, PAGE};

/// The name under which regions stand in `/proc/PID/maps`, after `memfd:`.
pub const POOL_NAME: &str = "coco-dma-pool";

/// One region of shared memory: a memfd of fixed size, sealed, so that no process that has it can
/// cut it short under us. Whatever lies in it may be read and changed by devices at any time.
#[derive(Debug)]
pub struct SharedRegion {
    memory: Mapping,
    file: OwnedFd,
}

impl SharedRegion {
    /// A region of `size` bytes, which must be whole pages of 4096, filled with zeroes. Pages
    /// take up memory when first touched.
    ///
    /// # Errors
    ///
    /// [`MemoryError::Size`], [`MemoryError::Kernel`].
    pub fn new(size: usize) -> Result<Self, MemoryError> {
        let limit = isize::MAX.unsigned_abs();
        if size == 0 || size > limit || !size.is_multiple_of(PAGE) {
            return Err(MemoryError::Size {
                what: "a shared region, in whole pages of 4096 bytes,",
                size,
                limit,
            });
        }
        Self::make(size).map_err(|source| MemoryError::Kernel { what: "shared memory", source })
    }

    fn make(size: usize) -> io::Result<Self> {
        let file = sealed(POOL_NAME, size)?;
        let memory = Mapping::of_file(file.as_fd(), size)?;
        Ok(Self { memory, file })
    }

    /// Its size in bytes.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a region is never empty")]
    pub fn len(&self) -> usize {
        self.memory.len()
    }

    /// Its descriptor: what is sent to a device process.
    #[must_use]
    pub fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Where it starts in this process.
    pub(crate) fn start(&self) -> NonNull<u8> {
        self.memory.start()
    }

    /// How far into the region `bytes` start, where they lie in it wholly.
    pub(crate) fn offset_of(&self, bytes: NonNull<[u8]>) -> Option<usize> {
        self.memory.offset_of(bytes)
    }
}

/// A memory file of `size` bytes for good, filled with zeroes.
pub(super) fn sealed(name: &str, size: usize) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = rustix::fs::memfd_create(name, flags)?;
    rustix::fs::ftruncate(&file, u64::try_from(size).map_err(io::Error::other)?)?;
    let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&file, seals)?;
    Ok(file)
}
