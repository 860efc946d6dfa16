//! The disk image, as the host sees it.

use std::fs;
use std::path::Path;

use anyhow::Result;
use sha2::{Digest, Sha256};

/// Bytes of the guest's memory.
pub(super) const MEMORY: u64 = 288 << 20;
/// Bytes of the image.
const LEN: usize = 1 << 20;
/// The guest reads this many bytes from the start, and writes as many behind them.
pub(super) const PART: usize = 256 << 10;
/// Where an attack puts what it stole.
pub(super) const LOOT: usize = 2 * PART;
/// What the guest reads from the source of randomness, whose file the image is, too.
pub(super) const ENTROPY: usize = 64 << 10;

/// The generator that the guest has, too.
pub(super) fn pattern(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// An image that is different for each boot, and different from what the guest writes.
pub(super) fn make(path: &Path, seed: u64) -> Result<()> {
    Ok(fs::write(path, pattern(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15), LEN))?)
}

/// The sixteen bytes that fill the private memory of one boot.
pub(super) fn marker(seed: u64) -> [u8; 16] {
    let mut marker = [0; 16];
    let hash = Sha256::digest(format!("private memory of boot {seed}"));
    marker.iter_mut().zip(hash).for_each(|(to, from)| *to = from);
    marker
}

pub(super) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// How often `marker` stands in `bytes`, at any offset.
pub(super) fn count(bytes: &[u8], marker: &[u8; 16]) -> usize {
    let [first, ..] = marker;
    let starts = bytes.iter().enumerate().filter(|(_, byte)| *byte == first);
    starts.filter(|(at, _)| bytes.get(*at..).is_some_and(|rest| rest.starts_with(marker))).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_marker_is_found_at_any_offset() {
        let marker = marker(1);
        let mut bytes = vec![0; 3];
        bytes.extend(marker);
        bytes.extend(&marker[..15]);
        bytes.extend(marker);
        assert_eq!(count(&bytes, &marker), 2);
        assert_eq!(count(&bytes[4..18], &marker), 0);
    }
}
