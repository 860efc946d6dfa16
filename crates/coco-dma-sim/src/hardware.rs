//! What each platform does, machine side: who gets what of private memory, what a conversion makes
//! of the bytes, and which memory an address on the bus means. Written from the platforms'
//! documents (reference/linux.md, section 3) and independent of `coco_dma::regime` on purpose.

use coco_dma::regime::Parameters;
use coco_dma::regime::PlatformName;
use coco_dma::state::State;
use coco_dma::state::Trust;

/// What the host gets where it touches memory that is not for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnPrivate {
    /// The access faults, either way (TDX, CCA, pKVM, Hyper-V, PEF).
    Fault,
    /// Reads give ciphertext; writes succeed, and the guest reads garbage there (SEV; and a
    /// memory controller without the C-bit on an SME host).
    CiphertextReadWriteCorrupts,
    /// Reads give ciphertext, writes fault (SEV-SNP: the RMP).
    CiphertextReadWriteFaults,
    /// The page is exported: reads give it encrypted; where the host writes, the guest's next
    /// access to the page fails its check, so that the page is lost (s390).
    EncryptedPage,
}

/// What a conversion makes of the bytes of a granule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// They stay.
    Keep,
    /// They are zero.
    Zero,
    /// The DRAM stays as it is, and is looked at past the cipher, or through it, from now on.
    Recipher,
    /// Another page of the host's lies there, with whatever it held.
    Replace,
}

/// What an address on the bus means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sight {
    /// Memory with the host's rights.
    Outside,
    /// Memory with the guest's rights, as long as it is in this state; otherwise it faults.
    Inside(State),
    /// Memory with the guest's rights, whatever state it is in.
    Either,
    /// Memory through the cipher, which makes garbage of what was not stored through it (SME, SEV).
    Deciphered,
}

/// The hardware and firmware of one machine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hardware {
    pub(crate) on_private: OnPrivate,
    pub(crate) on_share: Effect,
    pub(crate) on_reclaim: Effect,
    /// The state in which memory comes.
    pub(crate) at_boot: State,
    /// The bit that a device of the host needs in the address, or 0.
    outside: u64,
    inside: Inside,
    marks: Marks,
}

/// What the CPU's page tables say by a mark in the address.
#[derive(Clone, Copy, Debug)]
enum Marks {
    /// Nothing: an address with a mark is no memory.
    None,
    /// This bit sends an access through the cipher, without it goes past; nothing checks which of
    /// the two the memory is for (SME; SEV: APM volume 2, 15.34.5).
    Cipher(u64),
    /// The same, but through the cipher only private memory is reached (SEV-SNP: the RMP, APM
    /// volume 2, 15.36.10).
    CheckedCipher(u64),
    /// The same, turned round: this bit is the top of memory, above which is what goes past (vTOM).
    Top(u64),
    /// This bit says shared, and the second stage faults where that is not true (TDX, CCA, the
    /// boundary of Hyper-V).
    Shared(u64),
}

/// What the bus makes of the addresses of a device that the guest accepted.
#[derive(Clone, Copy, Debug)]
enum Inside {
    /// There are no such devices.
    None,
    /// Everything is memory, for every device.
    Open,
    /// This bit sends an access through the cipher, for every device.
    Cipher(u64),
    /// Private memory alone has an address.
    PrivateOnly,
    /// This bit says shared.
    SharedBit(u64),
    /// The second stage of translation knows what is what.
    Stage2,
}

