//! The rules that a decision applies, each with where it comes from.

use core::fmt;

macro_rules! rules {
    ($($name:ident, $slug:literal, $origin:literal;)*) => {
        /// A rule that a decision applied.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Rule {
            $(#[doc = concat!("`", $slug, "`: ", $origin, ".")] $name,)*
        }

        impl Rule {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The stable name.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $slug,)* }
            }

            /// Where it comes from: a message to the kernel's lists (`mid:`), a commit to Linux or a
            /// file of Linux 7.3 (`linux:`), a specification (`spec:`), or this project's own
            /// design (`doc:`).
            pub const fn origin(self) -> &'static str {
                match self { $(Self::$name => $origin,)* }
            }
        }
    };
}

rules! {
    Attributes, "attributes", "mid:20260325192352.437608 (DMA_ATTR_CC_SHARED); linux:include/linux/dma-mapping.h";
    Peer, "peer-to-peer", "mid:20260521175420; linux:drivers/pci/p2pdma.c";
    Range, "range", "linux:include/linux/dma-direct.h (dma_capable)";
    MemoryState, "memory-state", "mid:20260330145043.1586623; mid:20260421121004";
    Reach, "reach", "mid:20251117140007.122062-11; spec:PCIe 6.1 section 11 (TDISP)";
    Restricted, "restricted-pool", "mid:20260305170335.963568; linux:kernel/dma/swiotlb.c (restricted-dma-pool)";
    Forced, "forced", "linux:kernel/dma/direct.h (is_swiotlb_force_bounce)";
    BusRange, "bus-range", "linux:include/linux/dma-direct.h (translate_phys_to_dma); spec:Devicetree 0.4 section 2.3.9 (dma-ranges)";
    Form, "dma-form", "mid:20260619140616; linux:include/linux/dma-direct.h (phys_to_dma_unencrypted)";
    Limit, "limit", "linux:include/linux/dma-direct.h (dma_capable)";
    Alignment, "alignment", "linux:kernel/dma/debug.c (check_sg_segment); linux:Documentation/core-api/dma-api.rst";
    Segments, "segments", "linux:include/linux/dma-mapping.h (dma_set_max_seg_size); linux:Documentation/core-api/dma-api.rst (dma_map_sg)";
    InPlace, "in-place", "mid:20260325192352.437608 (system_cc_shared)";
    External, "external-facing", "linux:drivers/iommu/dma-iommu.c (dev_use_swiotlb)";
    Wanted, "wanted", "linux:kernel/dma/direct.h (dma_direct_map_phys)";
    Pool, "pool", "mid:20260701054926.825925; mid:20260519152741";
    PoolOrder, "pool-order", "doc:DESIGN.md (the nearest pool)";
    Slot, "slot", "linux:kernel/dma/swiotlb.c (swiotlb_search_pool_area)";
    Pages, "pages", "mid:20260408194750.2280873; mid:20260706060432.1375570";
    Bounds, "bounds", "linux:kernel/dma/mapping.c (dma_common_mmap)";
    Revoked, "revoked", "doc:DESIGN.md (who loses trust is cut off at once); spec:PCIe 6.1 section 11 (TDISP)";
    Copy, "copy", "linux:kernel/dma/swiotlb.c (swiotlb_bounce); doc:DESIGN.md (a map from the device)";
    CpuForm, "cpu-form", "mid:20260330145043.1586623; linux:kernel/dma/mapping.c (dma_pgprot)";
    Ownership, "ownership", "mid:20260330145043.1586623; mid:20260324175717";
    Context, "context", "linux:kernel/dma/pool.c (atomic pools)";
    Decision, "decision", "doc:DESIGN.md (the way a buffer takes)";
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rule_has_a_name_of_its_own_and_says_where_it_comes_from() {
        for (place, rule) in Rule::ALL.iter().enumerate() {
            let earlier = Rule::ALL[..place].iter().find(|other| other.name() == rule.name());
            assert_eq!(earlier, None, "{rule}");
            for origin in rule.origin().split("; ") {
                let kinds = ["mid:", "linux:", "spec:", "doc:"];
                assert!(kinds.iter().any(|kind| origin.starts_with(kind)), "{rule}: {origin}");
            }
        }
    }
}
