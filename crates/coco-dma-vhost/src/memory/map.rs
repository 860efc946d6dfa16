//! One mapping of this process's address space, unmapped with its value.
// UNSAFETY: mapping and unmapping memory is unsafe by nature; everything else here builds on it.
#![expect(unsafe_code)]

use core::ptr::{self, NonNull};
use std::io;
use std::os::fd::BorrowedFd;

use rustix::mm::{Advice, MapFlags, ProtFlags};

/// Bytes in a page.
pub(super) const PAGE: usize = 4096;

/// A mapping, readable and writable, in whole pages.
#[derive(Debug)]
pub(super) struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: a mapping belongs to the process, not to a thread; its bytes are reached through raw
// pointers only, and whoever uses those keeps threads apart.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps the first `len` bytes of `file`, shared with whoever else maps it.
    pub(super) fn of_file(file: BorrowedFd<'_>, len: usize) -> io::Result<Self> {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at a place of the kernel's choosing overlaps nothing of ours.
        let start = unsafe {
            rustix::mm::mmap(ptr::null_mut(), len, protection, MapFlags::SHARED, file, 0)
        };
        Self::new(start?.cast(), len)
    }

    /// Maps fresh memory of this process alone, filled with zeroes.
    pub(super) fn anonymous(len: usize) -> io::Result<Self> {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: as in `of_file`.
        let start = unsafe {
            rustix::mm::mmap_anonymous(ptr::null_mut(), len, protection, MapFlags::PRIVATE)
        };
        Self::new(start?.cast(), len)
    }

    /// Puts the first `len` bytes of `file` in place of what was mapped at `offset`, where both
    /// are whole pages of this mapping; what was there is gone. After an error nobody knows what
    /// is there.
    pub(super) fn put_file(
        &self,
        offset: usize,
        len: usize,
        file: BorrowedFd<'_>,
    ) -> io::Result<()> {
        let (start, protection) = (self.pages(offset, len)?, ProtFlags::READ | ProtFlags::WRITE);
        let flags = MapFlags::SHARED | MapFlags::FIXED;
        // SAFETY: the pages are this mapping's own, and whoever changes them answers for it that
        // no reference points into them; pointers stay good.
        unsafe { rustix::mm::mmap(start.as_ptr().cast(), len, protection, flags, file, 0) }?;
        Ok(())
    }

    /// Puts fresh memory of this process alone, filled with zeroes and kept out of core dumps and
    /// children, in place of what was mapped; otherwise as [`put_file`](Self::put_file).
    pub(super) fn put_anonymous(&self, offset: usize, len: usize) -> io::Result<()> {
        let (start, protection) = (self.pages(offset, len)?, ProtFlags::READ | ProtFlags::WRITE);
        let flags = MapFlags::PRIVATE | MapFlags::FIXED;
        let at = start.as_ptr().cast();
        // SAFETY: as in `put_file`.
        unsafe { rustix::mm::mmap_anonymous(at, len, protection, flags) }?;
        for advice in [Advice::LinuxDontDump, Advice::LinuxDontFork] {
            // SAFETY: as in `keep_to_ourselves`.
            unsafe { rustix::mm::madvise(at, len, advice) }?;
        }
        Ok(())
    }

    /// Where `len` bytes at `offset` lie, where both are whole pages.
    fn pages(&self, offset: usize, len: usize) -> io::Result<NonNull<u8>> {
        let whole = offset.is_multiple_of(PAGE) && len.is_multiple_of(PAGE) && len > 0;
        let part = self.part(offset, len).filter(|_| whole);
        part.map(NonNull::cast).ok_or_else(|| io::ErrorKind::InvalidInput.into())
    }

    fn new(start: *mut u8, len: usize) -> io::Result<Self> {
        let start = NonNull::new(start).ok_or(io::ErrorKind::AddrNotAvailable)?;
        Ok(Self { start, len })
    }

    /// Keeps the mapping out of core dumps and of forked children.
    pub(super) fn keep_to_ourselves(&self) -> io::Result<()> {
        for advice in [Advice::LinuxDontDump, Advice::LinuxDontFork] {
            // SAFETY: the range is this mapping; neither advice changes what we see of it.
            unsafe { rustix::mm::madvise(self.start.as_ptr().cast(), self.len, advice) }?;
        }
        Ok(())
    }

    pub(super) fn start(&self) -> NonNull<u8> {
        self.start
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The part of `len` bytes from `offset`, where it lies in the mapping.
    pub(super) fn part(&self, offset: usize, len: usize) -> Option<NonNull<[u8]>> {
        if len > self.len || offset > self.len - len {
            return None;
        }
        // SAFETY: the offset lies in the mapping.
        let start = unsafe { self.start.add(offset) };
        Some(NonNull::slice_from_raw_parts(start, len))
    }

    /// How far into the mapping `bytes` start, where they lie in it wholly.
    pub(super) fn offset_of(&self, bytes: NonNull<[u8]>) -> Option<usize> {
        let offset = bytes.cast::<u8>().addr().get().checked_sub(self.start.addr().get())?;
        (bytes.len() <= self.len && offset <= self.len - bytes.len()).then_some(offset)
    }

    /// Overwrites all of it with zeroes. Nobody else may be using it.
    pub(super) fn wipe(&mut self) {
        // SAFETY: the whole mapping is writable, and `self` is borrowed alone.
        unsafe { ptr::write_bytes(self.start.as_ptr(), 0, self.len) };
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range was mapped by us, and whoever held pointers into it borrowed us.
        // Should the kernel refuse, the mapping stays: nothing that anyone could do about it.
        let _ = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), self.len) };
    }
}
