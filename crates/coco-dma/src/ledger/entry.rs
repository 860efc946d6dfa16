//! What is kept of a granule: 16 bits, three of state and thirteen of pins, several to a word.
//!
//! State and pins lie in one word so that one compare-and-swap looks at both: "shared, and one
//! more pin" and "unpinned, and converting from now on" can then never both succeed. The granules
//! of a run that lie in the same word change together.

use core::fmt;
use core::ops::Range;

use crate::state::Cipher;
use crate::state::State;
use crate::state::Visibility;
use crate::word::Ordering;
use crate::word::Word;

/// The state of one granule. The numbers are what the books hold: 0, which is in fresh storage, is
/// the state in which nobody uses memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GranuleState {
    /// The guest never accepted it. Not private: the host may still choose what lies there.
    Unaccepted = 0,
    /// This guest alone may access it.
    Private = 1,
    /// The host may access it too.
    Shared = 2,
    /// Somebody is converting it: nobody else may rely on either state.
    Converting = 3,
    /// A conversion failed and nobody knows the state. Lost on purpose, until a retry proves it.
    Quarantined = 4,
    /// An SME host's memory, behind the cipher.
    Encrypted = 5,
    /// An SME host's memory, stored as it is.
    Plain = 6,
    /// No memory is there, and some may be added ([`Ledger::add`](super::Ledger::add)).
    Absent = 7,
}

impl GranuleState {
    /// Every state, in the order of their numbers.
    pub const ALL: [Self; 8] = [
        Self::Unaccepted,
        Self::Private,
        Self::Shared,
        Self::Converting,
        Self::Quarantined,
        Self::Encrypted,
        Self::Plain,
        Self::Absent,
    ];

    /// Who may access the granule; `None` where nobody may rely on an answer, and on a host, where
    /// that is no question.
    #[inline]
    pub const fn visibility(self) -> Option<Visibility> {
        match self {
            Self::Private => Some(Visibility::Private),
            Self::Shared => Some(Visibility::Shared),
            Self::Converting | Self::Quarantined | Self::Unaccepted => None,
            Self::Encrypted | Self::Plain | Self::Absent => None,
        }
    }

    /// Whether its owner may declare memory in this state to be in `to` from now on: a guest's is
    /// never a host's, and nobody else is changing it.
    pub(super) const fn may_become(self, to: Self) -> bool {
        let of_host = matches!(to, Self::Encrypted | Self::Plain);
        match self {
            Self::Private | Self::Shared | Self::Unaccepted => !of_host,
            Self::Encrypted | Self::Plain => of_host,
            Self::Converting | Self::Quarantined | Self::Absent => false,
        }
    }
}

impl From<Visibility> for GranuleState {
    fn from(visibility: Visibility) -> Self {
        match visibility {
            Visibility::Private => Self::Private,
            Visibility::Shared => Self::Shared,
        }
    }
}

impl From<Cipher> for GranuleState {
    fn from(cipher: Cipher) -> Self {
        match cipher {
            Cipher::Encrypted => Self::Encrypted,
            Cipher::Plain => Self::Plain,
        }
    }
}

impl From<State> for GranuleState {
    /// Memory of an open machine has no state that could change: its granules are in no book, and
    /// whoever asks for one finds it untracked.
    fn from(state: State) -> Self {
        match state {
            State::Ordinary => Self::Unaccepted,
            State::Host(cipher) => cipher.into(),
            State::Guest(visibility) => visibility.into(),
        }
    }
}

impl fmt::Display for GranuleState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Private => "private",
            Self::Shared => "shared",
            Self::Converting => "converting",
            Self::Quarantined => "quarantined",
            Self::Unaccepted => "unaccepted",
            Self::Encrypted => "encrypted",
            Self::Plain => "plain",
            Self::Absent => "absent",
        })
    }
}

/// The 16 bits of one granule: state at the bottom, pins above.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry(usize);

const STATE_BITS: u32 = 3;
const STATE: usize = (1 << STATE_BITS) - 1;
const ENTRY_BITS: usize = 16;
const ENTRY: usize = (1 << ENTRY_BITS) - 1;
/// The states of all entries of a word.
const STATES: usize = Entry(STATE).repeated();

/// Entries in a word: four where words have 64 bits, two where they have 32.
pub(super) const PER_WORD: usize = Word::BITS / ENTRY_BITS;

impl Entry {
    /// The most pins of one granule: what thirteen bits can count.
    pub(super) const MAX_PINS: usize = ENTRY >> STATE_BITS;

    /// A granule in this state, unpinned.
    pub(super) const fn new(state: GranuleState) -> Self {
        Self(state as usize)
    }

    /// The word whose entries are all this one.
    pub(super) const fn repeated(self) -> usize {
        // A one at the bottom of every entry.
        self.0 * (usize::MAX / ENTRY)
    }

