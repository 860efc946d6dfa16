//! The owned form of a map: the buffer is given away and comes back at the end. Sound from safe
//! code, `mem::forget` included.
// UNSAFETY: a buffer is mapped as raw parts, and put together again when the map has ended.
#![expect(unsafe_code)]

use core::fmt;
use core::marker::PhantomData;
use core::mem;
use core::ops::Range;

use super::MapFailed;
use super::OwnedBuffer;
use super::UnmapFailed;
use super::live::Live;
use crate::addr::DmaAddr;
use crate::attrs::Attrs;
use crate::device::Counters;
use crate::device::Device;
use crate::platform::Platform;
use crate::shared::OutOfBounds;
use crate::state::Direction;

/// A buffer that is mapped for a device. While it is, there is no way to the bytes but copies;
/// [`finish`](Self::finish) gives the buffer back.
///
/// A mapping that is dropped without being finished may still be in the device's hands: its
/// buffer is never freed and its slots are never given to anyone else. The device's counters show
/// it as [`lost`](crate::device::CountersNow::lost). Forgotten (`mem::forget`, a cycle of
/// reference counts), it keeps the same, and shows in
/// [`live`](crate::device::CountersNow::live) alone.
///
/// All of it may be called in any context.
#[must_use = "a mapping that is not finished keeps its buffer and its slots for good"]
pub struct Mapping<'a, 'd, B: OwnedBuffer, P: Platform + ?Sized = dyn Platform + 'd> {
    live: Live<'a, 'd, P>,
    rest: B::Rest,
    loss: Loss<'a>,
    buffer: PhantomData<B>,
}

/// Counts, when it is dropped, that a mapping was lost.
struct Loss<'a>(&'a Counters);

impl Drop for Loss<'_> {
    fn drop(&mut self) {
        self.0.lost();
    }
}

impl<'d, P: Platform + ?Sized> Device<'d, P> {
    /// Maps a buffer for the device and keeps it until [`Mapping::finish`]. Never blocks and
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
    pub fn map<'a, B: OwnedBuffer>(
        &'a self,
        buffer: B,
        direction: Direction,
        attrs: Attrs,
    ) -> Result<Mapping<'a, 'd, B, P>, MapFailed<B>> {
        let (bytes, rest) = buffer.into_parts();
        // SAFETY: conditions 1 and 2 of `OwnedBuffer`, until `from_parts`: which is called when
        // there is no map, or in `finish`.
        match unsafe { Live::new(self, bytes, direction, attrs) } {
            Ok(live) => Ok(Mapping { live, rest, loss: Loss(self.count()), buffer: PhantomData }),
            Err(error) => {
                // SAFETY: the parts are those of this buffer, and no map holds the bytes.
                Err(MapFailed::new(error, unsafe { B::from_parts(bytes, rest) }))
            }
        }
    }
}

impl<B: OwnedBuffer, P: Platform + ?Sized> Mapping<'_, '_, B, P> {
    /// The address for the device. A number is not access: giving it to a device is the unsafe
    /// step, and whoever does so sees to it that the device has stopped using it before
    /// [`finish`](Self::finish). See [`DmaAddr`].
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
    /// The device is behind an IOMMU that could not unmap it: the error holds the buffer, and tries
    /// again when asked. Without an IOMMU there is no error.
    pub fn unmap(self, written: usize) -> Result<B, UnmapFailed<B>> {
        let Self { live, rest, loss, buffer: _ } = self;
        mem::forget(loss);
        match live.end(written) {
            // SAFETY: 1: the parts are those that `map` took apart, and the mapping is gone. 2: the
            // map has ended.
            Ok(bytes) => Ok(unsafe { B::from_parts(bytes, rest) }),
            Err(kept) => Err(UnmapFailed::new(kept, written, rest)),
        }
    }
}

/// The map, never the bytes.
impl<B: OwnedBuffer, P: Platform + ?Sized> fmt::Debug for Mapping<'_, '_, B, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mapping").field("live", &self.live).finish_non_exhaustive()
    }
}
