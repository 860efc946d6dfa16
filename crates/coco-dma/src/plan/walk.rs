//! What becomes of memory when everything that is shared goes back: before another kernel takes
//! over (kexec), which would take shared memory for private, and before the machine sleeps.

use crate::state::Memory;
use crate::state::PoolOrigin;
use crate::state::State;

/// A piece of memory as the walk finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WalkFace {
    /// What is known about it.
    pub memory: Memory,
    /// Somebody else made it what it is, for good.
    pub foreign: bool,
    /// A device has it: by a map in place, as coherent memory, or as a pool of its own.
    pub pinned: bool,
    /// The machine's pool that it is the memory of, and how that came by it.
    pub pool: Option<PoolOrigin>,
    /// Slots of that pool are in use.
    pub used: bool,
}

/// What becomes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WalkBack {
    /// The host does not have it: nothing.
    Pass,
    /// It is taken back.
    Reclaim,
    /// The pool is closed, and its memory taken back.
    Shrink,
    /// It stays, and is told.
    Keep(KeepReason),
}

/// Why memory stays with the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KeepReason {
    /// A pool that came shared, from the firmware or the host's device tree: the next kernel is
    /// told of it as this one was.
    Adopted,
    /// Somebody else's, shared for good. Told to the next kernel likewise.
    Foreign,
    /// A pool of which slots are in use.
    InUse,
    /// A device has it.
    Pinned,
    /// Somebody is converting it.
    Converting,
    /// Nobody knows its state.
    Quarantined,
}

/// Decides about one piece. What came shared stays shared, whoever uses it; what the layer
/// shared, or was told of, goes back unless a device may still be at it.
#[must_use]
pub const fn walk_back(info: &WalkFace) -> WalkBack {
    match (info.memory, info.pool) {
        (Memory::Converting, _) => WalkBack::Keep(KeepReason::Converting),
        (Memory::Quarantined, _) => WalkBack::Keep(KeepReason::Quarantined),
        (Memory::Known(State::SHARED), Some(PoolOrigin::Adopted)) => {
            WalkBack::Keep(KeepReason::Adopted)
        }
        (Memory::Known(State::SHARED), Some(PoolOrigin::ConvertedAtAttach)) if info.used => {
            WalkBack::Keep(KeepReason::InUse)
        }
        (Memory::Known(State::SHARED), Some(PoolOrigin::ConvertedAtAttach)) => WalkBack::Shrink,
        (Memory::Known(State::SHARED), None) if info.foreign => WalkBack::Keep(KeepReason::Foreign),
        (Memory::Known(State::SHARED), None) if info.pinned => WalkBack::Keep(KeepReason::Pinned),
        (Memory::Known(State::SHARED), None) => WalkBack::Reclaim,
        _ => WalkBack::Pass,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLAGS: [bool; 2] = [false, true];

    /// Every point there is: nothing is taken from a device, a pool in use or somebody else, and
    /// nothing that is shared or in doubt is passed over in silence.
    #[test]
    fn what_the_host_has_goes_back_or_is_told() {
        let memories = [
            Memory::Known(State::PRIVATE),
            Memory::Known(State::SHARED),
            Memory::Untracked,
            Memory::Mixed,
            Memory::Converting,
            Memory::Quarantined,
            Memory::Unaccepted,
            Memory::Mmio,
        ];
        let pools = [None, Some(PoolOrigin::Adopted), Some(PoolOrigin::ConvertedAtAttach)];
        for memory in memories {
            for pool in pools {
                for flags in 0..8 {
                    let [foreign, pinned, used] = [1, 2, 4].map(|bit| FLAGS[(flags & bit).min(1)]);
                    let info = WalkFace { memory, foreign, pinned, pool, used };
                    let told = matches!(
                        memory,
                        Memory::Known(State::SHARED) | Memory::Converting | Memory::Quarantined
                    );
                    let answer = walk_back(&info);
                    assert_eq!(answer == WalkBack::Pass, !told, "{info:?}");
                    let shared = memory == Memory::Known(State::SHARED);
                    let ours = shared && pool.is_none() && !foreign && !pinned;
                    assert_eq!(answer == WalkBack::Reclaim, ours, "{info:?}");
                    let idle = pool == Some(PoolOrigin::ConvertedAtAttach) && !used;
                    assert_eq!(answer == WalkBack::Shrink, shared && idle, "{info:?}");
                }
            }
        }
    }
}