impl Hardware {
    /// The hardware of a platform with these numbers, which its regime has checked.
    pub(crate) fn new(platform: PlatformName, numbers: &Parameters) -> Self {
        use Effect::{Keep, Recipher, Replace, Zero};
        let plain = |on_private, on_share, on_reclaim, inside| Self {
            on_private,
            on_share,
            on_reclaim,
            at_boot: State::PRIVATE,
            outside: 0,
            inside,
            marks: Marks::None,
        };
        let c_bit = 1 << numbers.c_bit.unwrap_or(51);
        let top = numbers.vtom.unwrap_or(1 << 40);
        let fault = OnPrivate::Fault;
        match platform {
            // Nobody is shut out, and nothing converts.
            PlatformName::Open => {
                Self { at_boot: State::Ordinary, ..plain(fault, Keep, Keep, Inside::Open) }
            }
            PlatformName::Sme => {
                let c_bit = 1 << numbers.c_bit.unwrap_or(47);
                let past = OnPrivate::CiphertextReadWriteCorrupts;
                let (inside, marks) = (Inside::Cipher(c_bit), Marks::Cipher(c_bit));
                let at_boot = State::ENCRYPTED;
                Self { at_boot, marks, ..plain(past, Recipher, Recipher, inside) }
            }
            PlatformName::Sev => {
                let past = OnPrivate::CiphertextReadWriteCorrupts;
                let marks = Marks::Cipher(c_bit);
                Self { marks, ..plain(past, Recipher, Recipher, Inside::None) }
            }
            PlatformName::Snp => {
                let past = OnPrivate::CiphertextReadWriteFaults;
                let marks = Marks::CheckedCipher(c_bit);
                Self { marks, ..plain(past, Recipher, Recipher, Inside::PrivateOnly) }
            }
            PlatformName::SnpVtom => {
                let past = OnPrivate::CiphertextReadWriteFaults;
                let inside = Inside::SharedBit(top);
                Self { marks: Marks::Top(top), ..plain(past, Recipher, Recipher, inside) }
            }
            PlatformName::Tdx => {
                let shared = 1 << (numbers.gpaw.unwrap_or(52) - 1);
                let (inside, marks) = (Inside::SharedBit(shared), Marks::Shared(shared));
                Self { marks, ..plain(fault, Replace, Zero, inside) }
            }
            // The unprotected half of the address space is what everybody sees, devices too.
            PlatformName::Cca => {
                let ipa_top = 1 << (numbers.ipa_bits.unwrap_or(48) - 1);
                let (inside, marks) = (Inside::SharedBit(ipa_top), Marks::Shared(ipa_top));
                Self { outside: ipa_top, marks, ..plain(fault, Replace, Zero, inside) }
            }
            PlatformName::Pkvm => plain(fault, Keep, Keep, Inside::Stage2),
            // The paravisor hands back whatever the host left there.
            PlatformName::Hyperv => {
                let marks = Marks::Shared(top);
                Self { marks, ..plain(fault, Keep, Replace, Inside::PrivateOnly) }
            }
            PlatformName::S390 => plain(OnPrivate::EncryptedPage, Keep, Keep, Inside::None),
            PlatformName::Pef => plain(fault, Zero, Zero, Inside::None),
        }
    }

    /// The physical address that `raw` means to a device, and with what rights it gets there;
    /// `None` where the bus knows no such address.
    pub(crate) fn decode(&self, trust: Trust, raw: u64) -> Option<(u64, Sight)> {
        let bare = |bit: u64| (raw & bit == bit).then_some(raw & !bit);
        match (self.inside, trust) {
            (Inside::Open, _) => Some((raw, Sight::Either)),
            (Inside::Cipher(c_bit), _) => match bare(c_bit) {
                Some(phys) => Some((phys, Sight::Deciphered)),
                None => Some((raw, Sight::Outside)),
            },
            (_, Trust::Untrusted) => bare(self.outside).map(|phys| (phys, Sight::Outside)),
            (Inside::None, Trust::Accepted) => None,
            (Inside::PrivateOnly, Trust::Accepted) => Some((raw, Sight::Inside(State::PRIVATE))),
            (Inside::SharedBit(bit), Trust::Accepted) => match bare(bit) {
                Some(phys) => Some((phys, Sight::Inside(State::SHARED))),
                None => Some((raw, Sight::Inside(State::PRIVATE))),
            },
            (Inside::Stage2, Trust::Accepted) => Some((raw, Sight::Either)),
        }
    }

    /// With what rights the CPU gets at memory through a page-table entry with this mark; `None`
    /// where no memory has such an address.
    pub(crate) fn for_cpu(&self, mark: u64) -> Option<Sight> {
        match self.marks {
            Marks::None => (mark == 0).then_some(Sight::Either),
            Marks::Cipher(bit) if mark == bit => Some(Sight::Deciphered),
            Marks::CheckedCipher(bit) if mark == bit => Some(Sight::Inside(State::PRIVATE)),
            Marks::Cipher(_) | Marks::CheckedCipher(_) => (mark == 0).then_some(Sight::Outside),
            Marks::Top(bit) if mark == bit => Some(Sight::Outside),
            Marks::Shared(bit) if mark == bit => Some(Sight::Inside(State::SHARED)),
            Marks::Top(_) | Marks::Shared(_) => {
                (mark == 0).then_some(Sight::Inside(State::PRIVATE))
            }
        }
    }

    /// With what rights a device gets at memory through an entry for this state. An IOMMU of the
    /// host takes what is not accepted to the outside, whatever its entry says.
    pub(crate) fn behind(&self, trust: Trust, state: State) -> Option<Sight> {
        match (self.inside, trust, state) {
            (Inside::Open, ..) => Some(Sight::Either),
            (Inside::Cipher(_), _, State::ENCRYPTED) => Some(Sight::Deciphered),
            (Inside::Cipher(_), ..) | (_, Trust::Untrusted, _) => Some(Sight::Outside),
            (Inside::None, Trust::Accepted, _) => None,
            (_, Trust::Accepted, state) => Some(Sight::Inside(state)),
        }
    }
}
