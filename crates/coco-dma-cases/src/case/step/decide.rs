//! Reading a step that asks `plan` and does nothing.

use coco_dma::attrs::Attrs;
use coco_dma::regime::Regime;
use coco_dma::state::{Memory, State};

use super::parse::Around;
use crate::case::operation::Operation;
use crate::case::ops::Op;
use crate::case::things::MemoryState;
use crate::read::{Wrong, unknown};

impl Around<'_, '_> {
    pub(super) fn decide(&self) -> Result<Op, Wrong> {
        let reader = self.reader;
        let (device, attrs, direction) = (self.device("device")?, self.attrs()?, self.direction()?);
        let (context, align) = (self.context()?, reader.size("align")?.unwrap_or(1));
        let word = reader.text("operation")?.unwrap_or("map");
        let operation = match word {
            "map" => Operation::Map { direction, attrs, align },
            "attach" => Operation::Attach { direction, attrs },
            "alloc" => {
                let pages = reader.flag("pages")?.unwrap_or(self.machine.pages);
                Operation::Alloc { kind: self.kind()?, context, attrs, align, pages }
            }
            "free" => {
                let converted = reader.flag("converted")?.unwrap_or(false);
                Operation::Free { context, converted }
            }
            _ => {
                let known = ["map", "alloc", "attach", "free"];
                let text = unknown("operation", word, known.into_iter());
                return Err(reader.place_of("operation").wrong(text));
            }
        };
        if reader.node("memory").is_some() {
            let index = self.memory()?;
            let Some(memory) = self.names.memories.get(index) else {
                return Err(reader.place().wrong("no such memory"));
            };
            let known = known(&self.machine.regime, memory.state);
            let at = memory.at;
            return Ok(Op::Decide { device, operation, at, size: memory.size, memory: known });
        }
        let size = match operation {
            Operation::Free { .. } => reader.size("size")?.unwrap_or(0),
            _ => reader.need("size", reader.size("size")?)?,
        };
        let mmio = attrs.contains(Attrs::MMIO);
        let memory = match reader.word("state", &MEMORY)? {
            Some(memory) => memory,
            None if mmio => Memory::Mmio,
            None => known(&self.machine.regime, MemoryState::AsItComes),
        };
        Ok(Op::Decide { device, operation, at: reader.size("at")?, size, memory })
    }
}

/// What `decide` takes for the state of memory.
const MEMORY: [(&str, Memory); 11] = [
    ("private", Memory::Known(State::PRIVATE)),
    ("shared", Memory::Known(State::SHARED)),
    ("encrypted", Memory::Known(State::ENCRYPTED)),
    ("plain", Memory::Known(State::PLAIN)),
    ("untracked", Memory::Untracked),
    ("mixed", Memory::Mixed),
    ("mmio", Memory::Mmio),
    ("peer", Memory::Peer),
    ("unaccepted", Memory::Unaccepted),
    ("quarantined", Memory::Quarantined),
    ("converting", Memory::Converting),
];

/// What is known of memory in this state.
fn known(regime: &Regime, state: MemoryState) -> Memory {
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
