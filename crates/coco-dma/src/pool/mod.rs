//! Pools: memory that devices reach, in slots of 2 KiB, with all bookkeeping out of band.
//!
//! A pool is registered with its label; what it is never follows from the platform. The bitmap of
//! slots lies in words that the caller owns, never in the pool itself, and slots are given back
//! by the token that taking them returned, never by an address.

// UNSAFETY: adopting memory as a pool is a promise of the caller.
#![expect(unsafe_code)]

mod bytes;
#[cfg(all(test, loom))]
mod models;
mod slots;
#[cfg(all(test, not(loom)))]
mod tests;

pub use slots::SlotRun;

use core::fmt;
use core::ptr::NonNull;

use crate::addr::PhysRange;
use crate::addr::Places;
use crate::addr::SLOT;
use crate::state::PoolLabel;
use crate::state::PoolOrigin;
use crate::word::Word;
use bytes::Bytes;
use slots::Slots;

/// A pool of memory in one state.
#[derive(Debug)]
pub struct Pool<'m> {
    label: PoolLabel,
    origin: PoolOrigin,
    restricted: bool,
    range: PhysRange,
    bytes: Bytes,
    slots: Slots<'m>,
}

/// A pool that cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PoolError {
    /// The memory holds not a single slot of 2048 bytes.
    TooSmall,
    /// The memory is longer than this machine's words can count.
    TooLarge,
    /// The storage has fewer words than [`Pool::words`] asks for.
    Storage {
        /// Words needed.
        wanted: usize,
        /// Words given.
        given: usize,
    },
}

impl fmt::Display for PoolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooSmall => write!(f, "a pool needs room for at least one slot of {SLOT} bytes"),
            Self::TooLarge => f.write_str("the pool is longer than this machine can count"),
            Self::Storage { wanted, given } => {
                write!(f, "the pool's bookkeeping needs {wanted} words, and {given} were given")
            }
        }
    }
}

impl core::error::Error for PoolError {}

/// No free run of slots was long enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

impl<'m> Pool<'m> {
    /// Words of storage that the bookkeeping of a pool of `len` bytes needs: a bit a slot.
    pub const fn words(len: u64) -> usize {
        Slots::words(len)
    }

    /// A pool over memory that came in the state of its label and is never converted.
    ///
    /// The memory is as it is: what earlier owners left in it stays until a mapping overwrites
    /// it. `words` is storage for the bookkeeping alone; what it holds is overwritten.
    ///
    /// # Safety
    ///
    /// 1. `view` points to the whole of `range`, readable and writable, for `'m`.
    /// 2. The memory is in the state of the label, and stays so for `'m`.
    /// 3. Nothing but this pool uses the memory for `'m` (devices apart), and no reference to it
    ///    exists.
    pub unsafe fn adopt(
        label: PoolLabel,
        range: PhysRange,
        view: NonNull<u8>,
        words: &'m [Word],
    ) -> Result<Self, PoolError> {
        // What is left of the last slot is out of use, and no part of the pool.
        let whole = range.len() & !(SLOT - 1);
        let range = PhysRange::new(range.base(), whole).ok_or(PoolError::TooSmall)?;
        let len = usize::try_from(whole).map_err(|_| PoolError::TooLarge)?;
        let slots = Slots::new(whole, words)?;
        // SAFETY: condition 1 and 3 of this function are those of `Bytes::new`.
        let bytes = unsafe { Bytes::new(view, len) };
        Ok(Self { label, origin: PoolOrigin::Adopted, restricted: false, range, bytes, slots })
    }

    /// The same pool as the only memory that its devices may touch.
    #[must_use]
    pub fn restricted(self) -> Self {
        Self { restricted: true, ..self }
    }

    /// What its memory is.
    pub fn label(&self) -> PoolLabel {
        self.label
    }

    /// How its memory came into that state.
    pub fn origin(&self) -> PoolOrigin {
        self.origin
    }

    /// Whether it is the only memory that its devices may touch.
    pub fn is_restricted(&self) -> bool {
        self.restricted
    }

    /// Where its memory lies.
    pub fn range(&self) -> PhysRange {
        self.range
    }

    /// Slots in all.
    pub fn capacity(&self) -> usize {
        self.slots.capacity()
    }

    /// Slots in use now; while other threads take and give, the number of some moment.
    pub fn used(&self) -> usize {
        self.slots.used()
    }

    /// The most slots that were ever in use at once.
    pub fn high_water(&self) -> usize {
        self.slots.high_water()
    }

    /// Takes the lowest free run of slots at one of `places`. Never blocks; a run that another
    /// thread takes meanwhile is passed over.
    pub(crate) fn take(&self, places: &Places) -> Result<SlotRun, Full> {
        self.slots.take(places)
    }

    /// Gives slots back.
    pub(crate) fn give(&self, run: SlotRun) {
        self.slots.give(run);
    }

    /// The bytes of the pool.
    pub(crate) fn bytes(&self) -> &Bytes {
        &self.bytes
    }
}
