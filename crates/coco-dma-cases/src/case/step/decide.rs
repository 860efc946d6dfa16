//! Reading a step that asks `plan` and does nothing.

use coco_dma::attrs::Attrs;
use coco_dma::regime::Regime;
use coco_dma::state::{Memory, State};

use super::parse::Around;
use crate::case::operation::{Alive, AllocOf, MapOf, Operation, Question};
use crate::case::ops::Op;
use crate::case::things::MemoryState;
use crate::read::{Wrong, lookup, unknown};

/// The operations that can be asked about.
const OPERATIONS: [&str; 7] = ["map", "unmap", "sync", "alloc", "free", "mmap", "attach"];

/// Where memory lies, how long it is, and what is known of it.
type Asked = (Option<u64>, Option<u64>, Option<Memory>);

impl Around<'_, '_> {
    pub(super) fn decide(&self) -> Result<Op, Wrong> {
        let reader = self.reader;
        let (device, attrs, direction) = (self.device("device")?, self.attrs()?, self.direction()?);
        let (context, align) = (self.context()?, reader.size("align")?.unwrap_or(1));
        let pages = reader.flag("pages")?.unwrap_or(self.machine.pages);
        let alive = match reader.flag("revoked")? {
            Some(true) => Alive::Revoked,
            _ => Alive::Yes,
        };
        let converted = reader.flag("converted")?;
        let (offset, length) = (reader.size("offset")?.unwrap_or(0), reader.size("length")?);
        let map = MapOf { direction, attrs, align };
        let alloc = AllocOf { kind: self.kind()?, context, attrs, align, pages };
        let (at, size, memory) = self.asked(attrs)?;
        let word = reader.text("operation")?.unwrap_or("map");
        let operation = match word {
            "map" => Operation::Map(map),
            "unmap" => Operation::Unmap(map, alive),
            "sync" => Operation::Sync(map, alive),
            "attach" => Operation::Attach { direction, attrs },
            "alloc" => Operation::Alloc(alloc),
            "free" if size.is_some() && converted.is_none() => Operation::FreeOf(alloc),
            "free" => Operation::Free { context, converted: converted.unwrap_or(false) },
            // An allocation is in the state that it was brought into, and no case has to say it.
            "mmap" if memory.is_none() => Operation::MmapOf { alloc, offset, length },
            "mmap" => Operation::View(attrs),
            _ => {
                let text = unknown("operation", word, OPERATIONS.into_iter());
                return Err(reader.place_of("operation").wrong(text));
            }
        };
        let size = match operation {
            Operation::Free { .. } => size.unwrap_or(0),
            _ => reader.need("size", size)?,
        };
        let comes = known(&self.machine.regime, MemoryState::AsItComes);
        let memory = memory.unwrap_or(comes);
        Ok(Op::Decide(Question { device, operation, at, size, memory }))
    }

    /// What the step says of the memory.
    fn asked(&self, attrs: Attrs) -> Result<Asked, Wrong> {
        let reader = self.reader;
        if reader.node("memory").is_some() {
            let index = self.memory()?;
            let Some(memory) = self.names.memories.get(index) else {
                return Err(reader.place().wrong("no such memory"));
            };
            let known = known(&self.machine.regime, memory.state);
            return Ok((memory.at, Some(memory.size), Some(known)));
        }
        let (at, size) = (reader.size("at")?, reader.size("size")?);
        let word = match reader.text("state")? {
            Some(word) => word,
            None => return Ok((at, size, attrs.contains(Attrs::MMIO).then_some(Memory::Mmio))),
        };
        let wrong = |text| reader.place_of("state").wrong(text);
        let what = format!("state of memory on '{}'", self.machine.platform.name());
        let memory = match (&self.machine.regime, lookup(&what, word, &MEMORY).map_err(wrong)?) {
            (_, None) if at.is_some() => {
                return Err(wrong(format!("memory that is {word} lies nowhere: leave 'at' out")));
            }
            (_, None) => Memory::Untracked,
            (_, Some(memory @ (Memory::Peer | Memory::Mmio))) => memory,
            // Memory has one state there, whatever is said.
            (Regime::Open, Some(_)) => Memory::Untracked,
            (regime, memory) if !exists(regime, memory) => {
                let here = MEMORY.iter().filter(|(_, memory)| exists(regime, *memory));
                let here = here.map(|(word, _)| *word);
                return Err(wrong(unknown(&what, word, here)));
            }
            (_, Some(memory)) => memory,
        };
        Ok((at, size, Some(memory)))
    }
}

/// Whether memory can be so on this machine.
fn exists(regime: &Regime, memory: Option<Memory>) -> bool {
    match memory {
        Some(Memory::Known(state)) => regime.states().contains(&state),
        Some(Memory::Unaccepted) => regime.is_guest(),
        _ => true,
    }
}

/// What `decide` takes for the state of memory; `None` for what lies in no single run.
const MEMORY: [(&str, Option<Memory>); 13] = [
    ("private", Some(Memory::Known(State::PRIVATE))),
    ("shared", Some(Memory::Known(State::SHARED))),
    ("encrypted", Some(Memory::Known(State::ENCRYPTED))),
    ("plain", Some(Memory::Known(State::PLAIN))),
    ("ordinary", Some(Memory::Known(State::Ordinary))),
    ("untracked", Some(Memory::Untracked)),
    ("mixed", Some(Memory::Mixed)),
    ("mmio", Some(Memory::Mmio)),
    ("peer", Some(Memory::Peer)),
    ("unaccepted", Some(Memory::Unaccepted)),
    ("quarantined", Some(Memory::Quarantined)),
    ("converting", Some(Memory::Converting)),
    ("unlocated", None),
];

/// What is known of memory in this state.
pub(crate) fn known(regime: &Regime, state: MemoryState) -> Memory {
    match (regime, state) {
        (_, MemoryState::Mmio) => Memory::Mmio,
        (_, MemoryState::Peer) => Memory::Peer,
        (Regime::Open, _) => Memory::Untracked,
        (_, MemoryState::Untracked | MemoryState::Unlocated) => Memory::Untracked,
        (_, MemoryState::Mixed) => Memory::Mixed,
        (Regime::Host(_), MemoryState::Plain) => Memory::Known(State::PLAIN),
        (Regime::Host(_), _) => Memory::Known(State::ENCRYPTED),
        (_, MemoryState::Shared | MemoryState::ForeignShared) => Memory::Known(State::SHARED),
        (_, MemoryState::Unaccepted) => Memory::Unaccepted,
        _ => Memory::Known(State::PRIVATE),
    }
}
