//! Scatter lists: mapped as a whole or not at all, with one record and one end.
// UNSAFETY: raw buffers, as in `map`.
#![expect(unsafe_code)]

use core::cell::Cell;
use core::ops::Range;
use core::ptr::NonNull;

use super::ListError;
use super::ListFailed;
use super::MapError;
use super::UnmapListError;
use super::launder::launder;
use super::map::Lent;
use super::raw::Held;
use super::raw::RawMapping;
use crate::addr::DmaAddr;
use crate::addr::PhysRange;
use crate::attrs::Attrs;
use crate::copy::barrier;
use crate::device::Device;
use crate::iommu::Fit;
use crate::iommu::PartialMap;
use crate::plan;
use crate::plan::Candidates;
use crate::plan::Limits;
use crate::plan::ListDevice;
use crate::plan::MapRequest;
use crate::plan::PagePlace;
use crate::plan::Piece;
use crate::plan::Plan;
use crate::plan::Segment;
use crate::plan::Segments;
use crate::platform::Platform;
use crate::pool::Owner;
use crate::reason::Refuse;
use crate::state::Direction;
use crate::state::Memory;
use crate::state::State;

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

/// A list that is asked for.
#[derive(Clone, Copy)]
struct Asked<'a> {
    buffers: &'a [NonNull<[u8]>],
    direction: Direction,
    attrs: Attrs,
    device: &'a ListDevice<'a>,
}

/// How far a walk over the elements of a list is.
#[derive(Clone, Copy, Default)]
struct Walk {
    element: usize,
    /// Bytes of it that are behind.
    offset: usize,
}

/// One piece, before anything is done about it.
struct Part<'a> {
    element: usize,
    buffer: NonNull<[u8]>,
    range: Option<PhysRange>,
    request: MapRequest<'a>,
}

