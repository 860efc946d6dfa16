//! Scatter lists: mapped as a whole or not at all, with one record and one end.
// UNSAFETY: raw buffers, as in `map`.
#![expect(unsafe_code)]

mod error;
mod layout;
mod lending;
mod tell;

use core::ops::Range;
use core::ptr::NonNull;

pub use error::ListError;
pub use error::ListFailed;
pub use error::UnmapListError;
use layout::Asked;

use super::launder::launder;
use super::raw::RawMapping;
use crate::attrs::Attrs;
use crate::device::Device;
use crate::iommu::UnmapError;
use crate::plan;
use crate::plan::Limits;
use crate::plan::ListDevice;
use crate::plan::Piece;
use crate::plan::Segment;
use crate::plan::Segments;
use crate::platform::Platform;
use crate::pool::Owner;
use crate::state::Direction;

/// The record of a list: what all of its pieces are and hold, in the entries that the caller lent.
/// Ending the list uses this record and nothing else. Dropping it loses what it holds, visibly: the
/// device's counters show maps that never ended, and the entries are not empty.
#[derive(Debug)]
#[must_use = "a list that is not unmapped keeps its slots"]
pub struct RawList<'s> {
    owner: Owner,
    limits: Limits,
    /// Whether a domain shows it.
    translated: bool,
    entries: &'s mut [Option<RawMapping>],
}

impl RawList<'_> {
    /// What the device is given, in the order of the bytes: one entry of its descriptor table each.
    /// Never more than its `max_segments`, none longer than its segment or across its boundary.
    pub fn segments(&self) -> impl Iterator<Item = Segment> {
        Segments::new(pieces(self.entries, self.translated), &self.limits)
    }

    /// Views of the pieces, in the order of the bytes: where each lies for the device, and whether it
    /// bounces. An element of the list is one piece; only where it bounces and is longer than a
    /// segment it is several. A view can be synced as a mapping, and ends with the list alone.
    pub fn views(&self) -> impl Iterator<Item = &RawMapping> {
        self.entries.iter().flatten()
    }

    /// The length of all elements in bytes.
    pub fn len(&self) -> usize {
        self.views().map(RawMapping::len).fold(0, usize::saturating_add)
    }

    /// Whether the list has no element.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

/// The pieces as the device sees them.
fn pieces(entries: &[Option<RawMapping>], translated: bool) -> impl Iterator<Item = Piece> {
    entries.iter().flatten().scan(false, move |in_place_before, mapping| {
        let in_place = !mapping.is_bounced();
        // In a domain, who follows in a run of addresses holds none of its own.
        let joins = match translated {
            true => mapping.place.mapped().is_none(),
            false => in_place && *in_place_before,
        };
        *in_place_before = in_place;
        Some(Piece { addr: mapping.addr.raw(), len: wide(mapping.len()), joins })
    })
}

