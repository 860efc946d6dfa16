//! How memory is when a case begins: in the books, in truth, and in its bytes.

use coco_dma::Word;
use coco_dma::addr::PhysRange;
use coco_dma::ledger::{Initial, Ledger, LedgerError, Tracked};
use coco_dma::regime::Regime;
use coco_dma::state::{Cipher, PoolLabel, PoolOrigin, State, Visibility};
use coco_dma_sim::{GranuleState, Machine, marker};

use super::memory::Buffer;
use crate::case::{Case, MemorySpec, MemoryState, Truth, whole};

/// A run of RAM, and what the books have of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    run: PhysRange,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Own(Initial),
    Foreign(Visibility),
    /// Not in the books.
    Hole,
}

impl Part {
    /// Words of storage for it.
    pub(super) fn words(self, case: &Case) -> usize {
        match self.kind {
            Kind::Own(_) => Tracked::words(self.run.len(), case.machine.regime.granule()),
            _ => 0,
        }
    }

    pub(super) fn tracked<'m>(
        self,
        case: &Case,
        words: &'m [Word],
    ) -> Result<Tracked<'m>, LedgerError> {
        let granule = case.machine.regime.granule();
        match self.kind {
            Kind::Foreign(visibility) => Ok(Tracked::foreign(self.run, visibility)),
            Kind::Own(initial) => Tracked::new(self.run, granule, initial, words),
            Kind::Hole => Tracked::new(self.run, granule, Initial::Private, words),
        }
    }
}

/// The runs of RAM that the books have, in ascending order.
pub(super) fn parts(case: &Case) -> Vec<Part> {
    let spec = &case.machine;
    if !spec.ledger || spec.plan_only {
        return Vec::new();
    }
    // An open machine has one state, and nobody keeps it.
    let initial = match spec.regime {
        Regime::Open => return Vec::new(),
        Regime::Host(_) => Initial::Encrypted,
        Regime::Guest(_) => Initial::Private,
    };
    let mut special: Vec<Part> = Vec::new();
    // Nothing of a host converts, so that its books may have its pools.
    let guest = spec.regime.is_guest();
    for pool in case.pools.iter().filter(|pool| guest && pool.origin == PoolOrigin::Adopted) {
        let kind = match pool.label {
            PoolLabel::GuestShared => Kind::Foreign(Visibility::Shared),
            PoolLabel::GuestPrivate => Kind::Foreign(Visibility::Private),
            _ => Kind::Hole,
        };
        special.push(Part { run: pool.range, kind });
    }
    for (memory, range) in case.memories.iter().zip(&case.layout.memories) {
        let kind = match memory.state {
            MemoryState::ForeignPrivate => Kind::Foreign(Visibility::Private),
            MemoryState::ForeignShared => Kind::Foreign(Visibility::Shared),
            MemoryState::Untracked | MemoryState::Mmio | MemoryState::Peer => Kind::Hole,
            MemoryState::Unaccepted => Kind::Own(Initial::Unaccepted),
            _ => continue,
        };
        let Some(run) = range.and_then(|range| whole(range, spec.regime.granule())) else {
            continue;
        };
        // Memories may share a granule.
        if !special.iter().any(|other| other.run.overlaps(run)) {
            special.push(Part { run, kind });
        }
    }
    special.sort_by_key(|part| part.run.base());
    let mut parts = Vec::new();
    for ram in &spec.ram {
        let initial = if spec.late.contains(ram) { Initial::Absent } else { initial };
        let own = |run: PhysRange| Part { run, kind: Kind::Own(initial) };
        let mut at = ram.base();
        // What lies across the end of this RAM is in two parts.
        let here = special.iter().filter_map(|part| {
            let (base, last) = (part.run.base().max(ram.base()), part.run.last().min(ram.last()));
            let len = last.offset_from(base)?.checked_add(1)?;
            Some(Part { run: PhysRange::new(base, len)?, ..*part })
        });
        for part in here {
            let before = part.run.base().offset_from(at).and_then(|len| PhysRange::new(at, len));
            parts.extend(before.map(own));
            parts.push(part);
            at = part.run.last().checked_add(1).unwrap_or(part.run.last());
        }
        let left = ram.last().offset_from(at).and_then(|len| PhysRange::new(at, len + 1));
        parts.extend(left.map(own));
    }
    parts.retain(|part| part.kind != Kind::Hole);
    parts
}

/// Brings every memory into its state, in the books and in truth, and fills it.
pub(super) fn set_up(
    case: &Case,
    machine: &Machine,
    ledger: &Ledger<'_>,
    mut buffers: Vec<Buffer>,
) -> Vec<Buffer> {
    let adopted = case.pools.iter().filter(|pool| pool.origin == PoolOrigin::Adopted);
    for pool in adopted.filter(|pool| pool.label == PoolLabel::HostPlain) {
        // What a guest calls so is not in its books.
        let _ = ledger.declare_cipher(pool.range, Cipher::Plain);
    }
    for (seed, (memory, buffer)) in (1..).zip(case.memories.iter().zip(&mut buffers)) {
        if let Some(run) = buffer.range.and_then(|run| whole(run, case.machine.regime.granule())) {
            bring(case, machine, ledger, memory, run);
        }
        if memory.secret {
            buffer.fill = marker(seed).to_vec();
        } else if let Some(fill) = &memory.fill {
            buffer.fill = fill.make(buffer.len, &|_| vec![0]);
        }
        if !buffer.fill.is_empty() {
            let bytes: Vec<u8> = buffer.fill.iter().copied().cycle().take(buffer.len).collect();
            buffer.write(0, &bytes);
        }
        if memory.secret {
            machine.watch_for(&marker(seed));
        }
    }
    for run in &case.machine.late {
        machine.set_up(*run, GranuleState::Unaccepted);
    }
    buffers
}

fn bring(case: &Case, machine: &Machine, ledger: &Ledger<'_>, memory: &MemorySpec, run: PhysRange) {
    let granule = case.machine.regime.granule();
    let last = run.slice(run.len() - granule, granule).unwrap_or(run);
    let other = match memory.state {
        MemoryState::Shared | MemoryState::Plain => Some(run),
        MemoryState::Mixed => Some(last),
        _ => None,
    };
    if let Some(run) = other {
        // Without books there is nothing to declare.
        let _ = match case.machine.regime {
            Regime::Host(_) => ledger.declare_cipher(run, Cipher::Plain),
            _ => ledger.declare(run, Visibility::Shared),
        };
    }
    let second = case.machine.regime.states().last().copied().unwrap_or(State::Ordinary);
    let (run, state) = match memory.truth(&case.machine.regime) {
        Truth::In(state) => (run, GranuleState::In(state)),
        Truth::Unaccepted => (run, GranuleState::Unaccepted),
        Truth::Lost => (run, GranuleState::Lost),
        Truth::Mixed => (last, GranuleState::In(second)),
    };
    machine.set_up(run, state);
}
