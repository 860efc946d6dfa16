//! Memory for pools and buffers: mapped anonymously, in huge pages where the kernel has them, and
//! touched before anything is measured.
// UNSAFETY: memory is mapped by hand, and bytes are copied between raw regions.
#![expect(unsafe_code)]

use core::ptr;
use core::ptr::NonNull;

use rustix::mm::Advice;
use rustix::mm::MapFlags;
use rustix::mm::ProtFlags;

/// A huge page of x86-64 and of Arm with pages of 4 KiB, in bytes.
const HUGE: usize = 2 << 20;

/// What buffers have at least, for mappings that nobody measures.
const SCRATCH: usize = 256 << 10;

/// A run of memory that is ours until it is dropped.
#[derive(Debug)]
pub struct Region {
    mapped: NonNull<u8>,
    mapped_len: usize,
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: a region only hands out pointers; who follows them answers for it.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

impl Region {
    /// `len` bytes, aligned to a huge page, every page touched where `touched` says so.
    pub fn new(len: usize, touched: bool) -> std::io::Result<Self> {
        let mapped_len = len.saturating_add(HUGE);
        let (prot, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE);
        // SAFETY: a new mapping at a place that the kernel chooses.
        let mapped =
            unsafe { rustix::mm::mmap_anonymous(ptr::null_mut(), mapped_len, prot, flags) }?;
        let mapped = NonNull::new(mapped.cast::<u8>()).ok_or(std::io::ErrorKind::OutOfMemory)?;
        let skip = mapped.as_ptr().align_offset(HUGE).min(HUGE);
        // SAFETY: at most the huge page that was mapped beyond what is wanted.
        let start = unsafe { mapped.add(skip) };
        // Only a hint: without huge pages the figures are those of small ones.
        // SAFETY: inside the mapping.
        let _ = unsafe { rustix::mm::madvise(start.as_ptr().cast(), len, Advice::LinuxHugepage) };
        let region = Self { mapped, mapped_len, start, len };
        if touched {
            // SAFETY: `len` bytes from `start` are in the mapping, and nobody else has them.
            unsafe { ptr::write_bytes(region.start.as_ptr(), 0x5a, len) };
        }
        // The addresses of originals are kept as numbers, as an allocator of slots does.
        let _ = region.start.as_ptr().expose_provenance();
        Ok(region)
    }

    /// Where it starts.
    #[inline]
    pub fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// Its length in bytes.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no byte.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The bytes at an offset; one past its end is a mistake of the harness, and ends it.
    #[inline]
    pub fn at(&self, offset: usize, len: usize) -> NonNull<u8> {
        assert!(offset <= self.len && len <= self.len - offset, "inside the region");
        // SAFETY: checked.
        unsafe { self.start.add(offset) }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: it was mapped with this length, and whoever got pointers borrowed the region.
        let _ = unsafe { rustix::mm::munmap(self.mapped.as_ptr().cast(), self.mapped_len) };
    }
}

/// Page-aligned buffers of a driver.
#[derive(Debug)]
pub struct Buffers {
    region: Region,
    stride: usize,
    size: usize,
}

impl Buffers {
    /// `count` buffers of `size` bytes, each on pages of its own, all touched.
    pub fn new(count: usize, size: usize) -> std::io::Result<Self> {
        let stride = size.max(1).next_multiple_of(4096);
        let wrong = std::io::ErrorKind::InvalidInput;
        let len = stride.checked_mul(count).ok_or(wrong)?.max(SCRATCH);
        Ok(Self { region: Region::new(len, true)?, stride, size })
    }

    /// The first `len` bytes, whosever they are: for mappings that nobody measures.
    pub fn scratch(&self, len: usize) -> NonNull<[u8]> {
        NonNull::slice_from_raw_parts(self.region.at(0, len), len)
    }

    /// The memory that all of them lie in: its start and its length.
    pub fn extent(&self) -> (NonNull<u8>, usize) {
        (self.region.start(), self.region.len())
    }

    /// One of them.
    #[inline]
    pub fn get(&self, index: usize) -> NonNull<[u8]> {
        NonNull::slice_from_raw_parts(self.region.at(index * self.stride, self.size), self.size)
    }
}

/// The copy that everything here is measured with: the machine's memcpy.
///
/// # Safety
///
/// `from` is readable and `to` writable for `len` bytes, and they do not overlap.
#[inline]
pub(crate) unsafe fn copy(from: NonNull<u8>, to: NonNull<u8>, len: usize) {
    // SAFETY: the caller's condition.
    unsafe { ptr::copy_nonoverlapping(from.as_ptr(), to.as_ptr(), len) };
}

/// Zeroes bytes.
///
/// # Safety
///
/// `to` is writable for `len` bytes.
#[inline]
pub(crate) unsafe fn zero(to: NonNull<u8>, len: usize) {
    // SAFETY: the caller's condition.
    unsafe { ptr::write_bytes(to.as_ptr(), 0, len) };
}
