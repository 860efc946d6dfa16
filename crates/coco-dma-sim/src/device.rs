//! Devices: they do DMA to the number that they are given, and write down what came of it.

use coco_dma::state::Trust;

use crate::eye::Moment;
use crate::machine::Machine;
use crate::ram::Outcome;

/// A device on the bus of a machine. It takes any number for an address: what the bus and the
/// memory controller make of it stands in the machine's own table, not in the layer's codec.
#[derive(Clone, Debug)]
pub struct SimDevice {
    machine: Machine,
    name: String,
    trust: Trust,
    mask: u64,
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

impl SimDevice {
    /// A device of 64 address bits. The machine takes the word of the test for its trust; where no
    /// device can be accepted, every access of an accepted one faults.
    pub fn new(machine: &Machine, name: &str, trust: Trust) -> Self {
        Self { machine: machine.clone(), name: name.to_owned(), trust, mask: u64::MAX }
    }

    /// The same device with fewer address lines: what is above them is lost, as it is in
    /// hardware. 64 or more are all.
    #[must_use]
    pub fn address_bits(self, bits: u32) -> Self {
        let mask = 1u64.checked_shl(bits).map_or(u64::MAX, |past| past - 1);
        Self { mask, ..self }
    }

    /// Its trust.
    pub fn trust(&self) -> Trust {
        self.trust
    }

    /// Reads. What does not come reads as ones.
    pub fn read(&self, addr: u64, into: &mut [u8]) -> Outcome {
        let mut live = self.machine.live();
        let (outcome, moved) = match self.machine.hardware().decode(self.trust, addr & self.mask) {
            Some((phys, sight)) => live.ram.read(sight, phys, into),
            None => {
                into.fill(0xff);
                (Outcome::Fault, 0)
            }
        };
        let bytes = into.get(..moved).unwrap_or_default().to_vec();
        live.accesses.push(self.access(addr, into.len(), false, outcome, bytes));
        live.look(Moment::Access { addr });
        outcome
    }

    /// Writes.
    pub fn write(&self, addr: u64, from: &[u8]) -> Outcome {
        let mut live = self.machine.live();
        let (outcome, moved) = match self.machine.hardware().decode(self.trust, addr & self.mask) {
            Some((phys, sight)) => live.ram.write(sight, phys, from),
            None => (Outcome::Fault, 0),
        };
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
