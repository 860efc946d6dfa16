//! How a scatter list is laid out: which part of an element is planned as one piece, which pieces
//! one run of IOVAs shows, and which segments the device is given.

use super::map::Plan;
use super::map::map;
use super::pools;
use super::request::DeviceInfo;
use super::request::Limits;
use super::request::MapRequest;
use super::step::Step;
use super::step::Trace;
use crate::addr::AlignMask;
use crate::addr::DmaAddr;
use crate::reason::Refuse;
use crate::state::State;

/// The device of a list, as its pieces see it. Segment and boundary are no limits of a piece that
/// lies in one run for the device: the segments are cut at them.
#[derive(Clone, Copy, Debug)]
pub struct ListDevice<'a> {
    /// The device itself.
    strict: DeviceInfo<'a>,
    /// Without segment and boundary.
    loose: DeviceInfo<'a>,
    /// The same where a bounce keeps the place in the IOMMU's page, so that the piece behind it
    /// can follow in the same run.
    joining: DeviceInfo<'a>,
}

impl<'a> ListDevice<'a> {
    /// What the pieces of a list of this device are planned for. `page` is the page of its IOMMU in
    /// bytes, where it is behind one.
    pub fn new(device: &DeviceInfo<'a>, page: u64) -> Self {
        let limits = Limits { segment: None, boundary: None, ..device.limits };
        let loose = DeviceInfo { limits, ..*device };
        let place = AlignMask::new(page.saturating_sub(1)).unwrap_or_default();
        let min_align = limits.min_align.max(place);
        let joining = DeviceInfo { limits: Limits { min_align, ..limits }, ..*device };
        Self { strict: *device, loose, joining }
    }

    /// The first piece of what is left of an element. What the device reaches in place, and what a
    /// domain shows, is one piece; what else has to bounce is cut so that each piece is a segment.
    /// `joins` says that the element ends, and the next begins, with a page of the IOMMU.
    pub fn first_piece<'r>(&'r self, request: &MapRequest<'r>, joins: bool) -> MapRequest<'r> {
        let whole = MapRequest { device: &self.loose, ..*request };
        if self.strict.attachment.is_translated() {
            let base = pools::original(request);
            let page = self.joining.limits.min_align.raw();
            // A start that the device cannot take is not kept.
            let kept = joins && self.strict.limits.align.divides(base & page);
            return if kept { MapRequest { device: &self.joining, ..whole } } else { whole };
        }
        if matches!(map(&whole, &mut ()), Plan::Direct { .. }) {
            return whole;
        }
        let limits = &self.strict.limits;
        let kept = pools::original(request) & limits.min_align.raw();
        let len = request.len.min(longest_at(limits, kept));
        MapRequest { device: &self.strict, len, ..*request }
    }
}

/// How long a segment that begins at `addr` may be: to its limit or the next boundary, and of a
/// length behind which another one may begin.
fn longest_at(limits: &Limits, addr: u64) -> u64 {
    let segment = limits.segment.unwrap_or(u64::MAX); // sabotage: list-not-cut
    let window = limits
        .boundary
        .map_or(u64::MAX, |boundary| boundary.bytes() - (addr & (boundary.bytes() - 1)));
    let most = segment.min(window);
    let unit = limits.align.max(limits.len_align).bytes();
    match most & !(unit - 1) {
        0 => most.max(1),
        whole => whole,
    }
}

/// Where a piece lies in the pages of an IOMMU, and what its entry says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PagePlace {
    /// How far into its first page it begins, in bytes.
    pub pad: u64,
    /// Its length in bytes.
    pub len: u64,
    /// The state of the memory.
    pub state: State,
    /// Whether it is registers.
    pub mmio: bool,
}

impl PagePlace {
    /// Whether `next` can follow in the same run of addresses, in pages of `page` bytes: the joint is
    /// between two pages, the entry is the same, and the device wants no more low bits kept than
    /// those in a page.
    pub fn joins(&self, next: &Self, page: u64, limits: &Limits) -> bool {
        let end = self.pad.wrapping_add(self.len);
        limits.min_align.raw() < page
            && end & (page - 1) == 0 // sabotage: list-joint-in-a-page
            && next.pad == 0
            && (self.state, self.mmio) == (next.state, next.mmio)
    }
}

/// One piece of a list as the device sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Its address.
    pub addr: u64,
    /// Its length in bytes, not 0.
    pub len: u64,
    /// Whether it may be of one segment with the piece before, if that ends where it begins. Slots
    /// of a bounce never are.
    pub joins: bool,
}

/// What a device is given of a list: one entry of its descriptor table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The address of its first byte.
    pub addr: DmaAddr,
    /// Its length in bytes.
    pub len: u64,
}

/// The segments of a list: pieces are merged where they are adjacent, and cut where a segment would
/// be too long or cross the boundary. There are never more than that needs.
#[derive(Clone, Debug)]
pub struct Segments<I> {
    pieces: I,
    limits: Limits,
    rest: Option<Piece>,
}

impl<I: Iterator<Item = Piece>> Segments<I> {
    /// The segments of these pieces for a device with these limits.
    pub fn new(pieces: I, limits: &Limits) -> Self {
        Self { pieces, limits: *limits, rest: None }
    }
}

impl<I: Iterator<Item = Piece>> Iterator for Segments<I> {
    type Item = Segment;

