//! Coherent memory for safe code: the CPU's alone until it is exposed, by copies afterwards.
// UNSAFETY: the guards answer for the memory of the record that they hold.
#![expect(unsafe_code)]

use core::fmt;
use core::mem::ManuallyDrop;

use super::AllocError;
use super::AllocSize;
use super::FreeError;
use super::NotFreed;
use super::RawCoherent;
use crate::addr::DmaAddr;
use crate::device::Answerable;
use crate::device::Device;
use crate::device::DeviceRef;
use crate::plan;
use crate::platform::Platform;
use crate::shared::SharedBytes;
use crate::state::Context;

/// Coherent memory that no device has the address of yet: fill it, then
/// [`expose`](Self::expose) it. Dropped without that it is kept and counted
/// ([`CountersNow::lost`](crate::device::CountersNow::lost)); [`discard`](Self::discard) gives it
/// back.
#[must_use = "memory that is neither exposed nor discarded is lost"]
pub struct CoherentInit<H: DeviceRef>(Held<H>);

/// Coherent memory that a device may use. Reading and writing is by copies
/// ([`bytes`](Self::bytes)), since the device may write at any moment. It ends with
/// [`free`](Self::free); dropped without that it is kept and counted, because the device may still
/// be at it.
#[must_use = "memory that is not freed is lost"]
pub struct Coherent<H: DeviceRef>(Held<H>);

/// A record with the device that it belongs to.
struct Held<H: DeviceRef> {
    handle: Answerable<H>,
    memory: ManuallyDrop<RawCoherent>,
}

impl<'d, P: Platform + ?Sized> Device<'d, P> {
    /// Allocates so many bytes that the device will reach, rounded up to whole pages (to granules
    /// where pages have to be converted) and aligned as [`alloc_raw`](Self::alloc_raw) says, zeroed.
    /// Atomic context is served from memory that is in the right state already; nothing is converted
    /// and nothing blocks there.
    pub fn alloc(
        &self,
        size: impl Into<AllocSize>,
        context: Context,
    ) -> Result<CoherentInit<&Self>, AllocError> {
        CoherentInit::new(self, size, context)
    }
}

impl<H: DeviceRef> CoherentInit<H> {
    /// Allocates as [`Device::alloc`] does, and keeps a handle of the device with the memory.
    ///
    /// # Errors
    ///
    /// As for [`Device::alloc`]; the handle is dropped.
    pub fn new(
        handle: H,
        size: impl Into<AllocSize>,
        context: Context,
    ) -> Result<Self, AllocError> {
        let memory = ManuallyDrop::new(handle.device().alloc_raw(size, context)?);
        Ok(Self(Held { handle: Answerable::new(handle), memory }))
    }

    /// The bytes, zero where nobody wrote yet.
    pub fn bytes(&mut self) -> SharedBytes<'_> {
        self.0.bytes()
    }

    /// Lets the device have the address: what was written until now is what it finds.
    pub fn expose(self) -> Coherent<H> {
        Coherent(self.0)
    }

    /// Gives the memory back.
    ///
    /// # Errors
    ///
    /// As for [`Coherent::free`].
    pub fn discard(self, context: Context) -> Result<(), FreeError<Self>> {
        self.0.give_back(context).map_err(|error| error.map(Self))
    }
}

impl<H: DeviceRef> Coherent<H> {
    /// The address for the device. To hand its number to the device is the unsafe step: whoever
    /// does it stops the device before the memory is freed.
    pub fn addr(&self) -> DmaAddr {
        self.0.memory.addr()
    }

    /// The bytes, which the device may change at any moment.
    pub fn bytes(&mut self) -> SharedBytes<'_> {
        self.0.bytes()
    }

    /// Ends it: the device has stopped using the address. Blocks where
    /// [`RawCoherent::converts_on_free`] says so.
    ///
    /// # Errors
    ///
    /// The memory, as it was: to free it would convert memory in atomic context, or the IOMMU could
    /// not unmap it.
    pub fn free(self, context: Context) -> Result<(), FreeError<Self>> {
        self.0.give_back(context).map_err(|error| error.map(Self))
    }
}

impl<H: DeviceRef> Held<H> {
    fn bytes(&mut self) -> SharedBytes<'_> {
        // SAFETY: 1: what the memory rests on outlives the lifetime in the device's type, and with
        // it the handle. 2: the pointer of the record is given to nobody else; the borrow is exclusive, so that
        // one thread looks at a time.
        unsafe { self.memory.shared_bytes() }
    }

    /// Frees the memory, unless the context forbids what that takes.
    fn give_back(mut self, context: Context) -> Result<(), FreeError<Self>> {
        if let Err(reason) = plan::free(self.memory.converts_on_free(), context, &mut ()) {
            return Err(FreeError { reason: NotFreed::Context(reason), memory: self });
        }
        // SAFETY: it is put back in the next line but one, or never looked at again.
        let memory = unsafe { ManuallyDrop::take(&mut self.memory) };
        // SAFETY: not exposed, no device ever had the address; exposed, whoever handed it over
        // stopped the device. A record of another device comes back.
        match unsafe { self.handle.device().free_raw(memory) } {
            Ok(()) => {
                self.handle.release();
                Ok(())
            }
            Err(error) => Err(error.map(|memory| {
                self.memory = ManuallyDrop::new(memory);
                self
            })),
        }
    }
}

impl<H: DeviceRef> fmt::Debug for CoherentInit<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CoherentInit").field("memory", &*self.0.memory).finish_non_exhaustive()
    }
}

impl<H: DeviceRef> fmt::Debug for Coherent<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Coherent").field("memory", &*self.0.memory).finish_non_exhaustive()
    }
}
