//! What the specifications say, by heart: no codec is asked.

use coco_dma::regime::PlatformName;
use coco_dma::state::PoolLabel;
use coco_dma::state::State;
use coco_dma::state::Trust;

/// What a device is given for bus address `p` by the specifications: `None` where nothing is.
pub(crate) fn form(platform: PlatformName, trust: Trust, state: State, p: u64) -> Option<u64> {
    use PlatformName::{Cca, Hyperv, Open, Pef, Pkvm, S390, Sev, Sme, Snp, SnpVtom, Tdx};
    match (platform, trust, state) {
        (Open, _, State::Ordinary) => Some(p),
        (Sme, _, State::Host(cipher)) => Some(match State::Host(cipher) {
            State::ENCRYPTED => p | 1 << 47,
            _ => p,
        }),
        (Sev | S390 | Pef, Trust::Accepted, _) => None,
        (_, Trust::Untrusted, State::PRIVATE) => None,
        (Cca, Trust::Untrusted, State::SHARED) => Some(p | 1 << 47),
        (
            Sev | Snp | SnpVtom | Tdx | Pkvm | Hyperv | S390 | Pef,
            Trust::Untrusted,
            State::SHARED,
        ) => Some(p),
        (Snp | SnpVtom | Tdx | Cca | Pkvm | Hyperv, Trust::Accepted, State::PRIVATE) => Some(p),
        (Snp | Hyperv, Trust::Accepted, State::SHARED) => None,
        (SnpVtom, Trust::Accepted, State::SHARED) => Some(p | 1 << 40),
        (Tdx, Trust::Accepted, State::SHARED) => Some(p | 1 << 51),
        (Cca, Trust::Accepted, State::SHARED) => Some(p | 1 << 47),
        (Pkvm, Trust::Accepted, State::SHARED) => Some(p),
        _ => None,
    }
}

/// What the CPU's page-table entry carries above the address; `None` where no such state exists.
pub(crate) fn cpu_mark(platform: PlatformName, state: State) -> Option<u64> {
    use PlatformName::{Cca, Hyperv, Open, Sev, Sme, Snp, SnpVtom, Tdx};
    match (platform, state) {
        (Open, State::Ordinary) | (Sme, State::PLAIN) => Some(0),
        (Sme, State::ENCRYPTED) => Some(1 << 47),
        (Open | Sme, _) => None,
        (Sev | Snp, State::PRIVATE) | (Tdx, State::SHARED) => Some(1 << 51),
        (SnpVtom | Hyperv, State::SHARED) => Some(1 << 40),
        (Cca, State::SHARED) => Some(1 << 47),
        (_, State::PRIVATE | State::SHARED) => Some(0),
        _ => None,
    }
}

pub(crate) fn is_guest(platform: PlatformName) -> bool {
    !matches!(platform, PlatformName::Open | PlatformName::Sme)
}

pub(crate) fn accepts(platform: PlatformName) -> bool {
    form(platform, Trust::Accepted, State::PRIVATE, 0).is_some()
}

/// The state of a pool's memory.
pub(crate) fn pool_state(platform: PlatformName, label: PoolLabel) -> Option<State> {
    match (platform, label) {
        (PlatformName::Open, PoolLabel::Ordinary) => Some(State::Ordinary),
        (PlatformName::Sme, PoolLabel::Ordinary) => Some(State::ENCRYPTED),
        (PlatformName::Sme, PoolLabel::HostPlain) => Some(State::PLAIN),
        (PlatformName::Open | PlatformName::Sme, _) => None,
        (_, PoolLabel::GuestShared) => Some(State::SHARED),
        (_, PoolLabel::GuestPrivate) => Some(State::PRIVATE),
        _ => None,
    }
}

/// The last address that memory can have.
pub(crate) fn memory_last(platform: PlatformName) -> u64 {
    match platform {
        PlatformName::SnpVtom | PlatformName::Hyperv => (1 << 40) - 1,
        PlatformName::Sme | PlatformName::Cca => (1 << 47) - 1,
        PlatformName::Tdx | PlatformName::Sev | PlatformName::Snp => (1 << 51) - 1,
        _ => u64::MAX,
    }
}

/// The state that pages of our own are brought into for a device of this trust, which carries the
/// C-bit of an SME host or does not.
pub(crate) fn own_state(platform: PlatformName, trust: Trust, carries_c_bit: bool) -> State {
    match (platform, trust) {
        (PlatformName::Open, _) => State::Ordinary,
        (PlatformName::Sme, _) if carries_c_bit => State::ENCRYPTED,
        (PlatformName::Sme, _) => State::PLAIN,
        (_, Trust::Untrusted) => State::SHARED,
        (_, Trust::Accepted) => State::PRIVATE,
    }
}
