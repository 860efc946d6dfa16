//! The memory of one pool: reached by copies alone, each within its bounds.
// UNSAFETY: raw memory that a device writes behind the compiler's back.
#![expect(unsafe_code)]

use core::ptr;
use core::ptr::NonNull;

use crate::copy::zero;
use crate::platform::CpuView;
use crate::word::AtomicPtr;
use crate::word::AtomicUsize;
use crate::word::Ordering;

/// The memory of one pool, while it is open.
#[derive(Debug)]
pub(crate) struct Bytes {
    /// Null where there is none. Changes only while the pool is closed, so that whoever holds
    /// slots reads it without further order.
    start: AtomicPtr<u8>,
    /// The platform's word about the view at `start`. Written by whoever opens the pool and read by
    /// whoever closes it, one at a time.
    cookie: AtomicUsize,
    len: usize,
}

impl Bytes {
    /// No bytes yet, but `len` of them one day.
    pub(super) fn new(len: usize) -> Self {
        Self { start: AtomicPtr::new(ptr::null_mut()), cookie: AtomicUsize::new(0), len }
    }

    /// Where the bytes are from now on; false where there are bytes already.
    ///
    /// # Safety
    ///
    /// 1. They are readable and writable until [`unset`](Self::unset).
    /// 2. Nothing else in this program uses them until then.
    pub(super) unsafe fn set(&self, view: CpuView) -> bool {
        let CpuView { start, cookie } = view;
        let null = ptr::null_mut();
        let set =
            self.start.compare_exchange(null, start.as_ptr(), Ordering::Relaxed, Ordering::Relaxed);
        if set.is_ok() {
            self.cookie.store(cookie, Ordering::Relaxed);
        }
        set.is_ok()
    }

    /// Takes the bytes away; answers how they were seen.
    pub(super) fn unset(&self) -> Option<CpuView> {
        let cookie = self.cookie.load(Ordering::Relaxed);
        let start = NonNull::new(self.start.swap(ptr::null_mut(), Ordering::Relaxed))?;
        Some(CpuView { start, cookie })
    }

    /// How many bytes there are while there are any.
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// Whether there are bytes now.
    pub(super) fn is_set(&self) -> bool {
        !self.start.load(Ordering::Relaxed).is_null()
    }

    /// The pointer to `offset`, where `len` bytes from there lie inside the pool.
    #[inline]
    pub(crate) fn at(&self, offset: usize, len: usize) -> Option<NonNull<u8>> {
        if len > self.len || offset > self.len - len {
            return None;
        }
        let start = NonNull::new(self.start.load(Ordering::Relaxed))?;
        // SAFETY: `offset` is at most `self.len`, the size of the allocation (condition 1 of
        // `set`), which no allocation lets exceed `isize::MAX`.
        Some(unsafe { start.add(offset) })
    }

    /// Zeroes `len` bytes of the pool.
    ///
    /// # Safety
    ///
    /// The caller holds the slots.
    pub(crate) unsafe fn zero(&self, offset: usize, len: usize) {
        if let Some(to) = self.at(offset, len) {
            // SAFETY: `at` answers for the range.
            unsafe { zero(to.as_ptr(), len) };
        }
    }
}
