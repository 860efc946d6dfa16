//! The owned form of a map: the buffer is given away and comes back at the end. Sound from safe
//! code, `mem::forget` included.
// UNSAFETY: a buffer is mapped as raw parts, and put together again when the map has ended.
#![expect(unsafe_code)]

use core::fmt;
use core::marker::PhantomData;
use core::ops::Range;

use super::MapFailed;
use super::OwnedBuffer;
use super::UnmapFailed;
use super::live::Live;
use crate::addr::DmaAddr;
use crate::attrs::Attrs;
use crate::device::Answerable;
use crate::device::Device;
use crate::device::DeviceRef;
use crate::platform::Platform;
use crate::shared::OutOfBounds;
use crate::state::Direction;

/// A buffer that is mapped for a device. While it is, there is no way to the bytes but copies;
/// [`unmap`](Self::unmap) gives the buffer back.
///
/// A mapping that is dropped without being finished may still be in the device's hands: its
/// buffer is never freed and its slots are never given to anyone else. The device's counters show
/// it as [`lost`](crate::device::CountersNow::lost). Forgotten (`mem::forget`, a cycle of
/// reference counts), it keeps the same, and shows in
/// [`live`](crate::device::CountersNow::live) alone.
///
/// `H` is any handle of the device ([`DeviceRef`]). All of it may be called in any context; the last
/// `Arc` frees the device in the context in which the mapping ends.
#[must_use = "a mapping that is not finished keeps its buffer and its slots for good"]
pub struct Mapping<H: DeviceRef, B: OwnedBuffer> {
    live: Live<Answerable<H>>,
    rest: B::Rest,
    buffer: PhantomData<B>,
}

impl<'d, P: Platform + ?Sized> Device<'d, P> {
    /// Maps a buffer for the device and keeps it until [`Mapping::unmap`]. Never blocks and
    /// never converts memory.
    ///
    /// Bounced, a buffer for the device to read is copied in; where the device only writes, it
    /// sees zeroes instead: no byte of the old buffer goes out.
    ///
    /// The type of a buffer says that it is private memory of this program: the attributes
    /// [`MMIO`](Attrs::MMIO) and [`CC_SHARED`](Attrs::CC_SHARED), which assert something else,
    /// are refused. For memory of another kind there is [`map_raw`](Self::map_raw).
    ///
    /// # Errors
    ///
    /// A refusal, with the reason and the way out, and with the buffer, untouched.
    pub fn map<B: OwnedBuffer>(
        &self,
        buffer: B,
        direction: Direction,
        attrs: Attrs,
    ) -> Result<Mapping<&Self, B>, MapFailed<B>> {
        Mapping::new(self, buffer, direction, attrs)
    }
}

impl<H: DeviceRef, B: OwnedBuffer> Mapping<H, B> {
    /// Maps a buffer as [`Device::map`] does, and keeps a handle of the device with it: an `Arc`, say,
    /// so that a driver has both in one struct.
    ///
    /// ```
    /// # extern crate alloc;
    /// # use alloc::{sync::Arc, vec::Vec};
    /// use coco_dma::device::DeviceRef;
    /// use coco_dma::stream::Mapping;
    /// use coco_dma::coherent::Coherent;
    ///
    /// struct Nic<H: DeviceRef + Clone> {
    ///     device: H,
    ///     ring: Coherent<H>,
    ///     inflight: [Option<Mapping<H, Vec<u8>>>; 4],
    /// }
    /// # use coco_dma::{attrs::Attrs, state::Direction, stream::MapError};
    ///
    /// impl<H: DeviceRef + Clone> Nic<H> {
    ///     fn send(&mut self, slot: usize, packet: Vec<u8>) -> Result<(), MapError> {
    ///         let device = self.device.clone();
    ///         let mapping = Mapping::new(device, packet, Direction::ToDevice, Attrs::NONE)?;
    ///         // The number of `mapping.addr()` goes into the ring here.
    ///         self.inflight[slot] = Some(mapping);
    ///         Ok(())
    ///     }
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// As for [`Device::map`]; the handle is dropped.
    pub fn new(
        handle: H,
        buffer: B,
        direction: Direction,
        attrs: Attrs,
    ) -> Result<Self, MapFailed<B>> {
        let (bytes, rest) = buffer.into_parts();
        // SAFETY: conditions 1 and 2 of `OwnedBuffer`, until `from_parts`: which is called when
        // there is no map, or in `unmap`.
        match unsafe { Live::new(handle, bytes, direction, attrs) } {
            Ok(live) => Ok(Self { live: live.answerable(), rest, buffer: PhantomData }),
            Err(error) => {
                // SAFETY: the parts are those of this buffer, and no map holds the bytes.
                Err(MapFailed::new(error, unsafe { B::from_parts(bytes, rest) }))
            }
        }
    }

