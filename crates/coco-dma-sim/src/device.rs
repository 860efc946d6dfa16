//! Devices: they do DMA to the number that they are given, and write down what came of it.

use coco_dma::addr::BusRange;
use coco_dma::addr::PhysAddr;
use coco_dma::addr::PhysRange;
use coco_dma::state::Trust;

use crate::eye::Moment;
use crate::hardware::Sight;
use crate::iommu::SimIommu;
use crate::machine::Machine;
use crate::number::size;
use crate::number::wide;
use crate::ram::Outcome;
use crate::ram::Path;

/// A device on the bus of a machine. It takes any number for an address: what the bus and the
/// memory controller make of it stands in the machine's own table, not in the layer's codec.
#[derive(Clone, Debug)]
pub struct SimDevice {
    machine: Machine,
    name: String,
    trust: Trust,
    mask: u64,
    path: Path,
    /// The bits that the address counter carries into.
    counter: Option<u64>,
    /// The windows through which the bus shows it memory; empty where every address is its own.
    windows: Vec<BusRange>,
    /// All the memory that a protection unit lets it have; empty where there is no such unit.
    only: Vec<PhysRange>,
    iommu: Option<(SimIommu, u32)>,
}

/// One access of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// The device's name.
    pub device: String,
    /// The address that it was given.
    pub addr: u64,
    /// Bytes asked for.
    pub len: usize,
    /// Whether it wrote.
    pub write: bool,
    /// What came of it.
    pub outcome: Outcome,
    /// What went over the bus, up to the fault where there was one.
    pub bytes: Vec<u8>,
}

/// A part of an access that lies in one run of memory.
struct Piece {
    phys: u64,
    sight: Sight,
    len: usize,
}

impl SimDevice {
    /// A device of 64 address bits. The machine takes the word of the test for its trust; where no
    /// device can be accepted, every access of an accepted one faults.
    pub fn new(machine: &Machine, name: &str, trust: Trust) -> Self {
        let (machine, name) = (machine.clone(), name.to_owned());
        let (mask, path, counter) = (u64::MAX, Path::Coherent, None);
        let (windows, only) = (Vec::new(), Vec::new());
        Self { machine, name, trust, mask, path, counter, windows, only, iommu: None }
    }

    /// The same device with fewer address lines: what is above them is lost, as it is in
    /// hardware. 64 or more are all.
    #[must_use]
    pub fn address_bits(self, bits: u32) -> Self {
        let mask = 1u64.checked_shl(bits).map_or(u64::MAX, |past| past - 1);
        Self { mask, ..self }
    }

    /// The same device without a view of the CPU's caches, on a machine that
    /// [has some](crate::Builder::caches).
    #[must_use]
    pub fn not_coherent(self) -> Self {
        Self { path: Path::Memory, ..self }
    }

    /// The same device with an address counter that does not carry past this boundary, a power of
    /// two in bytes: it goes on at the start of its window, as with the 16 bits of Intel's 8237A.
    #[must_use]
    pub fn counts_within(self, boundary: u64) -> Self {
        Self { counter: boundary.checked_sub(1), ..self }
    }

    /// The same device behind a bus that shows it memory through these windows and nothing else. It
    /// counts on the bus, not in the memory behind.
    #[must_use]
    pub fn through(self, windows: Vec<BusRange>) -> Self {
        Self { windows, ..self }
    }

    /// The same device behind a protection unit that lets it have this memory and no other: what
    /// makes a restricted pool restricted.
    #[must_use]
    pub fn confined_to(self, only: Vec<PhysRange>) -> Self {
        Self { only, ..self }
    }

    /// The same device behind an IOMMU, which knows it by this number: its addresses are those of
    /// the domain, and what no entry allows faults there.
    #[must_use]
    pub fn behind(self, iommu: &SimIommu, source: u32) -> Self {
        Self { iommu: Some((iommu.clone(), source)), ..self }
    }

    /// Its trust.
    pub fn trust(&self) -> Trust {
        self.trust
    }

    /// Reads. What does not come reads as ones.
    pub fn read(&self, addr: u64, into: &mut [u8]) -> Outcome {
        let mut live = self.machine.live();
        let (mut worst, mut moved) = (Outcome::Clear, 0);
        while let Some(rest) = into.get_mut(moved..).filter(|rest| !rest.is_empty()) {
            let (outcome, len) = match self.piece(addr, moved, rest.len(), false) {
                Some(Piece { phys, sight, len }) => match rest.get_mut(..len) {
                    Some(part) => live.ram.read((sight, self.path), phys, part),
                    None => (Outcome::Fault, 0),
                },
                None => (Outcome::Fault, 0),
            };
            (worst, moved) = (worst.max(outcome), moved + len);
            if outcome == Outcome::Fault {
                break;
            }
        }
        if let Some(rest) = into.get_mut(moved..) {
            rest.fill(0xff);
        }
        let outcome = worst;
        let bytes = into.get(..moved).unwrap_or_default().to_vec();
        live.accesses.push(self.access(addr, into.len(), false, outcome, bytes));
        live.look(Moment::Access { addr });
        outcome
    }

