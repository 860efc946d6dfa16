//! From a type without `self` to an adaptor: one static pointer a device.
// UNSAFETY: a static outlives what it points to; the guard takes the pointer out in time.
#![expect(unsafe_code)]

use core::fmt;
use core::marker::PhantomData;
use core::ptr;
use core::sync::atomic::AtomicPtr;
use core::sync::atomic::Ordering;

use coco_dma::platform::Platform;

use crate::Adaptor;

/// The static behind a type made by [`hal!`](crate::hal).
#[derive(Debug)]
pub struct Binding(AtomicPtr<()>);

/// The type is bound to another adaptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AlreadyBound;

impl fmt::Display for AlreadyBound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("this Hal type is bound to another adaptor; make one type for each device")
    }
}

impl core::error::Error for AlreadyBound {}

/// Keeps the binding; dropping it ends it.
#[derive(Debug)]
pub struct Bound<'a> {
    binding: &'static Binding,
    adaptor: PhantomData<&'a ()>,
}

impl Drop for Bound<'_> {
    fn drop(&mut self) {
        self.binding.0.store(ptr::null_mut(), Ordering::Release);
    }
}

/// What the pointer points to: a reference that is wide.
type Target<'a> = &'a Adaptor<'a, dyn Platform + 'a>;

impl Binding {
    /// Bound to nothing.
    #[expect(clippy::new_without_default, reason = "a Default would not be const")]
    pub const fn new() -> Self {
        Self(AtomicPtr::new(ptr::null_mut()))
    }

    /// Binds to the adaptor that `target` refers to, until the guard is dropped.
    ///
    /// # Safety
    ///
    /// 1. Whatever uses the type (drivers, queues) is dropped before the guard is, on every
    ///    thread.
    /// 2. The guard is dropped, not forgotten, before `target` ends.
    pub unsafe fn bind<'a>(
        &'static self,
        target: &'a Target<'a>,
    ) -> Result<Bound<'a>, AlreadyBound> {
        let pointer = ptr::from_ref(target).cast_mut().cast();
        self.0
            .compare_exchange(ptr::null_mut(), pointer, Ordering::AcqRel, Ordering::Relaxed)
            .map(|_| Bound { binding: self, adaptor: PhantomData })
            .map_err(|_| AlreadyBound)
    }

    /// Runs `use_it` with the adaptor; `None` where the type is bound to none.
    pub fn with<R>(&self, use_it: impl FnOnce(&Adaptor<'_, dyn Platform + '_>) -> R) -> Option<R> {
        let pointer = self.0.load(Ordering::Acquire).cast::<Target<'_>>();
        if pointer.is_null() {
            return None;
        }
        // SAFETY: not null, so that a guard lives; its adaptor lives by condition 2 of `bind`.
        let adaptor = unsafe { *pointer };
        Some(use_it(adaptor))
    }
}

/// Makes a type that implements `virtio_drivers::Hal` for one device, with a method `bind`.
///
/// ```
/// coco_dma_virtio::hal! {
///     /// The disk's way to memory.
///     pub struct DiskHal;
/// }
/// ```
#[macro_export]
macro_rules! hal {
    ($(#[$attr:meta])* $vis:vis struct $name:ident;) => {
        $(#[$attr])*
        #[derive(Debug)]
        $vis struct $name;

        #[allow(unsafe_code, reason = "the adaptor answers the conditions of the trait")]
        const _: () = {
            static BINDING: $crate::Binding = $crate::Binding::new();

            impl $name {
                /// Binds this type to an adaptor, until the guard is dropped.
                ///
                /// # Safety
                ///
                /// As for [`Binding::bind`]($crate::Binding::bind).
                #[allow(dead_code, reason = "made for whoever needs it")]
                $vis unsafe fn bind<'a>(
                    target: &'a &'a $crate::Adaptor<'a, dyn $crate::Platform + 'a>,
                ) -> ::core::result::Result<$crate::Bound<'a>, $crate::AlreadyBound> {
                    // SAFETY: the caller's conditions.
                    unsafe { BINDING.bind(target) }
                }
            }

            use $crate::virtio_drivers::{BufferDirection, Hal, PhysAddr};
            use ::core::ptr::NonNull;

            // SAFETY: `Adaptor` gives valid, zeroed, page-aligned memory of its own for each
            // allocation, and views that its platform answers for.
            unsafe impl Hal for $name {
                fn dma_alloc(pages: usize, _: BufferDirection) -> (PhysAddr, NonNull<u8>) {
                    BINDING
                        .with(|adaptor| adaptor.dma_alloc(pages))
                        .unwrap_or((0, NonNull::dangling()))
                }

                unsafe fn dma_dealloc(
                    paddr: PhysAddr,
                    vaddr: NonNull<u8>,
                    pages: usize,
                ) -> i32 {
                    // SAFETY: the caller's conditions.
                    BINDING.with(|adaptor| unsafe { adaptor.dma_dealloc(paddr, vaddr, pages) });
                    0
                }

                unsafe fn mmio_phys_to_virt(paddr: PhysAddr, size: usize) -> NonNull<u8> {
                    BINDING
                        // SAFETY: the caller's conditions.
                        .with(|adaptor| unsafe { adaptor.mmio_phys_to_virt(paddr, size) })
                        .expect("the Hal type is bound before a driver uses it")
                }

                unsafe fn share(buffer: NonNull<[u8]>, direction: BufferDirection) -> PhysAddr {
                    BINDING
                        // SAFETY: the caller's conditions.
                        .with(|adaptor| unsafe { adaptor.share(buffer, direction) })
                        .unwrap_or($crate::UNREACHABLE)
                }

                unsafe fn unshare(
                    paddr: PhysAddr,
                    buffer: NonNull<[u8]>,
                    direction: BufferDirection,
                ) {
                    // SAFETY: the caller's conditions.
                    BINDING.with(|adaptor| unsafe { adaptor.unshare(paddr, buffer, direction) });
                }
            }
        };
    };
}
