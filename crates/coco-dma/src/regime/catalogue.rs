//! The eleven platforms: the one place where a platform is named. Sources: AMD APM vol. 2 ch. 7
//! and 15 (SME, SEV, SNP, vTOM), Intel TDX module base spec and GHCI 1.5 (GPAW), Arm RMM 1.0
//! (DEN0137, unprotected IPA), Linux 7.3 (pKVM, s390, PEF, Hyper-V).

use core::fmt;

use super::Contents;
use super::CpuForms;
use super::DmaForms;
use super::Form;
use super::GuestRules;
use super::HostRules;
use super::Regime;
use crate::addr::AddressLimit;

/// The page that granules default to, in bytes.
pub(super) const PAGE: u64 = 4096;

/// A platform by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PlatformName {
    /// No confidential computing.
    Open,
    /// AMD SME on the host.
    Sme,
    /// AMD SEV or SEV-ES guest.
    Sev,
    /// AMD SEV-SNP guest with the C-bit.
    Snp,
    /// AMD SEV-SNP guest with a virtual top of memory: shared memory has an alias above it.
    SnpVtom,
    /// Intel TDX guest.
    Tdx,
    /// Arm CCA realm.
    Cca,
    /// Protected KVM guest on Arm.
    Pkvm,
    /// Hyper-V isolation guest with a shared-GPA boundary and a paravisor.
    Hyperv,
    /// s390 Protected Virtualization guest.
    S390,
    /// POWER Protected Execution Facility guest (secure VM).
    Pef,
}

/// Numbers that differ from machine to machine; `None` takes the default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Parameters {
    /// The C-bit's number, 32 to 62 (default 51, on `sme` 47).
    pub c_bit: Option<u32>,
    /// Width of the realm's IPA space in bits, 32 to 52 (default 48).
    pub ipa_bits: Option<u32>,
    /// TDX guest physical address width, 48 or 52 (default 52).
    pub gpaw: Option<u32>,
    /// The virtual top of memory or shared-GPA boundary, a power of two (default 1 << 40).
    pub vtom: Option<u64>,
    /// The conversion granule in bytes, a power of two of at least 4096 (default 4096).
    pub granule: Option<u64>,
}

/// A parameter that no machine of this platform has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WrongParameter {
    /// The C-bit lies outside 32 to 62.
    CBit(u32),
    /// The IPA space is not 32 to 52 bits wide.
    IpaBits(u32),
    /// GPAW is neither 48 nor 52.
    Gpaw(u32),
    /// The top of memory is not a power of two from 4 GiB to 2^62.
    Vtom(u64),
    /// The granule is not a power of two from 4 KiB to 1 GiB.
    Granule(u64),
}

impl fmt::Display for WrongParameter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CBit(bit) => write!(f, "a C-bit is one of 32 to 62, not {bit}"),
            Self::IpaBits(bits) => write!(f, "an IPA space has 32 to 52 bits, not {bits}"),
            Self::Gpaw(gpaw) => write!(f, "GPAW is 48 or 52, not {gpaw}"),
            Self::Vtom(top) => {
                write!(f, "a top of memory is a power of two from 4 GiB to 2^62, not {top:#x}")
            }
            Self::Granule(size) => {
                write!(f, "a granule is a power of two from 4 KiB to 1 GiB, not {size:#x}")
            }
        }
    }
}

impl core::error::Error for WrongParameter {}

impl PlatformName {
    /// All of them, in the order of the documents.
    pub const ALL: [Self; 11] = [
        Self::Open,
        Self::Sme,
        Self::Sev,
        Self::Snp,
        Self::SnpVtom,
        Self::Tdx,
        Self::Cca,
        Self::Pkvm,
        Self::Hyperv,
        Self::S390,
        Self::Pef,
    ];

