//! The two codecs. Encoding is a pure addition of the mark that the state asks for; decoding
//! takes it off again and says what state the form tells, where it tells one.

use super::Form;
use super::Regime;
use crate::addr::DmaAddr;
use crate::addr::PhysAddr;
use crate::state::Cipher;
use crate::state::State;
use crate::state::Trust;
use crate::state::Visibility;

/// What a DMA form says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodedDma {
    /// The address on the bus, before the marks and after the bus ranges.
    pub bus: u64,
    /// The state, where the form tells it.
    pub state: Option<State>,
}

/// What a CPU form says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodedCpu {
    /// The physical address.
    pub phys: PhysAddr,
    /// The state, where the form tells it.
    pub state: Option<State>,
}

impl Regime {
    /// The mark that a device's address carries for memory in `state`; `None` where no address
    /// reaches it, or where the state does not exist on this machine.
    #[inline]
    pub const fn dma_mark(&self, trust: Trust, state: State) -> Option<u64> {
        match (self, state) {
            (Self::Open, State::Ordinary) => Some(0),
            // sabotage: sme-c-bit-dropped, sme-plain-c-bit
            (Self::Host(host), State::Host(Cipher::Encrypted)) => Some(host.mark()),
            (Self::Host(_), State::Host(Cipher::Plain)) => Some(0),
            (Self::Guest(guest), State::Guest(visibility)) => {
                let form = match (trust, visibility) {
                    // sabotage: untrusted-private-in-place
                    (Trust::Untrusted, Visibility::Private) => Form::Unreachable,
                    (Trust::Untrusted, Visibility::Shared) => guest.dma.untrusted_shared,
                    (Trust::Accepted, Visibility::Private) => guest.dma.accepted_private,
                    (Trust::Accepted, Visibility::Shared) => guest.dma.accepted_shared,
                };
                match form {
                    Form::Plus(mark) => Some(mark),
                    Form::Unreachable => None,
                }
            }
            _ => None,
        }
    }

    /// The DMA form of a bus address (memory after the bus ranges) that lies in `state`. `None`
    /// where no address reaches it, or where the bus address itself reaches into the marks.
    #[inline]
    pub const fn dma_form(&self, trust: Trust, state: State, bus: u64) -> Option<DmaAddr> {
        if bus > self.memory_limit().raw() {
            return None;
        }
        match self.dma_mark(trust, state) {
            Some(mark) => match bus.checked_add(mark) {
                Some(raw) => Some(DmaAddr::new(raw)),
                None => None,
            },
            None => None,
        }
    }

    /// Takes a DMA form apart. `None` for a number that no device of this trust was ever given.
    pub fn decode_dma(&self, trust: Trust, addr: DmaAddr) -> Option<DecodedDma> {
        decode(addr.raw(), self.memory_limit().raw(), self.states(), |state| {
            self.dma_mark(trust, state)
        })
        .map(|(bus, state)| DecodedDma { bus, state })
    }

    /// The mark that a page-table entry carries for memory in `state`; `None` where the state
    /// does not exist on this machine.
    #[inline]
    pub const fn cpu_mark(&self, state: State) -> Option<u64> {
        match (self, state) {
            (Self::Open, State::Ordinary) => Some(0),
            (Self::Host(host), State::Host(Cipher::Encrypted)) => Some(host.mark()),
            (Self::Host(_), State::Host(Cipher::Plain)) => Some(0),
            (Self::Guest(guest), State::Guest(Visibility::Private)) => Some(guest.cpu.private),
            (Self::Guest(guest), State::Guest(Visibility::Shared)) => Some(guest.cpu.shared),
            _ => None,
        }
    }

    /// The CPU form: the address bits of a page-table entry for `phys` in `state`. `None` where
    /// the state does not exist here or `phys` is no memory of this machine.
    #[inline]
    pub const fn cpu_form(&self, phys: PhysAddr, state: State) -> Option<u64> {
        if phys.raw() > self.memory_limit().raw() {
            return None;
        }
        match self.cpu_mark(state) {
            Some(mark) => phys.raw().checked_add(mark),
            None => None,
        }
    }

    /// Takes a CPU form apart. `None` for a number that is the form of nothing.
    pub fn decode_cpu(&self, form: u64) -> Option<DecodedCpu> {
        decode(form, self.memory_limit().raw(), self.states(), |state| self.cpu_mark(state))
            .map(|(raw, state)| DecodedCpu { phys: PhysAddr::new(raw), state })
    }

    /// The states that memory has on this machine.
    pub const fn states(&self) -> &'static [State] {
        match self {
            Self::Open => &[State::Ordinary],
            Self::Host(_) => &[State::ENCRYPTED, State::PLAIN],
            Self::Guest(_) => &[State::PRIVATE, State::SHARED],
        }
    }
}

/// Finds the states whose mark leaves memory behind. Two states with the same mark give the same
/// address, so that the form tells none of them.
fn decode(
    raw: u64,
    limit: u64,
    states: &[State],
    mark: impl Fn(State) -> Option<u64>,
) -> Option<(u64, Option<State>)> {
    let mut found: Option<(u64, Option<State>)> = None;
    for &state in states {
        let Some(bare) = mark(state).and_then(|mark| raw.checked_sub(mark)) else { continue };
        if bare > limit {
            continue;
        }
        found = match found {
            None => Some((bare, Some(state))),
            Some((bare, _)) => Some((bare, None)),
        };
    }
    found
}
