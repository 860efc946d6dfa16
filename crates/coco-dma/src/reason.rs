//! Why a plan is what it is. The slugs are stable: one may be added, none ever changes.

use core::fmt;

macro_rules! reasons {
    ($(#[$doc:meta])* $kind:ident { $($name:ident, $slug:literal, $text:literal;)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum $kind {
            $(#[doc = concat!("`", $slug, "`: ", $text, ".")] $name,)*
        }

        impl $kind {
            /// All of them, in order: where several apply, the first is the reason.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The stable name.
            pub const fn slug(self) -> &'static str {
                match self { $(Self::$name => $slug,)* }
            }

            /// What it means, as the rest of a sentence.
            pub const fn text(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }

        impl fmt::Display for $kind {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.slug())
            }
        }
    };
}

reasons! {
    /// Why a device may touch memory where it lies.
    Direct {
        InReach, "in-reach", "the device reaches the memory where it lies";
        AlreadyShared, "already-shared", "the memory is shared with the host already and in reach";
    }
}

reasons! {
    /// Why a buffer goes through a pool.
    Bounce {
        RestrictedPool, "restricted-pool",
            "the device may touch nothing but its restricted pool";
        Forced, "forced", "bouncing is forced for this device";
        PrivateMemory, "private-memory", "an untrusted device cannot reach private memory";
        SharedUnreachable, "shared-unreachable",
            "this platform has no address by which an accepted device reaches shared memory";
        Unlocated, "unlocated", "the buffer is in no single run of physical memory";
        UnmappedBusRange, "unmapped-bus-range", "no window of the device's bus shows the memory";
        BeyondMask, "beyond-mask", "the address needs more bits than the device's mask has";
        BeyondBusLimit, "beyond-bus-limit", "the address lies past the last one the bus reaches";
        Alignment, "alignment",
            "the buffer begins or ends where the device cannot take it, or shares a cache line with a neighbour";
        ExternalFacing, "external-facing",
            "an external-facing device must not see what else lies in the buffer's granules";
    }
}

reasons! {
    /// Why a request is refused.
    Refuse {
        BadAttribute, "bad-attribute", "the operation does not take this attribute";
        InvalidRange, "invalid-range", "the range is empty, wraps, is no address of this machine, or has a length that the device does not take";
        OutOfBounds, "out-of-bounds", "the range is not all in the allocation";
        GuestOnly, "guest-only", "cc-shared exists in confidential guests only";
        MixedRun, "mixed-run", "the granules of the run are not all in the same state";
        Unaccepted, "unaccepted", "some of the memory was never accepted, and is not private yet";
        Quarantined, "quarantined",
            "some of the memory is in quarantine: a failed conversion left its state in doubt";
        AttributeContradictsLedger, "attribute-contradicts-ledger",
            "the attribute asserts something else than the ledger knows";
        PrivateMmio, "private-mmio", "an untrusted device cannot reach private registers";
        MmioCannotBounce, "mmio-cannot-bounce", "registers cannot go through a pool";
        SharedUnreachable, "shared-unreachable",
            "an accepted device has no address for shared memory here, and nothing to bounce it through";
        RequireCoherent, "require-coherent", "the caller wants no bounce and no cache work";
        RestrictedPool, "restricted-pool",
            "the memory lies outside the device's restricted pool, and nothing is bounced here";
        Forced, "forced", "every map of this device is to be bounced, and nothing is bounced here";
        PrivateMemory, "private-memory",
            "an untrusted device cannot reach private memory, and nothing is bounced here";
        Unlocated, "unlocated",
            "the memory is in no single run of physical memory, and cannot be mapped as one";
        UnmappedBusRange, "unmapped-bus-range",
            "no window of the device's bus shows the memory, and nothing is bounced here";
        BeyondMask, "beyond-mask",
            "the address needs more bits than the device's mask has, and nothing is bounced here";
        BeyondBusLimit, "beyond-bus-limit",
            "the address lies past the last one the bus reaches, and nothing is bounced here";
        Alignment, "alignment",
            "the memory does not lie as the device needs it, and nothing is bounced here";
        ExternalFacing, "external-facing",
            "an external-facing device would see what else lies in the memory's pages";
        NoPool, "no-pool", "there is no pool to bounce through";
        NoPrivatePool, "no-private-pool",
            "an accepted device is never given a shared slot, and all its pools are shared";
        PoolLabelMismatch, "pool-label-mismatch", "no pool has a label that suits this device";
        NoReachablePool, "no-reachable-pool", "the pools that suit are out of the device's reach";
        TooLarge, "too-large",
            "one mapping of this size is more than the device takes, or than any pool in reach could hold";
        TooManySegments, "too-many-segments",
            "the list is more segments than the device takes at once";
        Quota, "quota", "the device would hold more, in slots and pages of its own, than its quota gives it";
        PoolFull, "pool-full", "the pools that suit have no free run of slots that is long enough";
        ConversionFailed, "conversion-failed",
            "memory could not be converted for the device, and no pool has any for it";
        OutOfPages, "out-of-pages",
            "the source of pages has none that the device reaches, and no pool has any for it";
        TooScattered, "too-scattered", "the memory comes in more runs than the caller has room for";
        NoView, "no-view", "the platform has no view of the memory of the type that it needs";
        IovaFull, "iova-full",
            "the domain has no free run of addresses in the device's reach that is long enough";
        IommuFailed, "iommu-failed", "the IOMMU's driver could not map it";
        PoolClosed, "pool-closed", "the pools that suit are closed: they were never grown, or shrank again";
        PinnedOut, "pinned-out",
            "some of the memory holds as many pins by direct DMA as can be counted";
        Busy, "busy", "the state of the memory keeps changing under the request";
        AtomicNeedsConversion, "atomic-needs-conversion",
            "memory would have to be converted, which atomic context never does";
        PeerToPeer, "peer-to-peer", "no device of a confidential guest reaches the memory of another device";
        Revoked, "revoked", "the device was revoked: it is dead or gone";
        TrustLost, "trust-lost", "the device is not, or no longer, an accepted one";
    }
}

