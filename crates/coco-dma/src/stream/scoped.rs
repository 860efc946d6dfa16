//! The lent form of a map: a borrowed buffer, for as long as a closure runs.
//!
//! A guard over a borrowed buffer cannot be sound: forgotten, it never ends, and the borrow does.
//! A closure ends before its caller goes on, whatever is in it; if it panics, the map ends too.
// UNSAFETY: borrowed bytes are mapped, and a device may be at them while the closure runs.
#![expect(unsafe_code)]

use core::cell::Cell;
use core::fmt;
use core::marker::PhantomData;
use core::mem::ManuallyDrop;
use core::ops::Range;
use core::ptr::NonNull;

use super::ScopedMapError;
use super::StuckMapping;
use super::live::Live;
use crate::addr::DmaAddr;
use crate::attrs::Attrs;
use crate::device::Device;
use crate::platform::Platform;
use crate::shared::OutOfBounds;
use crate::state::Direction;

/// A buffer that is lent to a device, inside [`Device::with_mapped`]. It cannot leave the closure,
/// be copied or be swapped with another.
#[derive(Debug)]
pub struct ScopedMapping<'l, 'd, P: Platform + ?Sized = dyn Platform + 'd>(Ending<'l, 'd, P>);

/// Bytes that are lent to a device for reading, inside [`Device::with_mapped_ref`]. It cannot leave
/// the closure or be copied, and has nothing to write with.
#[derive(Debug)]
pub struct ScopedMappingRef<'l, 'd, P: Platform + ?Sized = dyn Platform + 'd>(Ending<'l, 'd, P>);

/// Ends a map when it is dropped, in a panic too.
struct Ending<'l, 'd, P: Platform + ?Sized> {
    live: ManuallyDrop<Live<&'l Device<'d, P>>>,
    written: Cell<usize>,
    /// Invariant: the lifetime is that of one closure and of no other.
    brand: PhantomData<Cell<&'l ()>>,
}

impl<'l, 'd, P: Platform + ?Sized> Ending<'l, 'd, P> {
    fn new(live: Live<&'l Device<'d, P>>) -> Self {
        Self { live: ManuallyDrop::new(live), written: Cell::new(0), brand: PhantomData }
    }
}

impl<P: Platform + ?Sized> Ending<'_, '_, P> {
    /// Ends the map.
    fn end(self) -> Result<(), StuckMapping> {
        let mut this = ManuallyDrop::new(self);
        // SAFETY: it is not dropped any more.
        unsafe { this.unmap() }
    }

    /// # Safety
    ///
    /// Called once, as the last thing.
    unsafe fn unmap(&mut self) -> Result<(), StuckMapping> {
        // SAFETY: this function's condition: nothing looks at it any more.
        let live = unsafe { ManuallyDrop::take(&mut self.live) };
        live.end_loan(self.written.get())
    }
}

impl<P: Platform + ?Sized> Drop for Ending<'_, '_, P> {
    fn drop(&mut self) {
        // What could not be unmapped is kept for good: there is nobody to tell.
        // SAFETY: a drop comes once, and last.
        drop(unsafe { self.unmap() });
    }
}

impl<'d, P: Platform + ?Sized> Device<'d, P> {
    /// Maps a borrowed buffer for as long as `work` runs. The map ends when `work` returns or
    /// panics: whoever gave the address to the device sees to it that the device has stopped by
    /// then, on every way out ([`DmaAddr`]). Apart from `work` nothing here blocks or converts
    /// memory; any context.
    ///
    /// What the device wrote is copied back as far as [`ScopedMapping::written`] says, and no byte where it
    /// says nothing. As for [`map`](Self::map), the attributes `MMIO` and `CC_SHARED` are refused.
    ///
    /// # Errors
    ///
    /// A refusal, with the reason and the way out; then `work` did not run. Or, behind an IOMMU, what
    /// could not be unmapped, with what `work` answered.
    pub fn with_mapped<R>(
        &self,
        buffer: &mut [u8],
        direction: Direction,
        attrs: Attrs,
        work: impl for<'l> FnOnce(&ScopedMapping<'l, 'd, P>) -> R,
    ) -> Result<R, ScopedMapError<R>> {
        // SAFETY: the buffer is borrowed, for writing and from everybody else, until this function
        // returns or unwinds; before it does `Ending` ends the map.
        let live = unsafe { Live::new(self, NonNull::from(buffer), direction, attrs) };
        let lent = ScopedMapping(Ending::new(live.map_err(ScopedMapError::Refused)?));
        let answer = work(&lent);
        match lent.0.end() {
            Ok(()) => Ok(answer),
            Err(kept) => Err(ScopedMapError::StillMapped { answer, kept }),
        }
    }

