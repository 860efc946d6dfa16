//! What is booted: a list.

/// What stands between devices and memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Iommu {
    None,
    Intel,
    Virtio,
}

impl Iommu {
    pub(super) const ALL: [Self; 3] = [Self::None, Self::Intel, Self::Virtio];

    /// The name in the guest's report, and of QEMU's device.
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
}

impl Case {
    pub(super) fn name(&self) -> String {
        let Self { scenario, device, mode, iommu } = self;
        format!("{scenario} {device} {mode} {}", iommu.name())
    }
}

/// All of them, in the order of the table.
pub(super) fn all() -> Vec<Case> {
    let mut cases = Vec::new();
    for device in ["blk", "rng", "nvme", "edu"] {
        for mode in ["bounced", "direct", "attack"] {
            for iommu in Iommu::ALL {
                cases.push(Case { scenario: "io", device, mode, iommu });
            }
        }
    }
    cases
}
