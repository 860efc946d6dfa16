//! The states that memory, pools and devices can be in. Host and guest are different types on
//! purpose: how DRAM is stored and who may see it are two questions that never share a word.

use core::fmt;

/// Who may access a piece of guest memory. Exists only in a confidential guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Visibility {
    /// This guest alone (and a device that it accepted).
    Private,
    /// The host and its devices too.
    Shared,
}

/// How DRAM is stored under AMD SME on the host. An addressing matter, no access control.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cipher {
    /// Through the memory controller's cipher (the C-bit is set in the address).
    Encrypted,
    /// As it is.
    Plain,
}

/// The state of one piece of memory, in the terms of the machine that it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// Memory of an open machine: there is only one state.
    Ordinary,
    /// Memory of an SME host.
    Host(Cipher),
    /// Memory of a confidential guest.
    Guest(Visibility),
}

impl State {
    /// Guest memory that only the guest may access.
    pub const PRIVATE: Self = Self::Guest(Visibility::Private);
    /// Guest memory that the host may access.
    pub const SHARED: Self = Self::Guest(Visibility::Shared);
    /// Host memory behind the cipher.
    pub const ENCRYPTED: Self = Self::Host(Cipher::Encrypted);
    /// Host memory stored as it is.
    pub const PLAIN: Self = Self::Host(Cipher::Plain);
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ordinary => "ordinary",
            Self::Host(Cipher::Encrypted) => "encrypted",
            Self::Host(Cipher::Plain) => "plain",
            Self::Guest(Visibility::Private) => "private",
            Self::Guest(Visibility::Shared) => "shared",
        })
    }
}

/// What is known about the memory of one request before it is decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Memory {
    /// Every granule is in this state: the ledger or a pool's label says so.
    Known(State),
    /// Nobody keeps the state of this memory: decided by the attributes, as Linux does.
    Untracked,
    /// The granules of the run are not all in one state.
    Mixed,
    /// A conversion of some of it is under way.
    Converting,
    /// Some of it was lost to a failed conversion: its state is in doubt.
    Quarantined,
    /// Some of it was never accepted by the guest, and is not private yet.
    Unaccepted,
    /// A device's own registers or memory, mapped by its owner.
    Mmio,
    /// Another device's registers or memory: a device would reach past memory, to its peer.
    Peer,
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Known(state) => state.fmt(f),
            Self::Untracked => f.write_str("untracked"),
            Self::Mixed => f.write_str("mixed"),
            Self::Converting => f.write_str("converting"),
            Self::Quarantined => f.write_str("quarantined"),
            Self::Unaccepted => f.write_str("unaccepted"),
            Self::Mmio => f.write_str("mmio"),
            Self::Peer => f.write_str("peer"),
        }
    }
}

/// Whether a device is part of what the guest trusts. Fixed before its driver binds: the TSM
/// decides it, never a driver.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Trust {
    /// T=0: the device belongs to the host and reaches only what is shared.
    #[default]
    Untrusted,
    /// T=1 (TDISP): attested and accepted; it reaches private memory.
    Accepted,
}

impl fmt::Display for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Untrusted => "untrusted",
            Self::Accepted => "accepted",
        })
    }
}

/// What a pool's memory is. Given when the pool is registered, and outranks every attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PoolLabel {
    /// Memory as the machine has it: on an open machine, and behind the cipher on an SME host.
    Ordinary,
    /// Memory of an SME host stored without the cipher.
    HostPlain,
    /// Guest memory shared with the host.
    GuestShared,
    /// Guest memory that is private, low enough for accepted devices of short reach.
    GuestPrivate,
}

impl PoolLabel {
    /// Every label, in the order of the documents.
    pub const ALL: [Self; 4] =
        [Self::Ordinary, Self::HostPlain, Self::GuestShared, Self::GuestPrivate];

    /// The name that commands and messages use.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ordinary => "ordinary",
            Self::HostPlain => "host-plain",
            Self::GuestShared => "guest-shared",
            Self::GuestPrivate => "guest-private",
        }
    }
}

impl fmt::Display for PoolLabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How a pool's memory came into the state of its label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PoolOrigin {
    /// It came in that state (firmware, the host's device tree) and is never converted.
    Adopted,
    /// The layer converted the whole region once, when the pool was attached.
    ConvertedAtAttach,
}

/// What a pool is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum PoolUse {
    /// Streaming maps and allocations.
    #[default]
    All,
    /// Streaming maps alone.
    Streaming,
    /// Allocations from atomic context alone: memory that is in the right state already.
    Reserve,
    /// Coherent memory alone, from any context: the reservoir. It goes before pages that would
    /// have to be converted, and an allocation that may block grows it
    /// ([`Pool::convertible`](crate::pool::Pool::convertible)) by whole regions.
    Coherent,
}

/// Which way the bytes go, seen from memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// The device reads what the driver wrote.
    ToDevice,
    /// The device writes what the driver will read.
    FromDevice,
    /// Both.
    Both,
}

impl Direction {
    /// Whether the device reads.
    #[inline]
    pub const fn to_device(self) -> bool {
        matches!(self, Self::ToDevice | Self::Both)
    }

    /// Whether the device writes.
    #[inline]
    pub const fn from_device(self) -> bool {
        matches!(self, Self::FromDevice | Self::Both)
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ToDevice => "to",
            Self::FromDevice => "from",
            Self::Both => "both",
        })
    }
}

/// Whether the caller may wait. Atomic context never converts memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Context {
    /// May sleep, take page-table locks, call the hypervisor.
    #[default]
    Blocking,
    /// Interrupts off or a lock held: only what is ready already.
    Atomic,
}

/// A memory type: how the CPU's page tables map memory, as far as DMA depends on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum CacheMode {
    /// As all memory is.
    #[default]
    WriteBack,
    /// Writes are gathered, reads bypass the caches.
    WriteCombine,
    /// Neither reads nor writes are cached.
    Uncached,
}

/// What stands between a device and memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Attachment {
    /// No IOMMU: the device's address is the DMA form of the memory's state.
    #[default]
    None,
    /// An IOMMU that passes addresses through: the same form.
    Passthrough,
    /// An IOMMU domain: the device is given an IOVA, the state goes into the entry. Where the host
    /// emulates the IOMMU it is no boundary against the host.
    Translated,
}

impl Attachment {
    /// Whether the device is given addresses of a domain.
    #[inline]
    pub const fn is_translated(self) -> bool {
        matches!(self, Self::Translated)
    }
}

#[cfg(test)]
mod tests {
    use std::string::ToString;

    use super::*;

    #[test]
    fn messages_use_the_words_of_the_documents() {
        let states =
            [State::Ordinary, State::ENCRYPTED, State::PLAIN, State::PRIVATE, State::SHARED];
        let words = ["ordinary", "encrypted", "plain", "private", "shared"];
        assert_eq!(states.map(|state| state.to_string()), words);
        assert_eq!(states.map(|state| Memory::Known(state).to_string()), words);
        assert_eq!(Memory::Converting.to_string(), "converting");
        assert_eq!(Memory::Mmio.to_string(), "mmio");
        assert_eq!(
            [Trust::Untrusted, Trust::Accepted].map(|t| t.to_string()),
            ["untrusted", "accepted"]
        );
        let labels = PoolLabel::ALL.map(|label| label.to_string());
        assert_eq!(labels, ["ordinary", "host-plain", "guest-shared", "guest-private"]);
        let directions = [Direction::ToDevice, Direction::FromDevice, Direction::Both];
        assert_eq!(directions.map(|direction| direction.to_string()), ["to", "from", "both"]);
    }
}
