//! Who takes slots, and the record of a run that was taken.

use core::num::NonZeroUsize;

use crate::addr::SLOT;
use crate::word::Word;

/// No free run of slots was long enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// Slots that cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SlotsError {
    /// Not a single slot.
    TooSmall,
    /// More than half a word counts.
    TooLarge,
    /// The storage has too few words.
    Storage { wanted: usize, given: usize },
}

/// Who takes slots: a device of the layer, by its number, in the upper half of a word. Numbers are
/// never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owner(NonZeroUsize);

/// What an owner number and a count have in a word each: half of it.
pub(super) const HALF: usize = (1 << (Word::BITS / 2)) - 1;
/// Where an owner's half begins.
const UPPER: u32 = usize::BITS / 2;
/// The bit of an owner's number that says that the slots are allocated, not mapped. (Of addresses of
/// a domain, that nothing is mapped there yet.)
const ALLOCATED: usize = 1 << (UPPER - 1);
/// The bit that says that somebody is ending the run at this moment. With [`ALLOCATED`] it says that
/// it could not be ended.
const ENDING: usize = 1 << (UPPER - 2);

impl Owner {
    /// The most owners there can be: half a word of them, but for two bits and the last number.
    pub(crate) const MOST: usize = ENDING - 2;

    /// Whoever takes slots by hand, and is no device.
    pub(crate) const BY_HAND: Self = match Self::numbered(Self::MOST + 1) {
        Some(owner) => owner,
        None => unreachable!(),
    };

    /// The owner with this number, from 1 on.
    pub(crate) const fn new(number: usize) -> Option<Self> {
        if number > Self::MOST { None } else { Self::numbered(number) }
    }

    const fn numbered(number: usize) -> Option<Self> {
        match NonZeroUsize::new(number << UPPER) {
            Some(upper) => Some(Self(upper)),
            None => None,
        }
    }

    /// The same device as the owner of memory that it allocated: a revocation, which ends maps,
    /// does not end that.
    pub(crate) fn allocating(self) -> Self {
        Self(self.0 | ALLOCATED << UPPER)
    }

    /// The same device as the owner of a run that somebody is ending.
    pub(super) fn ending(self) -> Self {
        Self(self.0 | ENDING << UPPER)
    }

    /// The same device as the owner of a run that could not be ended.
    pub(super) fn stuck(self) -> Self {
        self.ending().allocating()
    }

    /// What stands at the first slot of a run of `count`.
    #[inline]
    pub(super) fn mark(self, count: usize) -> NonZeroUsize {
        self.0 | count
    }

    /// The length of the run that a mark tells, if it is this owner's.
    pub(super) fn run_of(self, mark: usize) -> Option<usize> {
        (mark & !HALF == self.0.get()).then_some(mark & HALF)
    }
}

/// Slots that were taken, and the place in them. Not `Copy`: who holds it holds the slots, and
/// losing it loses them.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "slots that are not given back are lost"]
pub struct SlotRun {
    /// What stands at its first slot while it is held: whose it is, and how long.
    pub(super) mark: NonZeroUsize,
    /// Where it begins, in bytes.
    pub(super) offset: usize,
}

impl SlotRun {
    /// The record of an owner that kept only where the slots begin, in bytes, and how many they
    /// are.
    pub(crate) fn of(offset: usize, count: usize, owner: Owner) -> Self {
        Self { mark: owner.mark(count), offset }
    }

    /// The place in bytes from the start of the pool.
    #[inline]
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// The number of its first slot in its pool.
    #[inline]
    pub fn first(&self) -> usize {
        self.offset >> SLOT.trailing_zeros()
    }

    /// The number of slots.
    #[inline]
    pub fn count(&self) -> usize {
        self.mark.get() & HALF
    }
}

/// A run of slots that somebody holds, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeldRun {
    /// The number of its first slot.
    pub first: usize,
    /// Slots.
    pub count: usize,
    /// The number of the device that holds it.
    pub device: usize,
    /// Whether the device allocated it; otherwise it is a map's.
    pub allocated: bool,
}

impl HeldRun {
    /// The run that a mark at a slot tells of.
    pub(super) fn of(first: usize, mark: usize) -> Option<Self> {
        let (owner, count) = (mark >> UPPER, mark & HALF);
        let (device, allocated) = (owner & (ENDING - 1), owner & ALLOCATED != 0);
        (mark != 0).then_some(Self { first, count, device, allocated })
    }
}
