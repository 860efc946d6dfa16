//! On what terms bytes are mapped: which way, by whose rules, with or without the copies.

use coco_dma::state::Direction;
use serde::Serialize;

/// Whose rules of copying.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Rules {
    /// Linux's: every map copies in, also where the device only writes.
    Linux,
    /// Ours: a map from the device zeroes what the device may write.
    Ours,
}

/// What is done to the bytes when a map is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtMap {
    /// Nothing: the allocation alone is measured.
    Nothing,
    /// The buffer is copied into the slots.
    Copy,
    /// The slots are zeroed.
    Zero,
}

/// The terms of every map of one measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Which way the bytes go.
    pub direction: Direction,
    /// Whose rules of copying.
    pub rules: Rules,
    /// Whether bytes are copied at all.
    pub sync: bool,
    /// The low bits of addresses that are kept.
    pub min_align_mask: usize,
}

impl Terms {
    /// To the device, with copies, without a mask.
    pub const TO_DEVICE: Self =
        Self { direction: Direction::ToDevice, rules: Rules::Linux, sync: true, min_align_mask: 0 };

    /// What is done to the bytes when a map is made.
    #[inline]
    pub fn at_map(&self) -> AtMap {
        match (self.sync, self.rules) {
            (false, _) => AtMap::Nothing,
            (true, Rules::Ours) if !self.direction.to_device() => AtMap::Zero,
            (true, _) => AtMap::Copy,
        }
    }

    /// Whether bytes are copied back when a map ends.
    #[inline]
    pub fn copies_back(&self) -> bool {
        self.sync && self.direction.from_device()
    }
}
