//! One object of a pool.
// UNSAFETY: the object answers for its bytes.
#![expect(unsafe_code)]

use core::fmt;
use core::ptr::NonNull;

use super::ObjectPage;
use super::ObjectPool;
use crate::addr::DmaAddr;
use crate::platform::Platform;
use crate::shared::SharedBytes;
use crate::word::Ordering;

/// An object of an [`ObjectPool`], the holder's alone until [`free`](Self::free) takes it: it cannot
/// be given twice, nor to another pool. Dropped without that it is kept and counted
/// ([`ObjectPool::lost`]), because the device may still be at it.
#[must_use = "an object that is not given back is lost"]
pub struct Object<'p, P: Platform + ?Sized = dyn Platform + 'p> {
    pool: &'p ObjectPool<'p, P>,
    page: &'p ObjectPage,
    index: usize,
    start: NonNull<u8>,
    addr: DmaAddr,
}

// SAFETY: the pointer is to bytes that nobody else in this program uses while the object lives.
unsafe impl<P: Platform + ?Sized> Send for Object<'_, P> {}

impl<'p, P: Platform + ?Sized> Object<'p, P> {
    /// The object `index` of `page`, which the caller just took.
    pub(super) fn new(
        pool: &'p ObjectPool<'p, P>,
        page: &'p ObjectPage,
        index: usize,
    ) -> Option<Self> {
        // SAFETY: an object of the page was taken, and is held until `free`.
        let memory = unsafe { page.0.memory() }?;
        let offset = pool.layout.offset(index);
        let addr = memory.0.addr().checked_add(offset as u64)?;
        if offset.checked_add(pool.layout.size())? > memory.0.bytes().len() {
            return None;
        }
        // SAFETY: it lies in the page's bytes, as was just looked at.
        let start = unsafe { memory.0.bytes().cast::<u8>().add(offset) };
        Some(Self { pool, page, index, start, addr })
    }

    /// The address for the device. To hand its number to the device is the unsafe step: whoever does
    /// it stops the device, as far as this object goes, before the object is given back.
    pub fn addr(&self) -> DmaAddr {
        self.addr
    }

    /// The bytes, which the device may change at any moment.
    pub fn bytes(&mut self) -> SharedBytes<'_> {
        // SAFETY: 1: the page is there while an object of it is held, and was zeroed. 2: nobody is
        // given a reference into it. 3: the object is borrowed exclusively, and no two overlap.
        unsafe { SharedBytes::new(self.start, self.pool.layout.size()) }
    }

    /// Gives it back: the device has stopped using it. Never blocks.
    pub fn free(self) {
        let Self { page, index, .. } = self;
        core::mem::forget(self);
        page.0.free(index);
    }
}

impl<P: Platform + ?Sized> Drop for Object<'_, P> {
    fn drop(&mut self) {
        self.pool.lost.fetch_add(1, Ordering::Relaxed);
    }
}

impl<P: Platform + ?Sized> fmt::Debug for Object<'_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (addr, len) = (&self.addr, self.pool.layout.size());
        f.debug_struct("Object").field("addr", addr).field("len", &len).finish_non_exhaustive()
    }
}
