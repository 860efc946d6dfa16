//! The bytes of a map: between the driver's buffer and what the device sees, when `plan` says so.
// UNSAFETY: raw buffers are read and written while a device may be at them.
#![expect(unsafe_code)]

use core::ops::Range;
use core::ptr::NonNull;

use super::raw::Held;
use super::raw::RawMapping;
use crate::attrs::Attrs;
use crate::copy::copy;
use crate::copy::zero;
use crate::device::Device;
use crate::plan;
use crate::plan::Bytes;
use crate::plan::MapFace;
use crate::plan::Moment;
use crate::plan::Transfer;
use crate::platform::Platform;
use crate::state::Direction;

/// Where the bytes of a map are, and what it was made as.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ends {
    buffer: NonNull<[u8]>,
    /// The first byte as the device sees it: in slots, or the buffer's own.
    seen: NonNull<u8>,
    bounced: bool,
    direction: Direction,
    attrs: Attrs,
}

impl Ends {
    /// Those of a map without attributes through slots, in which its bytes begin at `seen`.
    #[inline]
    pub(super) fn in_slots(buffer: NonNull<[u8]>, seen: NonNull<u8>, direction: Direction) -> Self {
        Self { buffer, seen, bounced: true, direction, attrs: Attrs::NONE }
    }
}

impl<P: Platform + ?Sized> Device<'_, P> {
    /// The ends of a mapping; `None` where there is nothing to be done about its bytes: on an open
    /// machine, and where its slots were revoked, which are not its own any more.
    #[inline]
    pub(super) fn ends(&self, mapping: &RawMapping) -> Option<Ends> {
        let RawMapping { buffer, direction, attrs, .. } = *mapping;
        let (seen, bounced) = match &mapping.place {
            Held::Open => return None,
            Held::InPlace { .. } => (buffer.cast(), false),
            Held::Slots { pool, run, at, .. } => {
                let pool = self.pool(*pool).filter(|pool| pool.holds(run))?;
                (pool.bytes().at(*at, buffer.len())?, true)
            }
        };
        Some(Ends { buffer, seen, bounced, direction, attrs })
    }

    /// Does what `plan` says about the bytes of a part at one moment. A part that leaves the
    /// mapping is cut off at its end.
    ///
    /// # Safety
    ///
    /// The ends are those of a mapping of this device that holds its memory; its buffer is
    /// readable, and writable where the device writes.
    #[inline]
    pub(super) unsafe fn transfer(&self, ends: &Ends, moment: Moment, part: Range<usize>) {
        let Ends { buffer, seen, bounced, direction, attrs } = *ends;
        let end = part.end.min(buffer.len()); // sabotage: length-past-end
        let start = part.start.min(end);
        let len = end - start;
        let (coherent, alive) = (self.info().coherent, self.is_alive());
        let info = MapFace { direction, attrs, bounced, coherent, alive };
        let Transfer { bytes, cache_work } = plan::transfer(&info, moment, &mut ());
        if len == 0 {
            return;
        }
        // SAFETY: `start` is at most the buffer's length.
        let buffer = unsafe { buffer.cast::<u8>().add(start) };
        // SAFETY: the device sees as many bytes.
        let seen = unsafe { seen.add(start) };
        let shown = NonNull::slice_from_raw_parts(seen, len);
        let incoming = matches!(moment, Moment::SyncForCpu | Moment::Unmap);
        if incoming && direction.from_device() {
            self.platform().sync_for_cpu(shown, direction, cache_work);
        }
        match bytes {
            Bytes::Stay => {}
            // SAFETY: the buffer is readable by this function's condition; the slots are held by
            // the mapping, and nothing else is in them.
            Bytes::Out => unsafe { copy(buffer.as_ptr(), seen.as_ptr(), len) },
            // SAFETY: the slots are held by the mapping.
            Bytes::Zero => unsafe { zero(seen.as_ptr(), len) },
            // SAFETY: as for `Out`; `plan` brings bytes back only where the device writes, so that
            // the buffer is writable.
            Bytes::Back => unsafe { copy(seen.as_ptr(), buffer.as_ptr(), len) },
        }
        if !incoming {
            self.platform().sync_for_device(shown, direction, cache_work);
        }
    }
}
