//! What is booted: a list.

/// What stands between devices and memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Iommu {
    None,
    Intel,
    Virtio,
}

impl Iommu {
    const ALL: [Self; 3] = [Self::None, Self::Intel, Self::Virtio];
    const REAL: [Self; 2] = [Self::Intel, Self::Virtio];

    /// The name in the guest's report.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Intel => "intel-iommu",
            Self::Virtio => "virtio-iommu",
        }
    }
}

/// One boot.
#[derive(Clone, Copy, Debug)]
pub(super) struct Case {
    pub(super) scenario: &'static str,
    pub(super) device: &'static str,
    pub(super) mode: &'static str,
    pub(super) iommu: Iommu,
    /// `passthrough`: the domain that maps shared memory to itself. `translated`: one with
    /// addresses of its own. `accepted`: the same for a device that is played to be attested.
    pub(super) behind: &'static str,
}

impl Case {
    pub(super) fn name(&self) -> String {
        let Self { scenario, device, mode, iommu, behind } = self;
        format!("{scenario} {device} {mode} {} {behind}", iommu.name())
    }
}

/// All of them, in the order of the table.
pub(super) fn all() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |scenario, device, mode, iommu, behind| {
        cases.push(Case { scenario, device, mode, iommu, behind });
    };
    for device in ["blk", "rng", "nvme", "edu"] {
        for mode in ["bounced", "direct", "attack"] {
            for iommu in Iommu::ALL {
                add("io", device, mode, iommu, "passthrough");
            }
            for iommu in Iommu::REAL {
                add("io", device, mode, iommu, "translated");
            }
        }
    }
    for iommu in Iommu::REAL {
        add("io", "nvme", "private", iommu, "accepted");
    }
    for iommu in Iommu::ALL {
        add("wide", "edu", "-", iommu, "passthrough");
    }
    for iommu in Iommu::REAL {
        add("wide", "edu", "-", iommu, "translated");
    }
    for (device, iommu) in [("blk", Iommu::Intel), ("nvme", Iommu::Virtio)] {
        add("exhaust", device, "-", iommu, "passthrough");
        add("exhaust", device, "-", iommu, "translated");
        add("error", device, "-", iommu, "passthrough");
        add("error", device, "-", iommu, "translated");
    }
    for iommu in Iommu::REAL {
        add("unplug", "nvme", "-", iommu, "passthrough");
        add("unplug", "nvme", "-", iommu, "translated");
    }
    add("refuse", "edu", "no-table", Iommu::Intel, "passthrough");
    add("refuse", "edu", "occupied", Iommu::Intel, "passthrough");
    add("refuse", "edu", "occupied", Iommu::Virtio, "passthrough");
    for iommu in Iommu::ALL {
        add("leak", "all", "-", iommu, "passthrough");
    }
    for mode in ["private-alias", "shared-alias"] {
        add("touch", "edu", mode, Iommu::None, "passthrough");
    }
    cases
}
