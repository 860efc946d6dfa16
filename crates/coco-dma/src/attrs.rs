//! Mapping attributes, with the names and bits of Linux 7.3 (`include/linux/dma-mapping.h`), so
//! that people and traces can compare.

use core::fmt;

/// A set of attributes.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Attrs(u32);

macro_rules! attrs {
    ($($(#[$doc:meta])* $name:ident = $bit:literal, $text:literal;)*) => {
        impl Attrs {
            $($(#[$doc])* pub const $name: Self = Self(1 << $bit);)*

            /// Every attribute with its name: Linux's, in lower case with dashes, without
            /// `DMA_ATTR_`.
            pub const NAMED: &'static [(&'static str, Self)] = &[$(($text, Self::$name)),*];
        }
    };
}

attrs! {
    /// A hint to the architecture: reads and writes may pass each other.
    WEAK_ORDERING = 1, "weak-ordering";
    /// Allocations for non-coherent devices may be mapped write-combining.
    WRITE_COMBINE = 2, "write-combine";
    /// The allocation needs no view for the CPU.
    NO_KERNEL_MAPPING = 4, "no-kernel-mapping";
    /// No cache work here, and no copy back at the end: the driver syncs by itself.
    SKIP_CPU_SYNC = 5, "skip-cpu-sync";
    /// The allocation must be physically contiguous.
    FORCE_CONTIGUOUS = 6, "force-contiguous";
    /// Do not try large pages for the allocation.
    ALLOC_SINGLE_PAGES = 7, "alloc-single-pages";
    /// Report no event when this fails.
    NO_WARN = 8, "no-warn";
    /// The IOMMU entry is for privileged access only.
    PRIVILEGED = 9, "privileged";
    /// The range is a device's registers or memory, not RAM: never bounced, no cache work.
    MMIO = 10, "mmio";
    /// A checker need not report that cache lines overlap.
    DEBUGGING_IGNORE_CACHELINES = 11, "debugging-ignore-cachelines";
    /// Refuse rather than bounce or flush caches.
    REQUIRE_COHERENT = 12, "require-coherent";
    /// An assertion by the caller: this memory is shared with the host already. The ledger
    /// checks it. With `MMIO`: shared registers.
    CC_SHARED = 13, "cc-shared";
    /// Linux's internal mark on allocations. No caller may pass it.
    ALLOC_CC_SHARED = 14, "alloc-cc-shared";
}

impl Attrs {
    /// No attribute.
    pub const NONE: Self = Self(0);

    /// What `map`, `sync` and `unmap` take.
    pub const FOR_MAP: Self = Self::WEAK_ORDERING
        .with(Self::SKIP_CPU_SYNC)
        .with(Self::NO_WARN)
        .with(Self::PRIVILEGED)
        .with(Self::MMIO)
        .with(Self::DEBUGGING_IGNORE_CACHELINES)
        .with(Self::REQUIRE_COHERENT)
        .with(Self::CC_SHARED);

    /// What an allocation takes.
    pub const FOR_ALLOC: Self = Self::WEAK_ORDERING
        .with(Self::WRITE_COMBINE)
        .with(Self::NO_KERNEL_MAPPING)
        .with(Self::FORCE_CONTIGUOUS)
        .with(Self::ALLOC_SINGLE_PAGES)
        .with(Self::NO_WARN)
        .with(Self::PRIVILEGED);

    /// What a view of the CPU takes of memory that is no allocation: what one of an allocation does,
    /// and what memory is asserted to be.
    pub const FOR_VIEW: Self = Self::FOR_ALLOC.with(Self::MMIO).with(Self::CC_SHARED);

    /// Why an operation does not take the first attribute of this set, as the rest of a sentence
    /// after "for".
    pub const fn why_not(self) -> &'static str {
        const MADE: Attrs = Attrs::WRITE_COMBINE
            .with(Attrs::NO_KERNEL_MAPPING)
            .with(Attrs::FORCE_CONTIGUOUS)
            .with(Attrs::ALLOC_SINGLE_PAGES);
        let first = self.0 & self.0.wrapping_neg();
        if first & MADE.0 != 0 {
            "it says how an allocation of another kind is made"
        } else if first == Self::ALLOC_CC_SHARED.0 {
            "it is Linux's own mark, which no caller passes"
        } else if first == Self::CC_SHARED.0 {
            "it asserts what memory is, and what is allocated becomes what its device reaches"
        } else if first == Self::MMIO.0 {
            "registers are mapped, never allocated"
        } else {
            "it is about a map or an entry of coherent memory, and there is none"
        }
    }

    /// The set of both.
    #[inline]
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// What is in this set and not in `other`.
    #[inline]
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether all of `other` is in this set.
    #[inline]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether the set is empty.
    #[inline]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Linux's bits.
    #[inline]
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// The attribute of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::NAMED.iter().find(|(known, _)| *known == name).map(|(_, attr)| *attr)
    }

    /// The names in the set, lowest bit first.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Self::NAMED.iter().filter(move |(_, attr)| self.contains(*attr)).map(|(name, _)| *name)
    }
}

impl fmt::Display for Attrs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("none");
        }
        for (place, name) in self.names().enumerate() {
            if place > 0 {
                f.write_str(", ")?;
            }
            f.write_str(name)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Attrs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Attrs({self})")
    }
}

#[cfg(test)]
mod tests {
    use std::format;

    use super::*;

    #[test]
    fn bits_are_those_of_linux_7_3() {
        assert_eq!(Attrs::CC_SHARED.bits(), 1 << 13);
        assert_eq!(Attrs::MMIO.bits(), 1 << 10);
        assert_eq!(Attrs::REQUIRE_COHERENT.bits(), 1 << 12);
        assert_eq!(Attrs::SKIP_CPU_SYNC.bits(), 1 << 5);
    }

    #[test]
    fn names_go_both_ways() {
        for (name, attr) in Attrs::NAMED {
            assert_eq!(Attrs::from_name(name), Some(*attr));
            assert!(attr.names().eq([*name]));
        }
        assert_eq!(Attrs::from_name("cc_shared"), None);
    }

    #[test]
    fn a_set_has_an_attribute_once() {
        let set = Attrs::MMIO.with(Attrs::CC_SHARED);
        assert_eq!(set.with(Attrs::MMIO), set);
        assert_eq!(set.without(Attrs::MMIO), Attrs::CC_SHARED);
        assert_eq!(set.without(Attrs::NO_WARN), set);
        assert!(set.contains(Attrs::MMIO) && !Attrs::MMIO.contains(set));
    }

    #[test]
    fn a_set_is_told_by_its_names() {
        assert_eq!(format!("{}", Attrs::NONE), "none");
        assert_eq!(format!("{}", Attrs::MMIO), "mmio");
        let set = Attrs::CC_SHARED.with(Attrs::MMIO).with(Attrs::NO_WARN);
        assert_eq!(format!("{set:?}"), "Attrs(no-warn, mmio, cc-shared)");
    }
}