fn wide(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

impl<P: Platform + ?Sized> Device<'_, P> {
    /// Maps the buffers of a list as a whole: all of them, or none. Each element is decided as a map of
    /// its own; what the device is then given are [segments](RawList::segments). In place, adjacent
    /// elements are merged, and what is longer than a segment or crosses the boundary is cut, so that
    /// one long buffer maps, too; a bounce is a segment of its own. Behind an IOMMU elements
    /// that meet between two of its pages are one run of addresses, bounced or not; of a domain no address is
    /// given before all bytes are in their place.
    ///
    /// `entries` are storage for the records of the pieces, empty ones: one for each element, and
    /// where one that is longer than a segment has to bounce, one for each part of it. Never blocks.
    ///
    /// # Errors
    ///
    /// An element was refused, or the whole list
    /// ([`TooManySegments`](crate::reason::Refuse::TooManySegments), before anything was lent). What
    /// was lent by then is undone, without copying anything back; only what an IOMMU could not unmap
    /// again is in the error, as a list to be unmapped with nothing written.
    ///
    /// # Safety
    ///
    /// As for [`map_raw`](Self::map_raw), for every buffer.
    pub unsafe fn map_list<'s>(
        &self,
        buffers: &[NonNull<[u8]>],
        direction: Direction,
        attrs: Attrs,
        entries: &'s mut [Option<RawMapping>],
    ) -> Result<RawList<'s>, ListFailed<'s>> {
        let given = entries.len();
        if let Some(index) = entries.iter().position(Option::is_some) {
            return Err(ListError::EntryInUse { index }.into());
        }
        let device = ListDevice::new(self.info(), self.iommu_page());
        let asked = Asked { buffers, direction, attrs, device: &device };
        if let Some(reason) = self.stopped() {
            let first = buffers.first().map_or(0, |buffer| buffer.len());
            let error = self.refused(reason, first, None, attrs);
            return Err(ListError::Refused { element: None, error }.into());
        }
        let wanted = self.lay_out(&asked)?;
        let Some(entries) = entries.get_mut(..wanted) else {
            return Err(ListError::Entries { wanted, given }.into());
        };
        let (owner, translated) = (self.owner(), self.domain().is_some());
        let list = RawList { owner, limits: self.info().limits, translated, entries };
        // SAFETY: this function's conditions.
        let made = unsafe { self.lend_list(&asked, list.entries) };
        let made = made.and_then(|()| {
            // The state of memory may have changed since it was laid out.
            let count = list.segments().count();
            plan::segments_fit(&list.limits, count, &mut ()).map_err(|reason| (None, reason))
        });
        // What was lent is told of, also where it is undone in the next step.
        let list = if self.dma().is_observed() { self.tell_list(&asked, list) } else { list };
        let Err((element, reason)) = made else { return Ok(list) };
        let error = self.list_refused(&asked, element, reason);
        self.look_at_used();
        // SAFETY: the device touches nothing of it, since it was given no address.
        let ended = unsafe { self.unmap_list(list, 0) };
        let left = ended.err().map(UnmapListError::into_list);
        Err(ListFailed { error: ListError::Refused { element, error }, left })
    }

    /// Ends a list, which has to be this device's; the device wrote the first `written` bytes of all of
    /// it. Only those are copied back, as at the end of a map. Never blocks.
    ///
    /// # Errors
    ///
    /// The list, to be unmapped again: it is another device's, or the IOMMU could not unmap all of it. No
    /// byte was copied then, and nothing it holds was given back.
    ///
    /// # Safety
    ///
    /// As for [`unmap_raw`](Self::unmap_raw), for every buffer.
    pub unsafe fn unmap_list<'s>(
        &self,
        list: RawList<'s>,
        written: usize,
    ) -> Result<(), UnmapListError<'s>> {
        // sabotage: list-of-another
        if list.owner != self.owner() {
            return Err(UnmapListError::NotThisDevice(list));
        }
        // SAFETY: the device has stopped, by this function's condition.
        if let Err(error) = unsafe { self.untranslate_list(list.entries) } {
            return Err(UnmapListError::StillMapped(list, error));
        }
        let mut before = 0;
        for mapping in list.entries.iter_mut().filter_map(Option::take) {
            let arrived = written.saturating_sub(before);
            before = before.saturating_add(mapping.len());
            // SAFETY: this function's conditions.
            let ended = unsafe { self.end(&mut self.hand(), launder(mapping), arrived) };
            // Nothing of it is in a domain any more, which is all that could keep it.
            drop(ended);
        }
        Ok(())
    }

    /// Takes the pieces of a list out of the device's domain: all of them that go.
    ///
    /// # Safety
    ///
    /// The device has stopped using their addresses, or was never given them.
    unsafe fn untranslate_list(
        &self,
        entries: &mut [Option<RawMapping>],
    ) -> Result<(), UnmapError> {
        let mut stuck = None;
        for mapping in entries.iter_mut().flatten() {
            // SAFETY: this function's condition.
            match unsafe { self.untranslate(mapping.place.mapped()) } {
                Ok(()) => mapping.place.forget_mapped(),
                Err(error) => stuck = stuck.or(Some(error)),
            }
        }
        stuck.map_or(Ok(()), Err)
    }

    /// Makes what the driver wrote into `part` of the list's bytes visible to the device, as
    /// [`sync_for_device`](Self::sync_for_device) does. Never blocks.
    ///
    /// # Safety
    ///
    /// As for [`map_list`](Self::map_list); the list is this device's.
    pub unsafe fn sync_list_for_device(&self, list: &RawList<'_>, part: Range<usize>) {
        for (mapping, part) in parts(list, &part) {
            // SAFETY: this function's conditions.
            unsafe { self.sync_for_device(mapping, part) };
        }
    }

    /// Brings what the device wrote into `part` of the list's bytes to the driver's buffers, as
    /// [`sync_for_cpu`](Self::sync_for_cpu) does. Never blocks.
    ///
    /// # Safety
    ///
    /// As for [`map_list`](Self::map_list); the list is this device's.
    pub unsafe fn sync_list_for_cpu(&self, list: &RawList<'_>, part: Range<usize>) {
        for (mapping, part) in parts(list, &part) {
            // SAFETY: this function's conditions.
            unsafe { self.sync_for_cpu(mapping, part) };
        }
    }
}

/// Each piece of a list with the part of it that lies in `part` of the list's bytes.
fn parts<'l>(
    list: &'l RawList<'_>,
    part: &Range<usize>,
) -> impl Iterator<Item = (&'l RawMapping, Range<usize>)> {
    let Range { start, end } = *part;
    list.views()
        .scan(0usize, move |before, mapping| {
            let (from, len) = (*before, mapping.len());
            *before = before.saturating_add(len);
            Some((mapping, start.saturating_sub(from)..end.saturating_sub(from).min(len)))
        })
        .filter(|(_, part)| !part.is_empty())
}
