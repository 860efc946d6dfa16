//! One registered range: where it lies, who owns it, and the words that the caller gave for it.

use core::fmt;

use super::GranuleState;
use super::LedgerError;
use super::RangeState;
use super::entry::PER_WORD;
use super::granules::Granules;
use crate::addr::PhysRange;
use crate::state::Visibility;
use crate::word::Word;

/// The state in which all granules of a range begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Initial {
    /// Accepted and private, as a guest's own memory at boot.
    Private,
    /// Shared with the host already, and the layer may reclaim it.
    Shared,
    /// Not accepted yet.
    Unaccepted,
    /// An SME host's, behind the cipher, as all its memory is when SME is on.
    Encrypted,
    /// An SME host's, stored as it is.
    Plain,
    /// Not there yet: addresses at which memory may be added while the layer runs.
    Absent,
}

impl From<Initial> for GranuleState {
    fn from(initial: Initial) -> Self {
        match initial {
            Initial::Private => Self::Private,
            Initial::Shared => Self::Shared,
            Initial::Unaccepted => Self::Unaccepted,
            Initial::Encrypted => Self::Encrypted,
            Initial::Plain => Self::Plain,
            Initial::Absent => Self::Absent,
        }
    }
}

impl fmt::Display for Initial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        GranuleState::from(*self).fmt(f)
    }
}

/// One registered range of memory.
pub struct Tracked<'m> {
    range: PhysRange,
    kind: Kind<'m>,
}

enum Kind<'m> {
    Granules(Granules<'m>),
    Foreign(Visibility),
}

/// Words beside the entries: the number of granules in quarantine.
const COUNTERS: usize = 1;

impl<'m> Tracked<'m> {
    /// Words of storage for a range of `len` bytes in granules of `granule` bytes: one, and one
    /// for every four granules (every two where words have 32 bits). `usize::MAX`, which nobody
    /// has, where the granule is 0 or the number does not fit.
    pub const fn words(len: u64, granule: u64) -> usize {
        if granule == 0 {
            return usize::MAX;
        }
        let words = len.div_ceil(granule).div_ceil(PER_WORD as u64);
        if words > (usize::MAX / 2) as u64 {
            return usize::MAX;
        }
        #[expect(clippy::cast_possible_truncation, reason = "it fits, as the line above says")]
        let words = words as usize;
        words + COUNTERS
    }

    /// A range whose granules of `granule` bytes (a power of two: the larger of the guest's and
    /// the hypervisor's page, `Regime::Guest` knows it) are all `initial` now.
    ///
    /// `words` is storage for this range alone, at least [`words`](Self::words) long; what it
    /// holds is overwritten. Errors: a granule that is no power of two, a range that is not made
    /// of whole granules, too little storage. Any context; takes time in the size of the storage.
    pub fn new(
        range: PhysRange,
        granule: u64,
        initial: Initial,
        words: &'m [Word],
    ) -> Result<Self, LedgerError> {
        if !granule.is_power_of_two() {
            return Err(LedgerError::Granule(granule));
        }
        if !range.is_aligned(granule) {
            return Err(LedgerError::Misaligned { range, granule });
        }
        let wanted = Self::words(range.len(), granule);
        let shift = granule.trailing_zeros();
        let (Ok(count), false) = (usize::try_from(range.len() >> shift), wanted == usize::MAX)
        else {
            return Err(LedgerError::TooLarge { range, granule });
        };
        let Some(([quarantined], words)) =
            words.get(..wanted).and_then(|words| words.split_first_chunk())
        else {
            return Err(LedgerError::Storage { wanted, given: words.len() });
        };
        let granules = Granules::new(range.base(), shift, count, quarantined, words);
        granules.fill(initial.into());
        Ok(Self { range, kind: Kind::Granules(granules) })
    }

    /// A range that the firmware or somebody else made private or shared for good: the layer may
    /// use it as it is and never converts it, pins in it need no count, and it needs no storage.
    pub const fn foreign(range: PhysRange, visibility: Visibility) -> Self {
        Self { range, kind: Kind::Foreign(visibility) }
    }

    /// Where the range lies.
    pub const fn range(&self) -> PhysRange {
        self.range
    }

    /// Its granule in bytes; `None` for foreign memory.
    pub const fn granule(&self) -> Option<u64> {
        match &self.kind {
            Kind::Granules(granules) => Some(granules.bytes()),
            Kind::Foreign(_) => None,
        }
    }

    /// The state of a run that lies in it.
    #[inline]
    pub(super) fn look(&self, run: PhysRange) -> RangeState {
        match self.granules() {
            Err(visibility) => RangeState::Foreign(visibility),
            Ok(granules) => granules.look(granules.span(run)),
        }
    }

    /// The entries of its granules, or who may access all of it for ever.
    pub(super) const fn granules(&self) -> Result<&Granules<'m>, Visibility> {
        match &self.kind {
            Kind::Granules(granules) => Ok(granules),
            Kind::Foreign(visibility) => Err(*visibility),
        }
    }
}

impl fmt::Display for Tracked<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::Granules(granules) => {
                write!(f, "{} in granules of {:#x} bytes", self.range, granules.bytes())
            }
            Kind::Foreign(visibility) => {
                write!(f, "{} foreign {}", self.range, GranuleState::from(*visibility))
            }
        }
    }
}

impl fmt::Debug for Tracked<'_> {
    /// Not its words: there may be millions.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tracked({self})")
    }
}
