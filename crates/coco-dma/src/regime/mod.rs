//! The rules of one machine, as data: which bits an address carries in which state, where memory
//! ends, what a conversion does. There are two codecs and never one: the CPU form is what a
//! page-table entry carries, the DMA form is what a device is given.
//!
//! The eleven platforms and the numbers of each stand in `catalogue.rs`; everything else works on
//! these types and asks for no platform.

mod catalogue;
mod codec;

pub use catalogue::Parameters;
pub use catalogue::PlatformName;
pub use catalogue::WrongParameter;
pub use codec::DecodedCpu;
pub use codec::DecodedDma;

use crate::addr::AddressLimit;

/// The rules of this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Regime {
    /// Memory is memory: one state, one form.
    Open,
    /// An AMD host with SME: a bit of the address says whether memory goes through the cipher.
    Host(HostRules),
    /// A confidential guest.
    Guest(GuestRules),
}

/// An SME host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostRules {
    /// The C-bit's number (CPUID 0x8000001f EBX bits 5:0).
    pub c_bit: u32,
}

impl HostRules {
    /// The C-bit as a number to add to an address below it.
    #[inline]
    pub const fn mark(self) -> u64 {
        1 << self.c_bit
    }
}

/// A confidential guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuestRules {
    /// What a page-table entry carries.
    pub cpu: CpuForms,
    /// What a device is given.
    pub dma: DmaForms,
    /// The last address that is memory: no mark of any form lies at or below it.
    pub memory: AddressLimit,
    /// The smallest range that converts, in bytes: the larger of the guest's and the
    /// hypervisor's page. A power of two.
    pub granule: u64,
    /// What sharing does to the bytes.
    pub on_share: Contents,
    /// What reclaiming does to the bytes.
    pub on_reclaim: Contents,
}

/// The mark that each state adds to an address in a page-table entry; 0 where there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuForms {
    /// Added for private memory.
    pub private: u64,
    /// Added for shared memory.
    pub shared: u64,
}

/// What a device is given for memory of a guest, without an IOMMU that translates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DmaForms {
    /// An untrusted device, shared memory.
    pub untrusted_shared: Form,
    /// An accepted device, private memory. `Unreachable` where no T=1 device exists.
    pub accepted_private: Form,
    /// An accepted device, shared memory.
    pub accepted_shared: Form,
}

/// One entry of the form table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// The bus address with this mark added. The mark lies above all memory, so that adding it
    /// and setting its bit are the same.
    Plus(u64),
    /// No address names such memory for such a device.
    Unreachable,
}

/// What a conversion leaves of the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contents {
    /// They stay, readable in the new state: wipe before sharing.
    Kept,
    /// They are zero.
    Zeroed,
    /// They are garbage, ciphertext or whatever the host puts there.
    Undefined,
}

impl Regime {
    /// Whether this is a confidential guest.
    #[inline]
    pub const fn is_guest(&self) -> bool {
        matches!(self, Self::Guest(_))
    }

    /// Whether a device can be accepted on this machine at all.
    #[inline]
    pub const fn has_accepted_devices(&self) -> bool {
        matches!(
            self,
            Self::Guest(GuestRules { dma: DmaForms { accepted_private: Form::Plus(_), .. }, .. })
        )
    }

    /// The last address that is memory or registers of this machine.
    #[inline]
    pub const fn memory_limit(&self) -> AddressLimit {
        match self {
            Self::Open => AddressLimit::NONE,
            Self::Host(host) => AddressLimit::last(host.mark() - 1),
            Self::Guest(guest) => guest.memory,
        }
    }

    /// The conversion granule in bytes; 4096 where nothing converts.
    #[inline]
    pub const fn granule(&self) -> u64 {
        match self {
            Self::Guest(guest) => guest.granule,
            _ => catalogue::PAGE,
        }
    }
}
