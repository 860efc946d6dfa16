//! Mappings in the page tables of the guest's CPUs (the host's own, under SME), as a kernel makes
//! them for itself or for a program: whatever mark and memory type they were given.

use coco_dma::addr::PhysRange;
use coco_dma::state::CacheMode;

use super::Machine;
use crate::hardware::Sight;
use crate::number;
use crate::ram::Outcome;
use crate::ram::Path;

/// A mapping of memory for the CPU. With the mark and the type that suit the memory the CPU sees
/// what is there; otherwise what the platform makes of the access.
#[derive(Clone, Debug)]
pub struct CpuMapping {
    machine: Machine,
    runs: Vec<PhysRange>,
    /// `None` where no memory has an address with this mark.
    sight: Option<Sight>,
    path: Path,
}

impl Machine {
    /// Maps `runs`, one after the other, with `mark` in the addresses of the page-table entries, as
    /// memory of type `cache`.
    pub fn map_for_cpu(&self, runs: Vec<PhysRange>, mark: u64, cache: CacheMode) -> CpuMapping {
        let path = if cache == CacheMode::WriteBack { Path::Cpu } else { Path::Memory };
        CpuMapping { machine: self.clone(), runs, sight: self.hardware().for_cpu(mark), path }
    }
}

impl CpuMapping {
    /// Bytes in it.
    pub fn len(&self) -> usize {
        self.runs.iter().map(|run| number::size(run.len())).sum()
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Reads. What does not come reads as ones.
    pub fn read(&self, offset: usize, into: &mut [u8]) -> Outcome {
        let live = self.machine.live();
        let (mut worst, mut moved) = (Outcome::Clear, 0);
        while let Some(rest) = into.get_mut(moved..).filter(|rest| !rest.is_empty()) {
            let piece = self.piece(offset.saturating_add(moved), rest.len());
            let Some((sight, at, part)) =
                piece.and_then(|(sight, run)| Some((sight, run, rest.get_mut(..run.1)?)))
            else {
                rest.fill(0xff);
                return Outcome::Fault;
            };
            let (outcome, came) = live.ram.read((sight, self.path), at.0, part);
            (worst, moved) = (worst.max(outcome), moved + came);
            if outcome == Outcome::Fault {
                break;
            }
        }
        into.get_mut(moved..).unwrap_or_default().fill(0xff);
        worst
    }

    /// Writes.
    pub fn write(&self, offset: usize, from: &[u8]) -> Outcome {
        let mut live = self.machine.live();
        let (mut worst, mut moved) = (Outcome::Clear, 0);
        while let Some(rest) = from.get(moved..).filter(|rest| !rest.is_empty()) {
            let piece = self.piece(offset.saturating_add(moved), rest.len());
            let Some((sight, at, part)) =
                piece.and_then(|(sight, run)| Some((sight, run, rest.get(..run.1)?)))
            else {
                return Outcome::Fault;
            };
            let (outcome, went) = live.ram.write((sight, self.path), at.0, part);
            (worst, moved) = (worst.max(outcome), moved + went);
            if outcome == Outcome::Fault {
                break;
            }
        }
        worst
    }

    /// Where the bytes from `offset` on lie, as far as they are in one run.
    fn piece(&self, offset: usize, rest: usize) -> Option<(Sight, (u64, usize))> {
        let mut before = number::wide(offset);
        for run in &self.runs {
            if before < run.len() {
                let len = rest.min(number::size(run.len() - before));
                return Some((self.sight?, (run.base().raw() + before, len)));
            }
            before -= run.len();
        }
        None
    }
}
