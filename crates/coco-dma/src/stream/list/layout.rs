//! How a list is cut into pieces, and what `plan` says of them all before anything is lent.

use core::ptr::NonNull;

use super::ListError;
use super::wide;
use crate::addr::PhysRange;
use crate::attrs::Attrs;
use crate::device::Device;
use crate::plan;
use crate::plan::Candidates;
use crate::plan::ListDevice;
use crate::plan::MapRequest;
use crate::plan::PagePlace;
use crate::plan::Piece;
use crate::plan::Plan;
use crate::plan::Segments;
use crate::platform::Platform;
use crate::reason::Refuse;
use crate::state::Direction;
use crate::state::State;
use crate::stream::MapError;

/// A list that is asked for.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) buffers: &'a [NonNull<[u8]>],
    pub(super) direction: Direction,
    pub(super) attrs: Attrs,
    pub(super) device: &'a ListDevice<'a>,
}

/// How far a walk over the elements of a list is.
#[derive(Clone, Copy, Default)]
pub(super) struct Walk {
    element: usize,
    /// Bytes of it that are behind.
    offset: usize,
}

/// One piece, before anything is done about it.
pub(super) struct Part<'a> {
    pub(super) element: usize,
    pub(super) buffer: NonNull<[u8]>,
    pub(super) range: Option<PhysRange>,
    pub(super) request: MapRequest<'a>,
}

impl<P: Platform + ?Sized> Device<'_, P> {
    /// Asks `plan` about all pieces, and whether the device takes the segments that they would be.
    /// Lends nothing. Answers with the number of pieces.
    pub(super) fn lay_out(&self, asked: &Asked<'_>) -> Result<usize, ListError> {
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
                    let mmio = part.request.is_registers();
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

    /// The next piece of a list; `None` behind its last one.
    pub(super) fn next_part<'a>(&'a self, asked: &Asked<'a>, walk: &mut Walk) -> Option<Part<'a>> {
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

    /// Counts and tells a refusal: of one element, or of the whole list.
    #[cold]
    pub(super) fn list_refused(
        &self,
        asked: &Asked<'_>,
        element: Option<usize>,
        reason: Refuse,
    ) -> MapError {
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

pub(super) fn base_of(range: Option<PhysRange>) -> u64 {
    range.map_or(0, |range| range.base().raw())
}
