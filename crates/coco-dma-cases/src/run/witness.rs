//! Who sees that an expectation does not hold. A layer that does something wrong may still tell the
//! right words about it: what counts in the end is what devices, the host and drivers saw.

use core::fmt;

use super::Failed;
use crate::case::Op;

/// Who saw that an expectation does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Witness {
    /// A device: what its reads and writes came to.
    Device,
    /// The host: what its reads and writes came to, or a secret that it saw.
    Host,
    /// A driver, in its own memory.
    Driver,
    /// The machine: the true state of memory, or its platform's contract.
    Machine,
    /// The layer's own word: outcomes, reasons, addresses, books, counters, events.
    Layer,
}

impl Witness {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Device => "device",
            Self::Host => "host",
            Self::Driver => "driver",
            Self::Machine => "machine",
            Self::Layer => "layer",
        }
    }

    /// Who sees what a step comes to.
    pub(super) const fn of(op: &Op) -> Self {
        match op {
            Op::DeviceAccess { .. } => Self::Device,
            Op::HostAccess { .. } => Self::Host,
            Op::DriverAccess { .. } => Self::Driver,
            _ => Self::Layer,
        }
    }
}

impl fmt::Display for Witness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Whose word decides whether a case holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Heed {
    /// Everybody's.
    #[default]
    All,
    /// Everybody's but the layer's. A step that cannot be done for what the layer did before is
    /// passed over.
    Seen,
}

impl Heed {
    /// The failure, where it counts.
    pub(super) fn judge(self, result: Result<(), Failed>) -> Result<(), Failed> {
        match result {
            Err(Failed { witness: Witness::Layer, .. }) if self == Self::Seen => Ok(()),
            other => other,
        }
    }
}