    /// Maps borrowed bytes for the device to read, for as long as `work` runs. Else as
    /// [`with_mapped`](Self::with_mapped).
    ///
    /// # Errors
    ///
    /// A refusal, with the reason and the way out; then `work` did not run. Or, behind an IOMMU, what
    /// could not be unmapped, with what `work` answered.
    pub fn with_mapped_ref<R>(
        &self,
        bytes: &[u8],
        attrs: Attrs,
        work: impl for<'l> FnOnce(&ScopedMappingRef<'l, 'd, P>) -> R,
    ) -> Result<R, ScopedMapError<R>> {
        let direction = Direction::ToDevice;
        // SAFETY: as above; the device only reads, nothing is written by a `ScopedMappingRef`, and nobody
        // else writes to bytes that are borrowed.
        let live = unsafe { Live::new(self, NonNull::from(bytes), direction, attrs) };
        let lent = ScopedMappingRef(Ending::new(live.map_err(ScopedMapError::Refused)?));
        let answer = work(&lent);
        match lent.0.end() {
            Ok(()) => Ok(answer),
            Err(kept) => Err(ScopedMapError::StillMapped { answer, kept }),
        }
    }
}

macro_rules! facts {
    ($name:ident) => {
        impl<P: Platform + ?Sized> $name<'_, '_, P> {
            /// The address for the device. A number is not access: giving it to a device is the
            /// unsafe step, and whoever does so sees to it that the device has stopped using it
            /// before the closure ends, in a panic too. See [`DmaAddr`].
            #[inline]
            pub fn addr(&self) -> DmaAddr {
                self.0.live.record().addr()
            }

            /// The length in bytes.
            #[inline]
            #[expect(clippy::len_without_is_empty, reason = "a mapping is never empty")]
            pub fn len(&self) -> usize {
                self.0.live.record().len()
            }

            /// Whether the bytes go through a pool.
            #[inline]
            pub fn is_bounced(&self) -> bool {
                self.0.live.record().is_bounced()
            }
        }
    };
}

facts!(ScopedMapping);
facts!(ScopedMappingRef);

impl<P: Platform + ?Sized> ScopedMapping<'_, '_, P> {
    /// Which way the bytes go.
    #[inline]
    pub fn direction(&self) -> Direction {
        self.0.live.record().direction()
    }

    /// Says how many bytes from the start the device wrote, as far as it can be known; more than
    /// there are counts as all of them. The last word before the closure ends counts; without
    /// one it is 0.
    pub fn written(&self, bytes: usize) {
        self.0.written.set(bytes);
    }

    /// Brings what the device wrote into `part` (bytes from the start) to the buffer. Where the
    /// device only reads nothing happens. A part that leaves the buffer is cut off at its end.
    pub fn sync_for_cpu(&self, part: Range<usize>) {
        self.0.live.sync_for_cpu(part);
    }

    /// Makes what was written into `part` (bytes from the start) of the buffer visible to the
    /// device. Where the device only writes no byte goes out. A part that leaves the buffer is cut
    /// off at its end.
    pub fn sync_for_device(&self, part: Range<usize>) {
        self.0.live.sync_for_device(part);
    }

    /// Copies bytes out of the buffer, as for [`Mapping::read`](super::Mapping::read).
    ///
    /// # Errors
    ///
    /// The access leaves the buffer: nothing was copied.
    pub fn read(&self, offset: usize, to: &mut [u8]) -> Result<(), OutOfBounds> {
        self.0.live.read(offset, to)
    }

    /// Copies bytes into the buffer, as for [`Mapping::write`](super::Mapping::write).
    ///
    /// # Errors
    ///
    /// The access leaves the buffer: nothing was copied.
    pub fn write(&self, offset: usize, from: &[u8]) -> Result<(), OutOfBounds> {
        // SAFETY: the buffer is borrowed for writing, and nobody else reads from it.
        unsafe { self.0.live.write(offset, from) }
    }
}

/// The map, never the bytes.
impl<P: Platform + ?Sized> fmt::Debug for Ending<'_, '_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { live, written, brand: _ } = self;
        f.debug_struct("Ending").field("live", live).field("written", written).finish()
    }
}
