//! Memory that the guest shares with the host by itself, before the layer exists: an emulated
//! IOMMU reads its tables and queues there. The ledger is told that it is shared.

use core::cell::Cell;
use core::ptr::NonNull;

use coco_dma::state::Visibility;

use super::BOOT_SHARED;
use super::BOOT_SHARED_LEN;
use super::PAGE;
use super::paging::PAGING;
use super::shared;
use crate::rt::OneCpu;

/// The upper half is a pool; pages are taken from the lower one.
pub const POOL: u64 = BOOT_SHARED + BOOT_SHARED_LEN / 2;
/// Bytes of the pool.
pub const POOL_LEN: u64 = BOOT_SHARED_LEN / 2;

static NEXT: OneCpu<Cell<u64>> = OneCpu::new(Cell::new(BOOT_SHARED));
static LAST: OneCpu<Cell<u64>> = OneCpu::new(Cell::new(POOL));

/// Shares all of it.
pub fn start() {
    for page in (BOOT_SHARED..BOOT_SHARED + BOOT_SHARED_LEN).step_by(PAGE as usize) {
        PAGING.convert(page, Visibility::Shared);
    }
}

/// A page, zero, for good: its address for a device and the pointer to it.
pub fn page() -> Option<(u64, NonNull<u64>)> {
    let page = NEXT.get();
    if page >= LAST.get() {
        return None;
    }
    NEXT.set(page + PAGE);
    Some((page, NonNull::new(shared(page))?.cast()))
}

/// Leaves no more than `pages` to take: what an IOMMU refuses when it has no room for a table.
pub fn limit(pages: u64) {
    LAST.set(POOL.min(NEXT.get() + pages * PAGE));
}

/// Lifts the limit.
pub fn unlimited() {
    LAST.set(POOL);
}
