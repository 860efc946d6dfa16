//! A map that lives: what the owned and the lent form have in common.
// UNSAFETY: the raw map is made, looked into and ended, while a device may be at the bytes.
#![expect(unsafe_code)]

use core::fmt;
use core::ops::Range;
use core::ptr::NonNull;

use super::MapError;
use super::NotUnmapped;
use super::RawMapping;
use super::StuckMapping;
use crate::attrs::Attrs;
use crate::copy::barrier;
use crate::copy::copy;
use crate::device::Answerable;
use crate::device::AnyDevice;
use crate::device::Device;
use crate::device::DeviceRef;
use crate::reason::Refuse;
use crate::shared::OutOfBounds;
use crate::state::Direction;
use crate::state::Memory;

/// Assertions about memory that is not the program's own. Owned and lent buffers are: their type
/// says so.
const ABOUT_OTHER_MEMORY: Attrs = Attrs::MMIO.with(Attrs::CC_SHARED);

/// A raw map together with the device that made it. All access of the CPU goes through copies, so
/// that the compiler takes nothing for granted about bytes that a device may write. It is not
/// `Sync`, as the record is not: one thread looks at a time.
///
/// The handle may lead to another device in the next call: each derefs it once, and does nothing to
/// what that device did not make.
pub(super) struct Live<H: DeviceRef> {
    handle: H,
    record: RawMapping,
}

impl<H: DeviceRef> Live<H> {
    /// Maps a buffer whose type says that it is private memory.
    ///
    /// # Safety
    ///
    /// Until the map has ended (for ever, if it never is):
    ///
    /// 1. `buffer` is initialised and valid for reads, and for writes if the device writes.
    /// 2. Nobody but this value and the device writes to it, nor reads from it if the device
    ///    writes.
    pub(super) unsafe fn new(
        handle: H,
        buffer: NonNull<[u8]>,
        direction: Direction,
        attrs: Attrs,
    ) -> Result<Self, MapError> {
        let device = handle.device();
        if attrs.without(ABOUT_OTHER_MEMORY) != attrs {
            device.count().refused();
            return Err(MapError {
                device: device.name().into(),
                reason: Refuse::BadAttribute,
                len: buffer.len(),
                memory: Memory::Untracked,
            });
        }
        // What the driver wrote is written before the device can have the address.
        barrier(buffer.as_ptr().cast());
        // SAFETY: 1 and 2 are this function's. 3 is the contract of `DmaAddr`: whoever hands the
        // number to the device stops it before the map ends.
        let record = unsafe { device.map_raw(buffer, direction, attrs) }?;
        Ok(Self { handle, record })
    }

    /// The same map; dropped from now on, it counts as lost.
    pub(super) fn answerable(self) -> Live<Answerable<H>> {
        Live { handle: Answerable::new(self.handle), record: self.record }
    }

    pub(super) fn record(&self) -> &RawMapping {
        &self.record
    }

    pub(super) fn sync_for_cpu(&self, part: Range<usize>) {
        let Some(device) = self.maker() else { return };
        // SAFETY: the conditions of `map_raw` hold as in `new`, and this is its device.
        unsafe { device.sync_for_cpu(&self.record, part) };
    }

    pub(super) fn sync_for_device(&self, part: Range<usize>) {
        let Some(device) = self.maker() else { return };
        // SAFETY: the conditions of `map_raw` hold as in `new`, and this is its device.
        unsafe { device.sync_for_device(&self.record, part) };
    }

    pub(super) fn read(&self, offset: usize, to: &mut [u8]) -> Result<(), OutOfBounds> {
        let from = self.at(offset, to.len())?;
        // SAFETY: `at` answers for the source, the reference for the destination. They do not
        // overlap: nobody else has a reference to the buffer that could be written through.
        unsafe { copy(from.as_ptr(), to.as_mut_ptr(), to.len()) };
        Ok(())
    }

    /// Copies `from` into the buffer.
    ///
    /// # Safety
    ///
    /// The buffer is valid for writes, and nobody else reads from it.
    pub(super) unsafe fn write(&self, offset: usize, from: &[u8]) -> Result<(), OutOfBounds> {
        let to = self.at(offset, from.len())?;
        // SAFETY: `at` and the caller answer for the destination, the reference for the source.
        // They do not overlap, since nobody else has a reference to the buffer.
        unsafe { copy(from.as_ptr(), to.as_ptr(), from.len()) };
        Ok(())
    }

    /// The device, where the handle still leads to the one that made the map.
    fn maker(&self) -> Option<&Device<'_, <H::Target as AnyDevice>::Platform>> {
        Some(self.handle.device()).filter(|device| self.record.owner == device.owner())
    }

    /// Ends the map, and answers with the buffer; or with what is left, where the handle leads to
    /// another device, or an IOMMU could not unmap it. The handle comes back in any case.
    pub(super) fn end(self, written: usize) -> (H, Result<NonNull<[u8]>, StuckMapping>) {
        let Self { handle, record } = self;
        let ended = Self::end_of(handle.device(), record, written);
        (handle, ended)
    }

    fn end_of(
        device: &Device<'_, <H::Target as AnyDevice>::Platform>,
        record: RawMapping,
        written: usize,
    ) -> Result<NonNull<[u8]>, StuckMapping> {
        if record.owner != device.owner() {
            return Err(StuckMapping::new(record, NotUnmapped::NotThisDevice));
        }
        let buffer = record.buffer();
        // SAFETY: by the contract of `DmaAddr` the device has stopped, and the conditions of
        // `map_raw` held as in `new`. The record is this device's.
        match unsafe { device.end(&mut device.hand(), record, written) } {
            Ok(()) => {
                // What the device wrote is read anew.
                barrier(buffer.as_ptr().cast());
                Ok(buffer)
            }
            Err((record, error)) => Err(StuckMapping::new(record, NotUnmapped::StillMapped(error))),
        }
    }

    /// The same for a buffer that is its owner's again in any case: what arrived is brought to it.
    pub(super) fn end_loan(self, written: usize) -> Result<(), StuckMapping> {
        let (handle, ended) = self.end(written);
        let device = handle.device();
        ended.map(drop).inspect_err(|kept| {
            if kept.record().owner == device.owner() {
                // SAFETY: the conditions of `map_raw` held as in `new`, and this is its device.
                unsafe { device.copy_back(kept.record(), written) };
            }
        })
    }

    /// The pointer to `offset` of the buffer, where `len` bytes from there lie in it.
    fn at(&self, offset: usize, len: usize) -> Result<NonNull<u8>, OutOfBounds> {
        let buffer = self.record.buffer();
        OutOfBounds::check(offset, len, buffer.len())?;
        // SAFETY: `offset` is at most the length of the buffer, which is one allocation.
        Ok(unsafe { buffer.cast::<u8>().add(offset) })
    }
}

/// The map, never the bytes.
impl<H: DeviceRef> fmt::Debug for Live<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Live")
            .field("device", &self.handle.device().name())
            .field("record", &self.record)
            .finish()
    }
}