    fn next(&mut self) -> Option<Segment> {
        let mut now = self.rest.take().or_else(|| self.pieces.next())?;
        let most = longest_at(&self.limits, now.addr);
        while now.len < most {
            match self.pieces.next() {
                // sabotage: list-merges-what-is-apart
                Some(next) if next.joins && now.addr.checked_add(now.len) == Some(next.addr) => {
                    now.len = now.len.saturating_add(next.len);
                }
                next => {
                    self.rest = next;
                    break;
                }
            }
        }
        if now.len > most {
            let addr = now.addr.wrapping_add(most);
            self.rest = Some(Piece { addr, len: now.len - most, joins: true });
            now.len = most;
        }
        Some(Segment { addr: DmaAddr::new(now.addr), len: now.len })
    }
}

/// The alignment of a run of addresses of `len` bytes, the low bits apart that are kept. Segments are
/// cut at the boundary; so that they are those that were counted, a run begins at one, or crosses none.
pub(crate) fn run_alignment(limits: &Limits, len: u64) -> u64 {
    limits.boundary.map_or(1, |boundary| {
        boundary.bytes().min(len.checked_next_power_of_two().unwrap_or(boundary.bytes()))
    })
}

/// Whether a device takes a list of so many segments.
pub fn segments_fit(limits: &Limits, count: usize, trace: &mut impl Trace) -> Result<(), Refuse> {
    let Some(most) = limits.max_segments else { return Ok(()) };
    trace.step(Step::Segments { count, most });
    // sabotage: list-segments-not-counted
    if count > most { Err(Refuse::TooManySegments) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::vec;
    use std::vec::Vec;

    use super::*;
    use crate::addr::Alignment;
    use crate::addr::Boundary;

    fn cut(pieces: &[(u64, u64, bool)], limits: Limits) -> Vec<(u64, u64)> {
        let pieces =
            pieces.iter().map(|(addr, len, joins)| Piece { addr: *addr, len: *len, joins: *joins });
        Segments::new(pieces, &limits).map(|segment| (segment.addr.raw(), segment.len)).collect()
    }

    #[test]
    fn adjacent_pieces_are_one_segment_and_others_are_not() {
        let none = Limits::NONE;
        assert_eq!(cut(&[(0x1000, 0x1000, true), (0x2000, 8, true)], none), [(0x1000, 0x1008)]);
        assert_eq!(cut(&[(0x1000, 8, true), (0x1009, 8, true)], none), [(0x1000, 8), (0x1009, 8)]);
        assert_eq!(
            cut(&[(0x1000, 8, true), (0x1008, 8, false)], none),
            [(0x1000, 8), (0x1008, 8)],
            "a bounce is a segment of its own"
        );
        assert_eq!(cut(&[(u64::MAX, 1, true), (0, 1, true)], none), [(u64::MAX, 1), (0, 1)]);
        assert_eq!(cut(&[], none), vec![]);
    }

    #[test]
    fn segments_are_cut_by_length_boundary_and_alignment() {
        let segment = Limits { segment: Some(0x1000), ..Limits::NONE };
        assert_eq!(
            cut(&[(0, 0xa00, true), (0xa00, 0xa00, true)], segment),
            [(0, 0x1000), (0x1000, 0x400)],
            "merged first, cut then"
        );
        let boundary = Limits { boundary: Boundary::new(0x1000), ..Limits::NONE };
        assert_eq!(
            cut(&[(0xff8, 0x1010, true)], boundary),
            [(0xff8, 8), (0x1000, 0x1000), (0x2000, 8)]
        );
        let align = Alignment::new(16).unwrap();
        let odd = Limits { segment: Some(40), align, ..Limits::NONE };
        assert_eq!(cut(&[(0, 70, true)], odd), [(0, 32), (32, 32), (64, 6)]);
    }

    /// Every list of three short pieces: no byte is lost, doubled or moved, every limit holds, and no
    /// two neighbours could have been one.
    #[test]
    fn segments_show_the_pieces_and_keep_the_limits() {
        for bits in 0..6u64.pow(6) {
            let digit = |place: u32| bits / 6u64.pow(place) % 6;
            let mut at = digit(0);
            let mut pieces = vec![];
            for place in [1, 3] {
                let len = digit(place) + 1;
                pieces.push((at, len, digit(place + 1) & 1 == 0));
                at += len + digit(place + 1) / 3;
            }
            let segment = [None, Some(1), Some(2), Some(3), Some(5), Some(8)]
                [usize::try_from(digit(5)).unwrap()];
            for boundary in [None, Boundary::new(4), Boundary::new(8)] {
                let limits = Limits { segment, boundary, ..Limits::NONE };
                let cut = cut(&pieces, limits);
                let bytes = |list: &[(u64, u64)]| -> Vec<u64> {
                    list.iter().flat_map(|(at, len)| *at..at + len).collect()
                };
                let given: Vec<_> = pieces.iter().map(|(at, len, _)| (*at, *len)).collect();
                assert_eq!(bytes(&cut), bytes(&given), "{pieces:?} {limits:?}");
                for (at, len) in &cut {
                    assert!(segment.is_none_or(|most| *len <= most), "{pieces:?} {limits:?}");
                    assert!(boundary.is_none_or(|b| !b.crossed_by(*at, *len)));
                }
                for pair in cut.windows(2) {
                    let [(at, len), (next, _)] = *pair else { continue };
                    let apart = pieces.iter().any(|(start, _, joins)| *start == next && !joins);
                    let full =
                        Some(len) == segment || boundary.is_some_and(|b| b.crossed_by(at, len + 1));
                    assert!(at + len != next || apart || full, "{pieces:?} {limits:?} {cut:?}");
                }
            }
        }
    }
}
