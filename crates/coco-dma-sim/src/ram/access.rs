//! Touching RAM: what comes of an access depends on who sees it how, granule by granule.

use coco_dma::addr::PhysAddr;
use coco_dma::state::State;

use super::GranuleState;
use super::Ram;
use crate::hardware::OnPrivate;
use crate::hardware::Sight;
use crate::noise::BLOCK;
use crate::number;

/// What came of an access; of several granules the worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// The bytes as the guest means them.
    Clear,
    /// Bytes were read, and they are the cipher's.
    Ciphertext,
    /// Bytes were written, and the guest reads garbage there.
    Corrupted,
    /// Bytes were written, and the guest has lost the page.
    Lost,
    /// The access stopped at the first byte that it may not have, or where no memory is.
    Fault,
}

/// What is between a party and memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Path {
    /// It sees what the caches have, as other CPUs do.
    Coherent,
    /// Memory alone.
    Memory,
    /// The caches of the CPU alone, stale or not.
    Cpu,
}

/// How bytes get from one side to the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// As they are.
    Bare,
    /// Past the cipher: what DRAM holds of what the guest stored through it.
    Past,
    /// Through the cipher, of what was not stored through it.
    Through,
    /// By destroying the page.
    Destroy,
}

/// The part of an access that lies in one granule.
#[derive(Clone, Copy, Debug)]
struct Piece {
    at: u64,
    len: usize,
    way: Way,
}

impl Ram {
    /// Reads as a party with this sight. Says what came of it, and how many bytes came; the rest
    /// reads as ones, as on a bus.
    pub(crate) fn read(
        &self,
        (sight, path): (Sight, Path),
        phys: u64,
        into: &mut [u8],
    ) -> (Outcome, usize) {
        let (mut worst, mut moved) = (Outcome::Clear, 0);
        while let Some(rest) = into.get_mut(moved..).filter(|rest| !rest.is_empty()) {
            let piece = self.piece(sight, phys, moved, rest.len(), false);
            let Some((piece, part)) = piece.and_then(|p| Some((p, rest.get_mut(..p.len)?))) else {
                rest.fill(0xff);
                return (Outcome::Fault, moved);
            };
            if piece.way == Way::Bare {
                self.copy_out(path, piece.at, part);
            } else {
                let (_, skip, cover) = self.cover(path, piece);
                for (to, from) in part.iter_mut().zip(cover.iter().skip(skip)) {
                    *to = *from;
                }
                worst = worst.max(Outcome::Ciphertext);
            }
            moved += piece.len;
        }
        (worst, moved)
    }

    /// Writes as a party with this sight. Says what came of it, and how many bytes went.
    pub(crate) fn write(
        &mut self,
        (sight, path): (Sight, Path),
        phys: u64,
        from: &[u8],
    ) -> (Outcome, usize) {
        let (mut worst, mut moved) = (Outcome::Clear, 0);
        while let Some(rest) = from.get(moved..).filter(|rest| !rest.is_empty()) {
            let piece = self.piece(sight, phys, moved, rest.len(), true);
            let Some((piece, part)) = piece.and_then(|p| Some((p, rest.get(..p.len)?))) else {
                return (Outcome::Fault, moved);
            };
            let outcome = match piece.way {
                Way::Bare => {
                    self.copy_in(path, piece.at, part);
                    Outcome::Clear
                }
                Way::Past | Way::Through => {
                    let (start, skip, mut cover) = self.cover(path, piece);
                    for (to, from) in cover.iter_mut().skip(skip).zip(part) {
                        *to = *from;
                    }
                    self.cross(piece.way == Way::Through, start, &mut cover);
                    self.copy_in(path, start, &cover);
                    Outcome::Corrupted
                }
                Way::Destroy => {
                    self.destroy(piece.at);
                    Outcome::Lost
                }
            };
            worst = worst.max(outcome);
            moved += piece.len;
        }
        (worst, moved)
    }