    /// The name that commands and case files use.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Sme => "sme",
            Self::Sev => "sev",
            Self::Snp => "snp",
            Self::SnpVtom => "snp-vtom",
            Self::Tdx => "tdx",
            Self::Cca => "cca",
            Self::Pkvm => "pkvm",
            Self::Hyperv => "hyperv",
            Self::S390 => "s390",
            Self::Pef => "pef",
        }
    }

    /// The platform of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|platform| platform.name() == name)
    }

    /// The rules of a machine of this platform with these numbers. A number that the platform
    /// does not use is ignored.
    pub const fn regime(self, numbers: &Parameters) -> Result<Regime, WrongParameter> {
        use Contents::{Kept, Undefined, Zeroed};
        let granule = match numbers.granule {
            None => PAGE,
            Some(size) if size.is_power_of_two() && size >= PAGE && size <= 1 << 30 => size,
            Some(size) => return Err(WrongParameter::Granule(size)),
        };
        let guest = GuestRules {
            cpu: CpuForms { private: 0, shared: 0 },
            dma: DmaForms {
                untrusted_shared: Form::Plus(0),
                accepted_private: Form::Plus(0),
                accepted_shared: Form::Plus(0),
            },
            memory: AddressLimit::NONE,
            granule,
            on_share: Undefined,
            on_reclaim: Undefined,
        };
        // The forms of a platform where no accepted device exists.
        let untrusted_only = DmaForms {
            untrusted_shared: Form::Plus(0), // sabotage: untrusted-c-bit
            accepted_private: Form::Unreachable,
            accepted_shared: Form::Unreachable,
        };
        Ok(match self {
            Self::Open => Regime::Open,
            Self::Sme => match bit(numbers.c_bit, 47, 32, 62) {
                Ok(c_bit) => Regime::Host(HostRules { c_bit }),
                Err(wrong) => return Err(WrongParameter::CBit(wrong)),
            },
            // The C-bit is a bit of the page-table entry; a device is never given it.
            Self::Sev | Self::Snp => match bit(numbers.c_bit, 51, 32, 62) {
                Ok(c_bit) => Regime::Guest(GuestRules {
                    cpu: CpuForms { private: 1 << c_bit, shared: 0 },
                    dma: match self {
                        Self::Sev => untrusted_only,
                        // A T=1 device sees private memory at p (the sDTE makes the whole device
                        // private); for shared memory plain SNP has no address.
                        // sabotage: snp-accepted-shared, snp-accepted-c-bit
                        _ => DmaForms { accepted_shared: Form::Unreachable, ..guest.dma },
                    },
                    memory: below(1 << c_bit),
                    ..guest
                }),
                Err(wrong) => return Err(WrongParameter::CBit(wrong)),
            },
            Self::SnpVtom => match top(numbers.vtom) {
                Ok(top) => Regime::Guest(GuestRules {
                    cpu: CpuForms { private: 0, shared: top },
                    // sabotage: vtom-accepted-below-top
                    dma: DmaForms { accepted_shared: Form::Plus(top), ..guest.dma },
                    memory: below(top),
                    ..guest
                }),
                Err(wrong) => return Err(WrongParameter::Vtom(wrong)),
            },
            // The shared bit lives in the page table and in MapGPA; T=0 devices see the address
            // without it. No released Linux gives it to a T=1 device yet; the architecture does.
            Self::Tdx => {
                let gpaw = match numbers.gpaw {
                    None => 52,
                    Some(gpaw @ (48 | 52)) => gpaw,
                    Some(gpaw) => return Err(WrongParameter::Gpaw(gpaw)),
                };
                let shared = 1 << (gpaw - 1);
                Regime::Guest(GuestRules {
                    cpu: CpuForms { private: 0, shared },
                    // sabotage: tdx-bit-at-gpaw
                    dma: DmaForms { accepted_shared: Form::Plus(shared), ..guest.dma },
                    memory: below(shared),
                    on_reclaim: Zeroed,
                    ..guest
                })
            }
            // The top IPA bit is a bit of the address itself, for CPUs and devices alike.
            Self::Cca => match bit(numbers.ipa_bits, 48, 32, 52) {
                Ok(bits) => {
                    let shared = 1 << (bits - 1);
                    Regime::Guest(GuestRules {
                        cpu: CpuForms { private: 0, shared },
                        dma: DmaForms {
                            untrusted_shared: Form::Plus(shared), // sabotage: cca-untrusted-bare
                            accepted_shared: Form::Plus(shared),  // sabotage: cca-accepted-bit-low
                            ..guest.dma
                        },
                        memory: below(shared),
                        on_reclaim: Zeroed,
                        ..guest
                    })
                }
                Err(wrong) => return Err(WrongParameter::IpaBits(wrong)),
            },
            // No bit anywhere: the hypervisor's second stage decides, and keeps the bytes.
            // sabotage: pkvm-shared-bit
            Self::Pkvm => Regime::Guest(GuestRules { on_share: Kept, on_reclaim: Kept, ..guest }),
            // The boundary is a convention between guest and hypervisor about page tables, over
            // SNP, TDX or no cipher at all: devices are given p. Which address a T=1 device would
            // use for shared memory is specified nowhere, so it has none (snp-vtom is another
            // thing: there the hardware's own IOMMU knows the boundary).
            Self::Hyperv => match top(numbers.vtom) {
                Ok(top) => Regime::Guest(GuestRules {
                    cpu: CpuForms { private: 0, shared: top },
                    // sabotage: hyperv-accepted-shared
                    dma: DmaForms { accepted_shared: Form::Unreachable, ..guest.dma },
                    memory: below(top),
                    on_share: Kept,
                    ..guest
                }),
                Err(wrong) => return Err(WrongParameter::Vtom(wrong)),
            },
            Self::S390 => Regime::Guest(GuestRules {
                dma: untrusted_only,
                on_share: Kept,
                on_reclaim: Kept,
                ..guest
            }),
            Self::Pef => Regime::Guest(GuestRules {
                dma: untrusted_only,
                on_share: Zeroed,
                on_reclaim: Zeroed,
                ..guest
            }),
        })
    }
}

impl fmt::Display for PlatformName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

const fn below(mark: u64) -> AddressLimit {
    AddressLimit::last(mark - 1)
}

const fn bit(given: Option<u32>, default: u32, lowest: u32, highest: u32) -> Result<u32, u32> {
    match given {
        None => Ok(default),
        Some(bit) if bit >= lowest && bit <= highest => Ok(bit),
        Some(bit) => Err(bit),
    }
}

const fn top(given: Option<u64>) -> Result<u64, u64> {
    match given {
        None => Ok(1 << 40),
        Some(top) if top.is_power_of_two() && top >= 1 << 32 && top <= 1 << 62 => Ok(top),
        Some(top) => Err(top),
    }
}