    /// The entry at `lane` of a word.
    const fn of(word: usize, lane: usize) -> Self {
        Self((word >> (lane * ENTRY_BITS)) & ENTRY)
    }

    #[inline]
    pub(super) const fn state(self) -> GranuleState {
        match self.0 & STATE {
            0 => GranuleState::Unaccepted,
            1 => GranuleState::Private,
            2 => GranuleState::Shared,
            3 => GranuleState::Converting,
            5 => GranuleState::Encrypted,
            6 => GranuleState::Plain,
            7 => GranuleState::Absent,
            // 4, the last that three bits hold.
            _ => GranuleState::Quarantined,
        }
    }

    /// The state of the entries from number `first` to number `last` of `words`, where they are all
    /// there and in one state. Of several words it is of no one moment.
    #[inline]
    pub(super) fn alike(words: &[Word], first: usize, last: usize) -> Option<GranuleState> {
        let (word, lane) = (words.get(first / PER_WORD)?, first % PER_WORD * ENTRY_BITS);
        let word = word.0.load(Ordering::Relaxed) >> lane;
        let state = Self(word & STATE);
        // Mostly one word has all of them.
        let alike = if first / PER_WORD == last / PER_WORD {
            state.is_all(word, STATES >> (Word::BITS - ENTRY_BITS - (last - first) * ENTRY_BITS))
        } else {
            state.is_all(word, STATES >> lane) && state.is_in(words, first / PER_WORD + 1, last)
        };
        alike.then(|| state.state())
    }

    /// Whether the entries of these words are in this state, from the one with this number up to
    /// entry number `last`.
    #[inline(never)]
    fn is_in(self, words: &[Word], word: usize, last: usize) -> bool {
        let Some([between @ .., end]) = words.get(word..last / PER_WORD + 1) else { return false };
        let unused = (PER_WORD - 1 - last % PER_WORD) * ENTRY_BITS;
        between.iter().all(|word| self.is_all(word.0.load(Ordering::Relaxed), STATES))
            && self.is_all(end.0.load(Ordering::Relaxed), STATES >> unused)
    }

    /// Whether all entries of a word whose bits are in `states` are in this state.
    #[inline]
    fn is_all(self, word: usize, states: usize) -> bool {
        (word ^ self.repeated()) & states == 0
    }

    pub(super) const fn pins(self) -> usize {
        self.0 >> STATE_BITS
    }

    /// With one pin more; `None` where there is no room to count it.
    pub(super) const fn pinned(self) -> Option<Self> {
        if self.pins() < Self::MAX_PINS { Some(Self(self.0 + (1 << STATE_BITS))) } else { None }
    }

    /// With one pin less; without pins, as it is.
    pub(super) const fn unpinned(self) -> Self {
        if self.pins() > 0 { Self(self.0 - (1 << STATE_BITS)) } else { self }
    }
}

/// The entries of a run that lie in one word.
pub(super) struct Part<'m> {
    word: &'m Word,
    /// The number of the granule whose entry is the word's first.
    start: usize,
    lanes: Range<usize>,
}

impl<'m> Part<'m> {
    /// The entries in `lanes` of the word whose first entry is that of granule `start`.
    pub(super) fn new(word: &'m Word, start: usize, lanes: Range<usize>) -> Self {
        Self { word, start, lanes }
    }

    /// The number of the first granule.
    pub(super) fn first(&self) -> usize {
        self.start + self.lanes.start
    }

    /// The entries as they are, each with the number of its granule. Relaxed: what is seen may
    /// have changed already, so that nobody acts on it without a compare-and-swap.
    pub(super) fn entries(&self) -> impl Iterator<Item = (usize, Entry)> + use<> {
        let (word, start) = (self.word.0.load(Ordering::Relaxed), self.start);
        self.lanes.clone().map(move |lane| (start + lane, Entry::of(word, lane)))
    }

    /// Changes all entries in one step, or none: an error of `change` comes back with the number
    /// of the granule that it was for.
    ///
    /// An attempt fails only where another CPU changed the word (or the hardware lost its
    /// reservation): somebody always gets on, and nothing here waits for anybody.
    pub(super) fn update<E>(
        &self,
        success: Ordering,
        change: impl Fn(usize, Entry) -> Result<Entry, E>,
    ) -> Result<(), (usize, E)> {
        let mut seen = self.word.0.load(Ordering::Relaxed);
        loop {
            let mut next = seen;
            for lane in self.lanes.clone() {
                let (granule, entry) = (self.start + lane, Entry::of(seen, lane));
                let new = change(granule, entry).map_err(|error| (granule, error))?;
                next ^= (entry.0 ^ new.0) << (lane * ENTRY_BITS);
            }
            match self.word.0.compare_exchange_weak(seen, next, success, Ordering::Relaxed) {
                Ok(_) => return Ok(()),
                Err(now) => seen = now,
            }
        }
    }
}