    /// Copies from memory, whoever may.
    pub(crate) fn bare_read(&self, phys: u64, into: &mut [u8]) -> bool {
        self.copy_out(Path::Coherent, phys, into)
    }

    /// Copies to memory, whoever may.
    pub(crate) fn bare_write(&mut self, phys: u64, from: &[u8]) -> bool {
        self.copy_in(Path::Coherent, phys, from)
    }

    /// The same on one way.
    pub(crate) fn copy_out(&self, path: Path, phys: u64, into: &mut [u8]) -> bool {
        let Some(run) = number::run(phys, number::wide(into.len())) else { return false };
        self.regions()
            .iter()
            .any(|region| region.offset(run).is_some_and(|offset| region.read(path, offset, into)))
    }

    pub(crate) fn copy_in(&mut self, path: Path, phys: u64, from: &[u8]) -> bool {
        let Some(run) = number::run(phys, number::wide(from.len())) else { return false };
        self.regions()
            .iter()
            .any(|region| region.offset(run).is_some_and(|offset| region.write(path, offset, from)))
    }

    /// The next piece of an access; `None` where it faults.
    fn piece(
        &self,
        sight: Sight,
        phys: u64,
        moved: usize,
        rest: usize,
        write: bool,
    ) -> Option<Piece> {
        let at = phys.checked_add(number::wide(moved))?;
        let way = self.way(self.state(PhysAddr::new(at))?, sight, write)?;
        let in_granule = self.granule - (at & (self.granule - 1));
        Some(Piece { at, len: rest.min(number::size(in_granule)), way })
    }

    fn way(&self, state: GranuleState, sight: Sight, write: bool) -> Option<Way> {
        match (sight, state) {
            (Sight::Outside, state) if self.is_clear(state) => Some(Way::Bare),
            (Sight::Outside, _) => match (self.hardware.on_private, write) {
                (OnPrivate::Fault, _) | (OnPrivate::CiphertextReadWriteFaults, true) => None,
                (OnPrivate::EncryptedPage, true) => Some(Way::Destroy),
                _ => Some(Way::Past),
            },
            (Sight::Inside(wanted), GranuleState::In(state)) if wanted == state => Some(Way::Bare),
            (Sight::Either, GranuleState::In(_)) => Some(Way::Bare),
            (Sight::Deciphered, GranuleState::In(State::ENCRYPTED | State::PRIVATE)) => {
                Some(Way::Bare)
            }
            (Sight::Deciphered, GranuleState::In(_)) => Some(Way::Through),
            _ => None,
        }
    }

    /// The whole blocks around a piece as the other side of the cipher has them: where they start,
    /// how far into them the piece does, and the bytes.
    fn cover(&self, path: Path, piece: Piece) -> (u64, usize, Vec<u8>) {
        let skip = piece.at % number::wide(BLOCK);
        let start = piece.at - skip;
        let skip = number::size(skip);
        let mut bytes = vec![0; (skip + piece.len).next_multiple_of(BLOCK)];
        self.copy_out(path, start, &mut bytes);
        self.cross(piece.way == Way::Past, start, &mut bytes);
        (start, skip, bytes)
    }

    /// Takes whole blocks at `start` through the cipher, one way or the other.
    pub(super) fn cross(&self, hide: bool, start: u64, bytes: &mut [u8]) {
        for (index, chunk) in bytes.chunks_exact_mut(BLOCK).enumerate() {
            let at = start + number::wide(index * BLOCK);
            let mut block = [0; BLOCK];
            block.copy_from_slice(chunk);
            let crossed =
                if hide { self.cipher.hide(at, block) } else { self.cipher.reveal(at, block) };
            chunk.copy_from_slice(&crossed);
        }
    }

    /// The host destroys the granule around `at`.
    fn destroy(&mut self, at: u64) {
        if let Some(part) = number::run(at & !(self.granule - 1), self.granule) {
            let mut garbage = vec![0; number::size(part.len())];
            self.host.fill(&mut garbage);
            self.bare_write(part.base().raw(), &garbage);
            self.set_state(part, GranuleState::Lost);
        }
    }
}
