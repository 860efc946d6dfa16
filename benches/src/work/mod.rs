//! The work that is measured: what threads do with hands.

mod active;
mod failing;
pub(crate) mod fill;
mod floor;
mod fragment;
mod handoff;
mod steady;

pub(crate) use active::active;
pub(crate) use failing::Failing;
pub(crate) use floor::Floor;
pub(crate) use fragment::lasts_to;
pub(crate) use handoff::RING;
pub(crate) use handoff::handoff;
pub(crate) use steady::Steady;

/// Numbers that look random and are the same in every run (xorshift, 64 bits).
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    /// A number below `end`, which is not 0.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from((self.0 >> 16) % end.max(1) as u64).unwrap_or(0)
    }
}
