//! The table. A module imports from the floors below its own, and from nothing else of the core.
//!
//! A new module is entered here, on the lowest floor on which it can stand; if it does not fit on
//! any, the design changes first.

/// A floor of the core and its modules, from the ground up.
pub(super) struct Floor {
    pub(super) number: u8,
    pub(super) modules: &'static [&'static str],
    /// May the modules of this floor import from each other?
    pub(super) neighbours: bool,
}

pub(super) const FLOORS: &[Floor] = &[
    // Values and words: they are defined in terms of each other.
    Floor {
        number: 1,
        modules: &[
            "addr", "attrs", "copy", "name", "observe", "reason", "regime", "shared", "slots",
            "state", "waiters", "word",
        ],
        neighbours: true,
    },
    // The one decision, and what the machine has to offer. The decision asks nobody.
    Floor { number: 2, modules: &["plan", "platform"], neighbours: false },
    // Three books, each of which is kept without the others.
    Floor { number: 3, modules: &["iommu", "ledger", "pool"], neighbours: false },
    // What one machine has, for the floors above to do things with.
    Floor { number: 4, modules: &["dma"], neighbours: false },
    // Who asks, and the transaction that changes pages.
    Floor { number: 5, modules: &["convert", "device"], neighbours: false },
    // What a device can do, and a look at everything.
    Floor { number: 6, modules: &["coherent", "inspect", "stream"], neighbours: false },
    // What devices share.
    Floor { number: 7, modules: &["heap"], neighbours: false },
];

/// A crate of the workspace and what it may depend on. Dev-dependencies are free: tests and
/// examples may use anything.
pub(super) struct Crate {
    pub(super) name: &'static str,
    pub(super) ours: &'static [&'static str],
    pub(super) others: Others,
}

/// What a crate may depend on from outside the workspace.
pub(super) enum Others {
    Any,
    Only(&'static [&'static str]),
    /// Nothing is required: each is optional, or there under `cfg(loom)` or `cfg(shuttle)`, its
    /// own name, alone.
    Optional(&'static [&'static str]),
}

pub(super) const CRATES: &[Crate] = &[
    Crate {
        name: "coco-dma",
        ours: &[],
        others: Others::Optional(&["bitflags", "loom", "shuttle"]),
    },
    Crate { name: "coco-dma-abi", ours: &["coco-dma"], others: Others::Only(&["bitflags"]) },
    Crate { name: "coco-dma-sim", ours: &["coco-dma", "coco-dma-abi"], others: Others::Any },
    Crate {
        name: "coco-dma-cases",
        ours: &["coco-dma", "coco-dma-abi", "coco-dma-sim"],
        others: Others::Any,
    },
    Crate {
        name: "coco-dma-virtio",
        ours: &["coco-dma"],
        others: Others::Only(&["virtio-drivers"]),
    },
    Crate { name: "coco-dma-vhost", ours: &["coco-dma", "coco-dma-virtio"], others: Others::Any },
    Crate { name: "coco-dma-bench", ours: &["coco-dma"], others: Others::Any },
    Crate {
        name: "coco-dma-cli",
        ours: &[
            "coco-dma",
            "coco-dma-abi",
            "coco-dma-bench",
            "coco-dma-cases",
            "coco-dma-sim",
            "coco-dma-vhost",
            "coco-dma-virtio",
        ],
        others: Others::Any,
    },
    Crate { name: "xtask", ours: &[], others: Others::Any },
];

/// The floor of a module.
pub(super) fn floor(module: &str) -> Option<&'static Floor> {
    FLOORS.iter().find(|floor| floor.modules.contains(&module))
}

/// Why `from` may not import from `to`, if it may not. Both are in the table.
pub(super) fn objection(from: &str, to: &str) -> Option<String> {
    let (low, high) = (floor(to)?, floor(from)?);
    if from == to || low.number < high.number || (low.number == high.number && low.neighbours) {
        None
    } else if low.number == high.number {
        Some(format!("`{from}` and `{to}` share floor {}: neither knows the other", low.number))
    } else {
        Some(format!(
            "`{from}` on floor {} may not know `{to}` on floor {}: imports go down",
            high.number, low.number
        ))
    }
}
