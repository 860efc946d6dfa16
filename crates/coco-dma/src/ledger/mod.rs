//! The ledger: the state of every granule of memory, and the pins by direct DMA.
//!
//! A granule is the smallest piece of memory that converts, in bytes the larger of the guest's
//! page and the hypervisor's. The caller registers ranges ([`Tracked`]) and hands over storage,
//! 16 bits a granule; the books lie there and never in the memory that they are about. Whatever
//! is in no range is untracked: its state is what whoever uses it says.
//!
//! Three things go by the books. A look ([`Ledger::peek`]) is for deciding and promises nothing.
//! A pin ([`Ledger::pin`]) holds granules in a state for as long as a device has them. A
//! conversion ([`Ledger::begin`], [`Ledger::settle`]) takes unpinned granules out of one state and
//! puts them into another, or into quarantine where nobody knows how it ended. Pins and conversions
//! take all granules of a run or none, so that a granule is never pinned while it is converted.
//! A run may lie across several ranges that stand side by side: what is asked of it is asked of
//! each, and undone in all where one says no.
//!
//! Memory that may come and go while the layer runs is registered from the start as
//! [`Initial::Absent`], where the machine says that it may ever be, with its storage: nothing is
//! allocated then, and nobody is in the way of a look. [`Ledger::add`] notes that a part of it came,
//! [`Ledger::remove`] that an idle part goes.
//! On an SME host nothing converts: its memory is encrypted or plain, its kernel says which
//! ([`Ledger::declare_cipher`]), and devices pin it so.
//! Nothing here waits, blocks or allocates; everything may be called in any context.
//!
//! ```
//! use coco_dma::Word;
//! use coco_dma::addr::{PhysAddr, PhysRange};
//! use coco_dma::ledger::{Initial, Ledger, Tracked};
//! use coco_dma::state::Visibility;
//!
//! const LEN: u64 = 16 << 20;
//! static WORDS: [Word; Tracked::words(LEN, 4096)] =
//!     [const { Word::new() }; Tracked::words(LEN, 4096)];
//!
//! let ram = PhysRange::new(PhysAddr::new(0x8000_0000), LEN).unwrap();
//! let ranges = [Tracked::new(ram, 4096, Initial::Private, &WORDS)?];
//! let ledger = Ledger::new(&ranges)?;
//!
//! let buffer = ram.slice(0x1000, 0x2000).unwrap();
//! let conversion = ledger.begin(buffer, Visibility::Private)?;
//! // Here the platform converts; it did all of it.
//! ledger.settle(conversion, buffer.len(), 0, Visibility::Shared);
//!
//! let pin = ledger.pin(buffer, Visibility::Shared)?;
//! assert!(ledger.begin(buffer, Visibility::Shared).is_err(), "a device has it");
//! ledger.unpin(pin);
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```

mod convert;
mod entry;
mod error;
mod extents;
mod granules;
#[cfg(test)]
#[cfg(not(loom))]
mod host;
#[cfg(test)]
#[cfg(loom)]
mod models;
mod pins;
mod quarantine;
#[cfg(test)]
#[cfg(not(loom))]
mod random;
mod range_state;
#[cfg(test)]
#[cfg(not(loom))]
mod tests;
mod tracked;
mod window;

pub use convert::Conversion;
pub use convert::Settled;
pub use entry::GranuleState;
pub use error::Conflict;
pub use error::Found;
pub use error::LedgerError;
pub use pins::Pin;
pub use quarantine::Quarantine;
pub use range_state::Granule;
pub use range_state::RangeState;
pub use tracked::Initial;
pub use tracked::Tracked;
pub(crate) use window::Window;

use core::fmt;

use crate::addr::PhysAddr;
use crate::addr::PhysRange;

/// The books of all registered ranges. A view: copies of it are the same books.
#[derive(Clone, Copy, Debug)]
pub struct Ledger<'m> {
    ranges: &'m [Tracked<'m>],
    /// The largest of them, in which most buffers lie.
    largest: Option<&'m Tracked<'m>>,
}

/// Where a run lies.
enum Place<'m> {
    /// Wholly in one range.
    In(&'m Tracked<'m>),
    /// Across several that stand side by side.
    Across(&'m [Tracked<'m>]),
    /// In none.
    Untracked,
    /// Partly in none; with the first byte on the other side.
    Border(PhysAddr),
}

/// What of a run lies in each of these ranges, lowest first.
fn parts<'m>(
    ranges: &'m [Tracked<'m>],
    run: PhysRange,
) -> impl Iterator<Item = (&'m Tracked<'m>, PhysRange)> + Clone {
    ranges.iter().filter_map(move |tracked| {
        let range = tracked.range();
        let (base, last) = (range.base().max(run.base()), range.last().min(run.last()));
        Some((tracked, PhysRange::between(base, last)?))
    })
}

impl<'m> Ledger<'m> {
    /// The ledger of a machine that keeps none: all memory is untracked.
    pub const EMPTY: Self = Self { ranges: &[], largest: None };

    /// The ledger of these ranges, in ascending order and without overlap; an error names the
    /// first two that are not. Any context.
    pub fn new(ranges: &'m [Tracked<'m>]) -> Result<Self, LedgerError> {
        for (before, after) in ranges.iter().zip(ranges.iter().skip(1)) {
            let (before, after) = (before.range(), after.range());
            if before.last() >= after.base() {
                return Err(LedgerError::Order { before, after });
            }
        }
        Ok(Self { ranges, largest: ranges.iter().max_by_key(|tracked| tracked.range().len()) })
    }

    /// The registered ranges, in ascending order.
    pub fn ranges(&self) -> &'m [Tracked<'m>] {
        self.ranges
    }

    /// The state of the granules that `run` touches, partly touched ones included.
    ///
    /// For deciding, not for relying on: it may have changed when the answer arrives, and of a
    /// run in several words it is of no one moment. [`pin`](Self::pin) and [`begin`](Self::begin)
    /// say which state they expect, and fail where it is another one. Any context; never waits; a
    /// load a word.
    #[inline]
    pub fn peek(&self, run: PhysRange) -> RangeState {
        match self.find(run) {
            Place::Untracked => RangeState::Untracked,
            Place::Border(first) => RangeState::Border { first },
            Place::In(tracked) => tracked.look(run),
            Place::Across(ranges) => {
                let seen = parts(ranges, run).map(|(tracked, part)| (part, tracked.look(part)));
                RangeState::of_several(seen).unwrap_or(RangeState::Untracked)
            }
        }
    }

    /// A run in pieces of which each lies in one range, lowest first: what is converted as one. A
    /// run that lies in none, or partly, is one piece.
    pub(crate) fn pieces(&self, run: PhysRange) -> impl Iterator<Item = PhysRange> + Clone {
        let ranges = match self.find(run) {
            Place::Across(ranges) => ranges,
            _ => &[],
        };
        let whole = ranges.is_empty().then_some(run);
        whole.into_iter().chain(parts(ranges, run).map(|(_, part)| part))
    }

    /// All that is kept of the granule that holds the byte `at`, for people and tests; `None` for
    /// foreign and untracked memory. Any context.
    pub fn granule(&self, at: PhysAddr) -> Option<Granule> {
        let Place::In(tracked) = self.find(PhysRange::new(at, 1)?) else { return None };
        let granules = tracked.granules().ok()?;
        let span = granules.span(PhysRange::new(at, 1)?);
        let (number, entry) = granules.parts(span).flat_map(|part| part.entries()).next()?;
        let run = PhysRange::new(granules.at(number), granules.bytes())?;
        Some(Granule { run, state: entry.state(), pins: entry.pins() })
    }

    /// The range in which a run lies.
    #[inline]
    fn find(&self, run: PhysRange) -> Place<'m> {
        match self.largest {
            Some(tracked) if tracked.range().contains(run) => Place::In(tracked),
            _ => self.search(run),
        }
    }

    /// A binary search.
    fn search(&self, run: PhysRange) -> Place<'m> {
        // The lowest range that is not wholly below the run.
        let index = self.ranges.partition_point(|tracked| tracked.range().last() < run.base());
        let Some(tracked) = self.ranges.get(index) else { return Place::Untracked };
        let range = tracked.range();
        if range.contains(run) {
            return Place::In(tracked);
        }
        if run.base() < range.base() {
            let reaches = range.base() <= run.last();
            return if reaches { Place::Border(range.base()) } else { Place::Untracked };
        }
        // The run leaves the range at its end; how far are there others side by side?
        let (mut end, mut last) = (index + 1, range.last());
        while last < run.last() {
            // There is an address behind it, of the run.
            let behind = last.checked_add(1).unwrap_or(run.last());
            match self.ranges.get(end).map(Tracked::range) {
                Some(next) if next.base() == behind => (end, last) = (end + 1, next.last()),
                _ => return Place::Border(behind),
            }
        }
        self.ranges.get(index..end).map_or(Place::Untracked, Place::Across)
    }
}

impl fmt::Display for Ledger<'_> {
    /// A line a range.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for tracked in self.ranges {
            writeln!(f, "{tracked}")?;
        }
        write!(f, "{:#x} bytes in quarantine", self.quarantined())
    }
}