    /// The address for the device. A number is not access: giving it to a device is the unsafe
    /// step, and whoever does so sees to it that the device has stopped using it before
    /// [`unmap`](Self::unmap). See [`DmaAddr`].
    #[inline]
    pub fn addr(&self) -> DmaAddr {
        self.live.record().addr()
    }

    /// The length in bytes.
    #[inline]
    #[expect(clippy::len_without_is_empty, reason = "a mapping is never empty")]
    pub fn len(&self) -> usize {
        self.live.record().len()
    }

    /// Which way the bytes go.
    #[inline]
    pub fn direction(&self) -> Direction {
        self.live.record().direction()
    }

    /// Whether the bytes go through a pool.
    #[inline]
    pub fn is_bounced(&self) -> bool {
        self.live.record().is_bounced()
    }

    /// Brings what the device wrote into `part` (bytes from the start) to the buffer. Where the
    /// device only reads nothing happens. A part that leaves the mapping is cut off at its end.
    pub fn sync_for_cpu(&mut self, part: Range<usize>) {
        self.live.sync_for_cpu(part);
    }

    /// Makes what was written into `part` (bytes from the start) of the buffer visible to the
    /// device. Where the device only writes no byte goes out. A part that leaves the mapping is
    /// cut off at its end.
    pub fn sync_for_device(&mut self, part: Range<usize>) {
        self.live.sync_for_device(part);
    }

    /// Copies bytes out of the buffer, as the last [`sync_for_cpu`](Self::sync_for_cpu) left it.
    /// Where the bytes go without a pool the device may have written since, or be just about it:
    /// then the copy is a mixture, and still a copy.
    ///
    /// # Errors
    ///
    /// The access leaves the buffer: nothing was copied.
    pub fn read(&self, offset: usize, to: &mut [u8]) -> Result<(), OutOfBounds> {
        self.live.read(offset, to)
    }

    /// Copies bytes into the buffer. [`sync_for_device`](Self::sync_for_device) shows them to the
    /// device (which may see them earlier where the bytes go without a pool).
    ///
    /// # Errors
    ///
    /// The access leaves the buffer: nothing was copied.
    pub fn write(&mut self, offset: usize, from: &[u8]) -> Result<(), OutOfBounds> {
        // SAFETY: the buffer was owned, and nobody else reads from it (conditions 1 and 2 of
        // `OwnedBuffer`).
        unsafe { self.live.write(offset, from) }
    }

    /// Ends the map and gives the buffer back. `written` is how many bytes from the start the
    /// device wrote, as far as it can be known; more than there are counts as all of them, and
    /// where the device only reads it means nothing. Bounced, only those are copied back: the rest
    /// of the buffer is as it was.
    ///
    /// The device has stopped using the address: that is the contract of whoever gave it the
    /// number ([`DmaAddr`]).
    ///
    /// # Errors
    ///
    /// The device is behind an IOMMU that could not unmap it, or the handle leads to another device
    /// by now ([`NotUnmapped`](super::NotUnmapped)): the error holds the buffer, and tries again when
    /// asked. With a handle that is a reference and without an IOMMU there is no error.
    pub fn unmap(self, written: usize) -> Result<B, UnmapFailed<B>> {
        let Self { live, rest, buffer: _ } = self;
        let (handle, ended) = live.end(written);
        handle.release();
        match ended {
            // SAFETY: 1: the parts are those that `map` took apart, and the mapping is gone. 2: the
            // map has ended.
            Ok(bytes) => Ok(unsafe { B::from_parts(bytes, rest) }),
            Err(kept) => Err(UnmapFailed::new(kept, written, rest)),
        }
    }
}

/// The map, never the bytes.
impl<H: DeviceRef, B: OwnedBuffer> fmt::Debug for Mapping<H, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mapping").field("live", &self.live).finish_non_exhaustive()
    }
}