impl From<Bounce> for Refuse {
    /// The same reason, where nothing may be bounced.
    fn from(reason: Bounce) -> Self {
        match reason {
            Bounce::RestrictedPool => Self::RestrictedPool,
            Bounce::Forced => Self::Forced,
            Bounce::PrivateMemory => Self::PrivateMemory,
            Bounce::SharedUnreachable => Self::SharedUnreachable,
            Bounce::Unlocated => Self::Unlocated,
            Bounce::UnmappedBusRange => Self::UnmappedBusRange,
            Bounce::BeyondMask => Self::BeyondMask,
            Bounce::BeyondBusLimit => Self::BeyondBusLimit,
            Bounce::Alignment => Self::Alignment,
            Bounce::ExternalFacing => Self::ExternalFacing,
        }
    }
}

impl Refuse {
    /// What the caller can do about it.
    pub const fn way_out(self) -> &'static str {
        match self {
            Self::BadAttribute => "leave the attribute out",
            Self::InvalidRange => {
                "give a range of memory that this machine has, and of a length that the device takes"
            }
            Self::OutOfBounds => "ask for a part of the allocation, by its offset and length",
            Self::GuestOnly => "leave cc-shared out: on a host every device may access all memory",
            Self::MixedRun => "map the parts one by one, or share or reclaim the whole run first",
            Self::Unaccepted => "accept the memory first",
            Self::Quarantined => "use other memory; a retry may prove its state again",
            Self::Revoked => "finish its maps and bind the device that took its place",
            Self::AttributeContradictsLedger => {
                "leave the attribute out, or bring the memory into the asserted state first"
            }
            Self::PrivateMmio => "map the registers as shared (mmio with cc-shared)",
            Self::MmioCannotBounce => "let the device reach the registers directly",
            Self::SharedUnreachable => {
                "use private memory or registers, or bounce memory through a guest-private pool"
            }
            Self::RequireCoherent => "use memory in the device's reach, or leave the attribute out",
            Self::RestrictedPool => "take the memory from the device's restricted pool",
            Self::Forced => "bind the device without forced bouncing",
            Self::PrivateMemory => "use shared memory, or attest the device",
            Self::Unlocated => "use memory that lies in one run, or map its pages one by one",
            Self::UnmappedBusRange => "use memory that a window of the bus shows",
            Self::BeyondMask => "use memory at lower addresses, or a device with a wider mask",
            Self::BeyondBusLimit => "use memory at addresses that the bus reaches",
            Self::Alignment => "use memory that keeps the device's segment, boundary and alignment",
            Self::ExternalFacing => "use whole pages that hold nothing else",
            Self::NoPool => "register a pool",
            Self::NoPrivatePool => "register a guest-private pool for accepted devices",
            Self::PoolLabelMismatch => "register a pool with the label that suits",
            Self::NoReachablePool => "register a pool at addresses that the device reaches",
            Self::TooLarge => "split it: map it as a list, or in parts of max_mapping",
            Self::TooManySegments => "map the list in several parts, each of max_segments at most",
            Self::PoolFull => "finish mappings and try again, or register a larger pool",
            Self::PoolClosed => "call Dma::grow for one of them, from blocking context",
            Self::PinnedOut => "finish maps of this memory, or map other memory",
            Self::ConversionFailed => "retry the quarantine, or register a pool for the device",
            Self::OutOfPages => "free memory and try again, or register a pool for the device",
            Self::TooScattered => "give room for more runs, or allocate less at once",
            Self::NoView => "call from blocking context, or sync memory that is not coherent",
            Self::IovaFull => "finish mappings and try again, or give the domain a larger window",
            Self::IommuFailed => "finish mappings and try again; the driver knows the cause",
            Self::Quota => "end maps or allocations of this device, or give it a larger quota",
            Self::Busy => "wait until the conversion has ended, and try again",
            Self::AtomicNeedsConversion => "call from blocking context, or fill the reserve before",
            Self::PeerToPeer => "copy through memory",
            Self::TrustLost => "end the device's maps, and attest it anew or bind it as untrusted",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;

    #[test]
    fn slugs_are_unique_within_their_outcome_and_well_formed() {
        let all = [
            Direct::ALL.iter().map(|r| r.slug()).collect::<Vec<_>>(),
            Bounce::ALL.iter().map(|r| r.slug()).collect(),
            Refuse::ALL.iter().map(|r| r.slug()).collect(),
        ];
        for slugs in all {
            for (place, slug) in slugs.iter().enumerate() {
                assert!(slug.bytes().all(|c| c.is_ascii_lowercase() || c == b'-'), "{slug}");
                assert!(!slugs[..place].contains(slug), "{slug} twice");
            }
        }
    }

    #[test]
    fn a_reason_to_bounce_keeps_its_slug_where_nothing_may_be_bounced() {
        for reason in Bounce::ALL {
            assert_eq!(Refuse::from(*reason).slug(), reason.slug());
        }
    }

    #[test]
    fn each_refusal_has_a_way_out_of_its_own() {
        for (place, reason) in Refuse::ALL.iter().enumerate() {
            assert!(reason.way_out().contains(' '), "{reason}: {}", reason.way_out());
            let earlier = Refuse::ALL[..place].iter().find(|r| r.way_out() == reason.way_out());
            assert_eq!(earlier, None, "{reason} has the same way out");
        }
    }
}
