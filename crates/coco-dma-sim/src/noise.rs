//! What looks random: a seeded generator, markers to search for, and the memory controller's
//! cipher. None of it is cryptography; all of it is the same on every run.

/// Bytes in a block of the cipher, as AMD's and Intel's memory encryption have them.
pub(crate) const BLOCK: usize = 16;

/// A seeded generator (splitmix64).
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// The generator of this seed.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A number below `end`; 0 where `end` is 0.
    pub const fn below(&mut self, end: u64) -> u64 {
        match self.next().checked_rem(end) {
            Some(number) => number,
            None => 0,
        }
    }

    /// Fills `bytes`.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let word = self.next().to_le_bytes();
            for (byte, noise) in chunk.iter_mut().zip(word) {
                *byte = noise;
            }
        }
    }
}

/// Bytes to search for: nothing else holds them by chance. Each seed has its own.
pub fn marker(seed: u64) -> [u8; 32] {
    let mut bytes = [0; 32];
    Rng::new(seed ^ 0x6d61_726b_6572).fill(&mut bytes);
    bytes
}

/// The cipher of one guest's memory: each block of 16 bytes by itself, with its address as tweak.
/// It can be undone, so that ciphertext written back to where it was read is the old plaintext
/// again, and anything else is garbage.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cipher {
    key: u64,
}

impl Cipher {
    pub(crate) const fn new(seed: u64) -> Self {
        Self { key: mix(seed ^ 0x006b_6579) }
    }

    /// What DRAM holds where the guest has `plain`.
    pub(crate) fn hide(self, at: u64, plain: [u8; BLOCK]) -> [u8; BLOCK] {
        let (mut left, mut right) = halves(plain);
        for round in 0..4 {
            (left, right) = (right, left ^ self.round(at, round, right));
        }
        join(left, right)
    }

    /// What the guest has where DRAM holds `hidden`.
    pub(crate) fn reveal(self, at: u64, hidden: [u8; BLOCK]) -> [u8; BLOCK] {
        let (mut left, mut right) = halves(hidden);
        for round in (0..4).rev() {
            (left, right) = (right ^ self.round(at, round, left), left);
        }
        join(left, right)
    }

    const fn round(self, at: u64, round: u64, half: u64) -> u64 {
        mix(half ^ self.key.rotate_left(7) ^ mix(at ^ (round << 60)))
    }
}

fn halves(block: [u8; BLOCK]) -> (u64, u64) {
    let whole = u128::from_le_bytes(block);
    let low = whole & u128::from(u64::MAX);
    (u64::try_from(low).unwrap_or(0), u64::try_from(whole >> 64).unwrap_or(0))
}

fn join(left: u64, right: u64) -> [u8; BLOCK] {
    ((u128::from(right) << 64) | u128::from(left)).to_le_bytes()
}

const fn mix(word: u64) -> u64 {
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cipher_can_be_undone_at_its_own_address_and_with_its_own_key_alone() {
        let mut rng = Rng::new(1);
        for _ in 0..1000 {
            let mut plain = [0; BLOCK];
            rng.fill(&mut plain);
            let (at, cipher) = (rng.next() & !15, Cipher::new(rng.next()));
            let hidden = cipher.hide(at, plain);
            assert_ne!(hidden, plain);
            assert_eq!(cipher.reveal(at, hidden), plain);
            assert_ne!(cipher.reveal(at ^ 16, hidden), plain);
            assert_ne!(Cipher::new(rng.next()).reveal(at, hidden), plain);
        }
    }

    #[test]
    fn markers_differ_and_seeds_repeat() {
        assert_eq!(marker(1), marker(1));
        assert_ne!(marker(1), marker(2));
        assert_eq!(Rng::new(1).below(0), 0);
    }
}
