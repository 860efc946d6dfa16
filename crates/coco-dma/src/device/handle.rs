//! Handles of a device: whatever derefs to one. A driver keeps its device, its rings and its maps in
//! one struct, whether the handle is a reference, an `Arc` or the kernel's own pointer.
// UNSAFETY: the handle is taken out of a guard whose drop would count a loss.
#![expect(unsafe_code)]

use core::fmt;
use core::mem;
use core::mem::ManuallyDrop;
use core::ops::Deref;

use super::Device;
use crate::platform::Platform;

mod sealed {
    pub trait Sealed {}
}

/// A [`Device`], of whatever lifetime and platform: there is no other.
pub trait AnyDevice: sealed::Sealed {
    /// The machine under it.
    type Platform: Platform + ?Sized;

    /// The device itself.
    fn this(&self) -> &Device<'_, Self::Platform>;
}

impl<P: Platform + ?Sized> sealed::Sealed for Device<'_, P> {}

impl<P: Platform + ?Sized> AnyDevice for Device<'_, P> {
    type Platform = P;

    #[inline]
    fn this(&self) -> &Device<'_, P> {
        self
    }
}

/// What derefs to a [`Device`]: `&Device`, `&'static Device`, `Rc`, `Arc`, `Box`, a kernel's own
/// pointer. There is nothing to implement.
///
/// Nothing is expected of the handle. A guard derefs it once in each call, and ends only what the
/// device behind it made: a handle that leads to another device by then gets an error, and the
/// guard keeps what it has. What a mapping or an allocation rests on lives as long as the lifetime
/// in the device's type says.
pub trait DeviceRef: Deref<Target: AnyDevice> + Sized {
    /// The device that it leads to now.
    #[inline]
    fn device(&self) -> &Device<'_, <Self::Target as AnyDevice>::Platform> {
        (**self).this()
    }
}

impl<H: Deref<Target: AnyDevice>> DeviceRef for H {}

/// A handle that answers for something: dropped with it, the device counts a loss.
pub(crate) struct Answerable<H: DeviceRef>(ManuallyDrop<H>);

impl<H: DeviceRef> Answerable<H> {
    pub(crate) fn new(handle: H) -> Self {
        Self(ManuallyDrop::new(handle))
    }

    /// The handle, which answers for nothing any more.
    pub(crate) fn release(mut self) -> H {
        // SAFETY: `self` is forgotten in the next line, so that this is the only use.
        let handle = unsafe { ManuallyDrop::take(&mut self.0) };
        mem::forget(self);
        handle
    }
}

impl<H: DeviceRef> Deref for Answerable<H> {
    type Target = H::Target;

    fn deref(&self) -> &H::Target {
        &self.0
    }
}

impl<H: DeviceRef> Drop for Answerable<H> {
    fn drop(&mut self) {
        self.device().count().lost();
        // SAFETY: a drop comes once, and last.
        unsafe { ManuallyDrop::drop(&mut self.0) };
    }
}

/// The device's name.
impl<H: DeviceRef> fmt::Debug for Answerable<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.device().name().fmt(f)
    }
}
