//! How objects lie in a page.

use core::fmt;

use crate::addr::Boundary;

/// Objects in one page of a pool at most: as many as its bitmap has bits.
pub(super) const MOST: usize = 512;
/// Objects are at most this long, in bytes: what is longer is an allocation of its own.
const LONGEST: usize = 4096;

/// What the objects of one pool have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObjectLayout {
    size: usize,
    align: usize,
    boundary: usize,
}

/// Objects that cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LayoutError {
    /// The size is 0, or more than a page of 4096 bytes; that is an allocation of its own.
    Size(usize),
    /// The alignment is no power of two, or more than a page of 4096 bytes.
    Align(usize),
    /// The boundary is nearer than an object is long, so that each crosses it.
    Boundary(u64),
}

impl fmt::Display for LayoutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Size(size) => write!(f, "objects have 1 to {LONGEST} bytes, not {size}"),
            Self::Align(align) => {
                write!(f, "objects are aligned to a power of two up to {LONGEST}, not to {align}")
            }
            Self::Boundary(boundary) => {
                write!(f, "every object would cross a boundary of {boundary} bytes")
            }
        }
    }
}

impl core::error::Error for LayoutError {}

impl ObjectLayout {
    /// Objects of `size` bytes, 1 to 4096, whose address as the device has it is a multiple of
    /// `align`, a power of two up to 4096.
    pub const fn new(size: usize, align: usize) -> Result<Self, LayoutError> {
        if size == 0 || size > LONGEST {
            return Err(LayoutError::Size(size));
        }
        if !align.is_power_of_two() || align > LONGEST {
            return Err(LayoutError::Align(align));
        }
        Ok(Self { size, align, boundary: LONGEST })
    }

    /// The same, none of which crosses a multiple of `boundary`. (None ever crosses a page.)
    pub fn within(self, boundary: Boundary) -> Result<Self, LayoutError> {
        match usize::try_from(boundary.bytes()) {
            Ok(bytes) if bytes < self.size => Err(LayoutError::Boundary(boundary.bytes())),
            Ok(bytes) => Ok(Self { boundary: bytes.min(self.boundary), ..self }),
            Err(_) => Ok(self),
        }
    }

    /// The length of an object in bytes.
    pub const fn size(&self) -> usize {
        self.size
    }

    /// What the first byte of a page has to be a multiple of, for the objects to be right.
    pub(super) fn page_align(&self) -> usize {
        self.align.max(self.boundary)
    }

    /// From one object to the next, within a boundary.
    fn stride(&self) -> usize {
        self.size.next_multiple_of(self.align)
    }

    /// Objects between two boundaries.
    fn per_window(&self) -> usize {
        // The last one need not be followed by padding.
        1 + (self.boundary - self.size) / self.stride()
    }

    /// Objects in a page of `len` bytes.
    pub(super) fn per_page(&self, len: usize) -> usize {
        // Padding may reach past a boundary where the alignment is the larger.
        let windows = len / self.window();
        windows.saturating_mul(self.per_window()).min(MOST)
    }

    /// What repeats itself in a page, in bytes.
    fn window(&self) -> usize {
        self.boundary.max(self.align)
    }

    /// Where an object begins in its page.
    pub(super) fn offset(&self, index: usize) -> usize {
        let per_window = self.per_window();
        index / per_window * self.window() + index % per_window * self.stride()
    }
}

#[cfg(all(test, not(loom)))]
#[expect(clippy::unwrap_used, reason = "a test stops where it fails")]
mod tests {
    use super::*;

    /// Sizes around every power of two, every alignment and boundary: aligned, within its boundary,
    /// apart from its neighbours, and no room left that another could have had.
    #[test]
    fn objects_are_aligned_apart_and_within_their_boundary() {
        let around = (4..=12).flat_map(|bits| [(1 << bits) - 1, 1 << bits, (1 << bits) + 1]);
        for size in (1..=18).chain([48, 96, 1500, 2730]).chain(around.filter(|s| *s <= LONGEST)) {
            for align in (0..=12).map(|bits| 1 << bits) {
                for boundary in (0..=13).map(|bits| 1 << bits) {
                    check(size, align, boundary);
                }
            }
        }
    }

    fn check(size: usize, align: usize, boundary: usize) {
        let layout = ObjectLayout::new(size, align).unwrap();
        let wall = Boundary::new(boundary as u64).unwrap();
        let Ok(layout) = layout.within(wall) else {
            assert!(boundary < size);
            return;
        };
        let (page, count) = (LONGEST, layout.per_page(LONGEST));
        assert!((1..=MOST).contains(&count), "{layout:?}");
        let mut end = 0;
        for index in 0..count {
            let at = layout.offset(index);
            assert!(at >= end && at + size <= page, "{layout:?} {index}");
            assert!(at.is_multiple_of(align), "{layout:?} {index}");
            assert!(!wall.crossed_by(at as u64, size as u64), "{layout:?} {index}");
            // From the end of the last one on, this is the first place that is right.
            let first = (end..)
                .find(|at| at.is_multiple_of(align) && !wall.crossed_by(*at as u64, size as u64));
            assert_eq!(first, Some(at), "{layout:?} {index}");
            end = at + size;
        }
    }

    #[test]
    fn what_cannot_be_is_told() {
        for size in [0, 4097, usize::MAX] {
            assert_eq!(ObjectLayout::new(size, 1), Err(LayoutError::Size(size)));
        }
        for align in [0, 3, 8192] {
            assert_eq!(ObjectLayout::new(1, align), Err(LayoutError::Align(align)));
        }
        let layout = ObjectLayout::new(65, 64).unwrap();
        let near = Boundary::new(64).unwrap();
        assert_eq!(layout.within(near), Err(LayoutError::Boundary(64)));
        assert!(layout.within(Boundary::new(128).unwrap()).is_ok());
        assert_eq!(layout.within(Boundary::new(1 << 63).unwrap()), Ok(layout));
    }
}