/// A run of addresses that is being put together: entries from `first` on.
struct Run {
    first: usize,
    original: u64,
    /// How far into its first page it begins, in bytes.
    pad: u64,
    /// Whole pages, in bytes.
    len: u64,
    last: PagePlace,
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
    /// An element was refused, or the whole list ([`Refuse::TooManySegments`], before anything was lent). What
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
        let Err((element, reason)) = made else { return Ok(list) };
        let error = self.list_refused(&asked, element, reason);
        self.look_at_used();
        // SAFETY: no device was given an address.
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
        if list.owner != self.owner() {
            return Err(UnmapListError::NotThisDevice(list));
        }
        let mut stuck = None;
        for mapping in list.entries.iter_mut().flatten() {
            // SAFETY: the device has stopped, by this function's condition.
            match unsafe { self.untranslate(mapping.place.mapped()) } {
                Ok(()) => mapping.place.forget_mapped(),
                Err(error) => stuck = stuck.or(Some(error)),
            }
        }
        if let Some(error) = stuck {
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

    /// Asks `plan` about all pieces, and whether the device takes the segments that they would be.
    /// Lends nothing. Answers with the number of pieces.
    fn lay_out(&self, asked: &Asked<'_>) -> Result<usize, ListError> {
        let (mut walk, mut count, mut failed) = (Walk::default(), 0usize, None);
        let (page, translated) = (self.iommu_page(), self.domain().is_some());
        let limits = &self.info().limits;
        let (mut before, mut at) = (None::<(PagePlace, bool)>, 0u64);
        let pieces = core::iter::from_fn(|| {
            let part = self.next_part(asked, &mut walk)?;
            let (len, original) = (part.request.len, base_of(part.range));
            let (place, addr) = match plan::map(&part.request, &mut ()) {
                Plan::Refuse(reason) => {
                    failed = Some((part.element, reason));
                    return None;
                }
                Plan::Direct { addr, state, .. } => {
                    let mmio = registers(&part.request);
                    let pad = original & (page - 1);
                    (PagePlace { pad, len, state, mmio }, addr.map(|addr| (addr.raw(), true)))
                }
                Plan::Bounce { pools, .. } => {
                    let Some((pad, state)) = first(pools) else {
                        failed = Some((part.element, Refuse::PoolFull));
                        return None;
                    };
                    let kept = original & limits.min_align.raw();
                    (PagePlace { pad, len, state, mmio: false }, Some((kept, false)))
                }
            };
            count += 1;
            let in_place = addr.is_some_and(|(_, in_place)| in_place);
            let joins = match before.replace((place, in_place)) {
                Some((before, _)) if translated => before.joins(&place, page, limits),
                Some((_, before)) => before && in_place,
                None => false,
            };
            if translated && !joins {
                // A run of the domain begins at a boundary, but for the low bits that are kept.
                at = original & limits.min_align.raw() & !(page - 1) | place.pad;
            }
            let addr = addr.filter(|_| !translated).map_or(at, |(addr, _)| addr);
            at = addr.wrapping_add(len);
            Some(Piece { addr, len, joins })
        });
        let segments = Segments::new(pieces, limits).count();
        let fit = plan::segments_fit(limits, segments, &mut ());
        let told = match (failed, fit) {
            (Some((element, reason)), _) => (Some(element), reason),
            (None, Err(reason)) => (None, reason),
            (None, Ok(())) => return Ok(count),
        };
        let error = self.list_refused(asked, told.0, told.1);
        Err(ListError::Refused { element: told.0, error })
    }

    /// Lends all pieces, and has a domain show them in runs of addresses. On an error what was lent is in
    /// the entries.
    ///
    /// # Safety
    ///
    /// As for [`map_list`](Self::map_list).
    unsafe fn lend_list(
        &self,
        asked: &Asked<'_>,
        entries: &mut [Option<RawMapping>],
    ) -> Result<(), (Option<usize>, Refuse)> {
        let (mut walk, mut index, page) = (Walk::default(), 0, self.iommu_page());
        let mut run = None::<Run>;
        while let Some(part) = self.next_part(asked, &mut walk) {
            let element = part.element;
            let Part { buffer, range, request, .. } = part;
            let failed = |reason| (Some(element), reason);
            // More pieces than were laid out: the state of memory changed meanwhile.
            let entry = entries.get_mut(index).ok_or(failed(Refuse::Busy))?;
            let owner = self.owner();
            let open =
                range.filter(|_| asked.attrs.is_empty()).and_then(|range| self.in_place(range));
            if let Some(addr) = open {
                barrier(buffer.as_ptr().cast());
                let (direction, attrs, place) = (asked.direction, asked.attrs, Held::Open);
                *entry = Some(RawMapping { owner, addr, buffer, direction, attrs, place });
                index += 1;
                continue;
            }
            let again = || MapRequest {
                device: request.device,
                ..self.request(range, request.len, asked.direction, asked.attrs)
            };
            // SAFETY: this function's conditions.
            let lent = unsafe { self.lend(&mut self.hand(), buffer, range, again) };
            let Lent { mut mapping, state, bounce, translate } = lent.map_err(failed)?;
            self.count_map(bounce);
            if self.dma().is_observed() {
                self.tell_mapped(&mut self.hand(), &mut mapping, range, bounce);
            }
            let mmio = mapping.attrs.contains(Attrs::MMIO);
            let pad = match &mapping.place {
                Held::Slots { run, at, .. } => wide(at.saturating_sub(run.offset())),
                Held::Open | Held::InPlace { .. } => base_of(range) & (page - 1),
            };
            *entry = Some(mapping);
            if translate {
                let next = PagePlace { pad, len: request.len, state, mmio };
                // The entries before this one are a run of their own.
                if let Some(done) =
                    run.take_if(|run| !run.last.joins(&next, page, &self.info().limits))
                {
                    // SAFETY: this function's conditions.
                    unsafe { self.show(asked.direction, entries, done, index) }.map_err(failed)?;
                }
                let whole = pad.saturating_add(request.len).next_multiple_of(page);
                let original = base_of(range);
                let new = Run { first: index, original, pad, len: 0, last: next };
                let run = run.get_or_insert(new);
                run.len = run.len.saturating_add(whole);
                run.last = next;
            }
            index += 1;
        }
        match run {
            // SAFETY: this function's conditions.
            Some(run) => unsafe { self.show(asked.direction, entries, run, index) }
                .map_err(|reason| (None, reason)),
            None => Ok(()),
        }
    }

    /// Has the device's domain show the entries of a run up to `past` one behind the other, and gives
    /// them their addresses.
    ///
    /// # Safety
    ///
    /// The mappings hold their memory in the state of the run, with the bytes in their place, and the
    /// conditions of [`map_raw`](Self::map_raw) hold.
    unsafe fn show(
        &self,
        direction: Direction,
        entries: &mut [Option<RawMapping>],
        run: Run,
        past: usize,
    ) -> Result<(), Refuse> {
        let Run { first, original, pad, len, last } = run;
        let Some(entries) = entries.get_mut(first..past) else { return Err(Refuse::Busy) };
        let entry = self.entry(direction, last.state, last.mmio);
        let lost = Cell::new(false);
        let places = entries.iter().flatten().map_while(|mapping| {
            let place = match &mapping.place {
                Held::Slots { .. } => self.scrub(mapping),
                Held::Open | Held::InPlace { .. } => self.platform().locate(mapping.buffer),
            };
            lost.set(lost.get() | place.is_none());
            place.map(|place| self.shown(place))
        });
        // Segments are cut at the boundary; so that they are those that were counted, a run begins at
        // one, or crosses none.
        let limits = self.info().limits;
        let align = limits.boundary.map_or(1, |boundary| {
            boundary.bytes().min(len.checked_next_power_of_two().unwrap_or(boundary.bytes()))
        });
        let fit = Fit::List { original, align };
        // SAFETY: in place the whole pages are pinned, or their state cannot change; slots are whole
        // pages that hold nothing else.
        let made = unsafe { self.translate_runs(places, (len, fit), entry) };
        let (addr, mut mapped, failed) = match made {
            Ok((addr, mapped)) => (addr, Some(mapped), lost.get().then_some(Refuse::Revoked)),
            Err((reason, None)) => (super::map::NOWHERE, None, Some(reason)),
            Err((reason, Some(PartialMap { addr, mapped, .. }))) => {
                (addr, Some(mapped), Some(reason))
            }
        };
        let mut at = addr.raw().wrapping_add(pad);
        for mapping in entries.iter_mut().flatten() {
            mapping.addr = DmaAddr::new(at);
            at = at.wrapping_add(wide(mapping.len()));
            match &mut mapping.place {
                Held::InPlace { mapped: own, .. } | Held::Slots { mapped: own, .. } => {
                    *own = mapped.take();
                }
                Held::Open => {}
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// The next piece of a list; `None` behind its last one.
    fn next_part<'a>(&'a self, asked: &Asked<'a>, walk: &mut Walk) -> Option<Part<'a>> {
        let element = walk.element;
        let whole = *asked.buffers.get(element)?;
        let buffer = rest(whole, walk.offset);
        let locate = |buffer: NonNull<[u8]>| {
            if buffer.is_empty() { None } else { self.platform().locate(buffer) }
        };
        let range = locate(buffer);
        let request = self.request(range, wide(buffer.len()), asked.direction, asked.attrs);
        let ends =
            |range: PhysRange| range.last().raw().wrapping_add(1) & (self.iommu_page() - 1) == 0;
        let begins = |range: PhysRange| range.base().raw() & (self.iommu_page() - 1) == 0;
        let next = asked.buffers.get(element + 1).and_then(|next| locate(*next));
        let joins = range.is_some_and(ends) && next.is_some_and(begins);
        let request = asked.device.first_piece(&request, joins);
        let len = usize::try_from(request.len).unwrap_or(usize::MAX);
        if len >= buffer.len() {
            *walk = Walk { element: element + 1, offset: 0 };
            return Some(Part { element, buffer, range, request });
        }
        walk.offset += len;
        let buffer = NonNull::slice_from_raw_parts(buffer.cast(), len);
        Some(Part { element, buffer, range: locate(buffer), request })
    }
}

impl<P: Platform + ?Sized> Device<'_, P> {
    /// Counts and tells a refusal: of one element, or of the whole list.
    #[cold]
    fn list_refused(&self, asked: &Asked<'_>, element: Option<usize>, reason: Refuse) -> MapError {
        let buffer = element.and_then(|element| asked.buffers.get(element));
        let len = match buffer {
            Some(buffer) => buffer.len(),
            None => asked.buffers.iter().map(|buffer| buffer.len()).fold(0, usize::saturating_add),
        };
        let range = buffer.filter(|buffer| !buffer.is_empty());
        let range = range.and_then(|buffer| self.platform().locate(*buffer));
        self.refused(reason, len, range, asked.attrs)
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

/// What is left of a buffer behind `offset` bytes of it.
fn rest(buffer: NonNull<[u8]>, offset: usize) -> NonNull<[u8]> {
    let len = buffer.len().saturating_sub(offset);
    let start = buffer.cast::<u8>().as_ptr().wrapping_add(buffer.len() - len);
    NonNull::new(start).map_or(buffer, |start| NonNull::slice_from_raw_parts(start, len))
}

/// The place and the state of the first pool.
fn first(mut pools: Candidates<'_>) -> Option<(u64, State)> {
    pools.next().map(|candidate| (candidate.pad, candidate.state))
}

/// Whether what is mapped in place is registers.
fn registers(request: &MapRequest<'_>) -> bool {
    request.attrs.contains(Attrs::MMIO) || request.memory == Memory::Peer
}

fn base_of(range: Option<PhysRange>) -> u64 {
    range.map_or(0, |range| range.base().raw())
}
