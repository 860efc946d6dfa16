//! What converts on a machine, and what a conversion leaves of the bytes.

use crate::regime::Contents;
use crate::regime::Regime;
use crate::state::State;

/// Whether who may see memory changes on this machine: what `share` and `reclaim` do. (On an SME
/// host the cipher changes, for pages of our own alone.)
pub(crate) const fn converts_visibility(regime: &Regime) -> bool {
    regime.is_guest()
}

/// The state that memory of this machine is brought into for devices that do not reach it as it is;
/// `None` where nothing converts.
pub(crate) const fn lent(regime: &Regime) -> Option<State> {
    match regime {
        Regime::Open => None,
        Regime::Host(_) => Some(State::PLAIN),
        Regime::Guest(_) => Some(State::SHARED),
    }
}

/// The state from which memory that is `lent` now came, and to which it goes back. It follows from
/// what the record says, and from nothing else.
pub(crate) const fn restored(lent: State) -> State {
    match lent {
        State::Ordinary => State::Ordinary,
        State::Host(_) => State::ENCRYPTED,
        State::Guest(_) => State::PRIVATE,
    }
}

/// Whether a conversion to `to` leaves the old bytes readable for whoever may look at the memory
/// then. Where nobody knows, it may. What was stored through the cipher of an SME host is ciphertext
/// for whoever goes past it.
pub(crate) const fn keeps_contents(regime: &Regime, to: State) -> bool {
    match (regime, to) {
        (Regime::Guest(guest), State::SHARED) => !matches!(guest.on_share, Contents::Zeroed),
        _ => false,
    }
}
