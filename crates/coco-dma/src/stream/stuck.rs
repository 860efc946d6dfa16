//! What is left of a map of safe code that an IOMMU could not unmap. What the device may still
//! reach is nobody's until it is tried again with success: the errors here hold it. They borrow
//! nothing, so that `?` carries them anywhere; dropped, they keep it for good, and the device's
//! counters show a map that never ended.
// UNSAFETY: a buffer is put together again when its map has ended, or the device never had it.
#![expect(unsafe_code)]

use core::fmt;
use core::marker::PhantomData;
use core::ptr::NonNull;

use super::MapError;
use super::OwnedBuffer;
use super::RawMapping;
use super::UnmapRawError;
use crate::copy::barrier;
use crate::device::Device;
use crate::iommu::UnmapError;
use crate::platform::Platform;

/// The slots or the pin of a map, with its addresses, which the device may still reach: in
/// quarantine until [`retry`](Self::retry) succeeds. No buffer is in it.
#[derive(Debug)]
#[must_use = "what is not retried is kept for good"]
pub struct StuckMapping {
    record: RawMapping,
    error: NotUnmapped,
}

/// Why a map of safe code did not end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotUnmapped {
    /// The handle leads to another device than the one that made the map; end it there.
    NotThisDevice,
    /// The IOMMU could not unmap it: the device may still reach it.
    StillMapped(UnmapError),
}

impl fmt::Display for NotUnmapped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotThisDevice => f.write_str("the mapping was made by another device"),
            Self::StillMapped(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for NotUnmapped {}

impl StuckMapping {
    /// Of a map whose buffer was given back.
    pub(super) fn new(record: RawMapping, error: NotUnmapped) -> Self {
        Self { record, error }
    }

    pub(super) fn record(&self) -> &RawMapping {
        &self.record
    }

    /// Why it did not end.
    pub fn error(&self) -> NotUnmapped {
        self.error
    }

    /// Tries to unmap it again, and gives everything back. Never blocks.
    ///
    /// # Errors
    ///
    /// It could not be unmapped this time either, or `device` is not the one that has it.
    pub fn retry<P: Platform + ?Sized>(self, device: &Device<'_, P>) -> Result<(), Self> {
        // SAFETY: the device has stopped by the contract of `DmaAddr`, before the map was to end.
        // With nothing written no byte of the buffer is touched, which is somebody else's.
        unsafe { again(device, self.record, 0, self.error) }
            .map_err(|(record, error)| Self { record, error })
    }
}

/// An owned buffer whose map did not end, because an IOMMU could not unmap it. The buffer is in
/// it, and is not given back while the device may reach it.
#[must_use = "what is not retried is kept for good"]
pub struct UnmapFailed<B: OwnedBuffer> {
    kept: StuckMapping,
    written: usize,
    rest: B::Rest,
    buffer: PhantomData<B>,
}

impl<B: OwnedBuffer> UnmapFailed<B> {
    pub(super) fn new(kept: StuckMapping, written: usize, rest: B::Rest) -> Self {
        Self { kept, written, rest, buffer: PhantomData }
    }

    /// Why it did not end.
    pub fn error(&self) -> NotUnmapped {
        self.kept.error
    }

    /// Tries to finish the map again, with what was said to be written, and gives the buffer back.
    /// Never blocks.
    ///
    /// # Errors
    ///
    /// It could not be unmapped this time either, or `device` is not the one that has it.
    pub fn retry<P: Platform + ?Sized>(self, device: &Device<'_, P>) -> Result<B, Self> {
        let Self { kept: StuckMapping { record, error }, written, rest, buffer } = self;
        let bytes = record.buffer();
        // SAFETY: as for `StuckMapping::retry`; the buffer is held until now by conditions 1 and 2 of
        // `OwnedBuffer`.
        match unsafe { again(device, record, written, error) } {
            // SAFETY: 1: the parts are those that `map` took apart, and the mapping is gone. 2: the
            // map has ended.
            Ok(()) => Ok(unsafe { B::from_parts(bytes, rest) }),
            Err((record, error)) => {
                Err(Self { kept: StuckMapping { record, error }, written, rest, buffer })
            }
        }
    }

    /// The buffer, where the device never reached it: the bytes went through a pool. What arrived
    /// is copied back, and the slots stay in quarantine. Never blocks.
    ///
    /// # Errors
    ///
    /// The buffer itself is mapped, or `device` is not the one that has it.
    pub fn into_buffer<P: Platform + ?Sized>(
        self,
        device: &Device<'_, P>,
    ) -> Result<(B, StuckMapping), Self> {
        if !self.kept.record.is_bounced() || self.kept.record.owner != device.owner() {
            return Err(self);
        }
        let bytes = self.kept.record.buffer();
        // SAFETY: the buffer is held until now by conditions 1 and 2 of `OwnedBuffer`, and was
        // mapped by this device.
        unsafe { device.copy_back(&self.kept.record, self.written) };
        // SAFETY: 1: the parts are those that `map` took apart, and this error is gone. 2: the
        // device has the slots, and `StuckMapping` touches no byte of the buffer.
        Ok((unsafe { B::from_parts(bytes, self.rest) }, self.kept))
    }
}

/// Ends a map once more. The record comes back, with the error before where the device is wrong.
///
/// # Safety
///
/// As for [`Device::unmap_raw`].
unsafe fn again<P: Platform + ?Sized>(
    device: &Device<'_, P>,
    record: RawMapping,
    written: usize,
    before: NotUnmapped,
) -> Result<(), (RawMapping, NotUnmapped)> {
    let buffer: NonNull<[u8]> = record.buffer();
    // SAFETY: this function's condition.
    match unsafe { device.unmap_raw(record, written) } {
        Ok(()) => {
            // What the device wrote is read anew.
            barrier(buffer.as_ptr().cast());
            Ok(())
        }
        Err(UnmapRawError::StillMapped(record, error)) => {
            Err((record, NotUnmapped::StillMapped(error)))
        }
        Err(UnmapRawError::NotThisDevice(record)) => Err((record, before)),
    }
}

/// The map, never the bytes.
impl<B: OwnedBuffer> fmt::Debug for UnmapFailed<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UnmapFailed").field("kept", &self.kept).finish_non_exhaustive()
    }
}

impl<B: OwnedBuffer> fmt::Display for UnmapFailed<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; end it again", self.kept.error)
    }
}

impl<B: OwnedBuffer> core::error::Error for UnmapFailed<B> {}

/// A loan that was refused, or did not end.
pub enum ScopedMapError<R> {
    /// The map was refused, and the closure did not run.
    Refused(MapError),
    /// The closure ran, and an IOMMU could not unmap what it was lent. The borrow has ended all the
    /// same: what arrived was copied back, and the device has stopped by the contract of
    /// [`DmaAddr`](crate::addr::DmaAddr).
    StillMapped {
        /// What the closure answered.
        answer: R,
        /// What the device may still reach.
        kept: StuckMapping,
    },
}

/// The error, never the answer.
impl<R> fmt::Debug for ScopedMapError<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(error) => f.debug_tuple("Refused").field(error).finish(),
            Self::StillMapped { answer: _, kept } => {
                f.debug_struct("StillMapped").field("kept", kept).finish_non_exhaustive()
            }
        }
    }
}

impl<R> fmt::Display for ScopedMapError<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(error) => error.fmt(f),
            Self::StillMapped { answer: _, kept } => write!(f, "{}; try again", kept.error),
        }
    }
}

impl<R> core::error::Error for ScopedMapError<R> {}
