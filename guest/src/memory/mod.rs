//! The guest's memory: where what lies, who hands it out, and how the CPU sees it.
//!
//! | from | what |
//! |---|---|
//! | 1 MiB | the image |
//! | 8 MiB | the heap, private |
//! | 16 MiB | the page tables, private |
//! | 20 MiB | what the guest shares before the layer exists: the tables and queues of its IOMMU |
//! | 24 MiB | frames, private until the layer shares them |

pub mod boot_shared;
pub mod frames;
pub mod heap;
pub mod paging;

/// A page, and a granule.
pub const PAGE: u64 = 4096;
/// The heap.
pub const HEAP: u64 = 8 << 20;
/// Bytes of the heap.
pub const HEAP_LEN: u64 = 8 << 20;
/// The page tables.
pub const TABLES: u64 = 16 << 20;
/// Bytes of the page tables.
pub const TABLES_LEN: u64 = 4 << 20;
/// What is shared from the start.
pub const BOOT_SHARED: u64 = 20 << 20;
/// Bytes of it.
pub const BOOT_SHARED_LEN: u64 = 4 << 20;
/// The first frame.
pub const FRAMES: u64 = 24 << 20;
/// The most memory that the guest is made for.
pub const MOST: u64 = 512 << 20;

/// The pointer to private memory: it lies at its own address.
pub fn private(at: u64) -> *mut u8 {
    core::ptr::with_exposed_provenance_mut(at as usize)
}

/// The pointer to shared memory: an alias of its own.
pub fn shared(at: u64) -> *mut u8 {
    core::ptr::with_exposed_provenance_mut((paging::ALIAS + at) as usize)
}