    /// Writes.
    pub fn write(&self, addr: u64, from: &[u8]) -> Outcome {
        let mut live = self.machine.live();
        let (mut worst, mut moved) = (Outcome::Clear, 0);
        while let Some(rest) = from.get(moved..).filter(|rest| !rest.is_empty()) {
            let (outcome, len) = match self.piece(addr, moved, rest.len(), true) {
                Some(Piece { phys, sight, len }) => match rest.get(..len) {
                    Some(part) => live.ram.write((sight, self.path), phys, part),
                    None => (Outcome::Fault, 0),
                },
                None => (Outcome::Fault, 0),
            };
            (worst, moved) = (worst.max(outcome), moved + len);
            if outcome == Outcome::Fault {
                break;
            }
        }
        let outcome = worst;
        let bytes = from.get(..moved).unwrap_or_default().to_vec();
        live.accesses.push(self.access(addr, from.len(), true, outcome, bytes));
        live.look(Moment::Access { addr });
        outcome
    }

    /// Reads `len` bytes, where all of them come and are what the guest means.
    pub fn fetch(&self, addr: u64, len: usize) -> Result<Vec<u8>, Outcome> {
        let mut bytes = vec![0; len];
        match self.read(addr, &mut bytes) {
            Outcome::Clear => Ok(bytes),
            other => Err(other),
        }
    }

    /// Where the device stands after `moved` bytes from `first` on: an address, how far after it,
    /// and how much of the rest it gets to before its counter starts again.
    fn counted(&self, first: u64, moved: u64, rest: usize) -> (u64, u64, usize) {
        let Some(counter) = self.counter else { return (first, moved, rest) };
        let low = first.wrapping_add(moved) & counter;
        let until = (counter - low).saturating_add(1);
        (first & !counter | low, 0, rest.min(size(until)))
    }

    /// The memory that shows at a bus address, and how many of the next bytes the same window shows.
    fn shown(&self, bus: u64, rest: usize) -> Option<(u64, usize)> {
        if self.windows.is_empty() {
            return Some((bus, rest));
        }
        self.windows.iter().find_map(|window| {
            let into = bus.checked_sub(window.bus())?;
            let left = window.cpu().len().checked_sub(into).filter(|left| *left > 0)?;
            let phys = window.cpu().base().checked_add(into)?;
            Some((phys.raw(), rest.min(size(left))))
        })
    }

    /// The memory that the device gets to with the next bytes of an access; `None` where it faults
    /// on the way there.
    fn piece(&self, addr: u64, moved: usize, rest: usize, write: bool) -> Option<Piece> {
        let piece = self.meant(addr, moved, rest, write)?;
        let run = PhysRange::new(PhysAddr::new(piece.phys), wide(piece.len))?;
        let let_through = self.only.is_empty() || self.only.iter().any(|only| only.contains(run));
        let_through.then_some(piece)
    }

    /// The memory that it means by them.
    fn meant(&self, addr: u64, moved: usize, rest: usize, write: bool) -> Option<Piece> {
        let hardware = self.machine.hardware();
        let (first, moved, rest) = self.counted(addr & self.mask, wide(moved), rest);
        let Some((iommu, source)) = &self.iommu else {
            // The bus decodes the first address; the memory controller counts on.
            let (bus, sight) = hardware.decode(self.trust, first)?;
            let (phys, len) = self.shown(bus.checked_add(moved)?, rest)?;
            return Some(Piece { phys, sight, len });
        };
        let at = first.checked_add(moved)?;
        let (phys, state) = iommu.translate(*source, at, write)?;
        let in_page = iommu.page_size() - (at & (iommu.page_size() - 1));
        let sight = hardware.behind(self.trust, state)?;
        Some(Piece { phys, sight, len: rest.min(size(in_page)) })
    }

    fn access(
        &self,
        addr: u64,
        len: usize,
        write: bool,
        outcome: Outcome,
        bytes: Vec<u8>,
    ) -> Access {
        Access { device: self.name.clone(), addr, len, write, outcome, bytes }
    }
}
