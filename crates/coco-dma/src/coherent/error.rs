//! Errors of coherent memory: who was refused what, and what was not freed.

use core::fmt;

use crate::iommu::UnmapError;
use crate::name::Name;
use crate::reason::Refuse;

/// An allocation that was refused. Nothing was changed and nothing is held, but for what a failed
/// conversion put into quarantine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AllocError {
    /// The device's name.
    pub device: Name,
    /// Why.
    pub reason: Refuse,
    /// Bytes asked for.
    pub len: usize,
}

impl fmt::Display for AllocError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { device, reason, len } = self;
        write!(f, "{device}: an allocation of {len} bytes was refused ({reason}): ")?;
        write!(f, "{}; {}", reason.text(), reason.way_out())
    }
}

impl core::error::Error for AllocError {}

/// Memory that was not freed, and the memory as it was: freeing it again tries again.
#[derive(Debug)]
pub struct FreeError<M> {
    /// Why.
    pub reason: NotFreed,
    /// The memory.
    pub memory: M,
}

impl<M> FreeError<M> {
    /// The same about the memory in another form.
    pub(super) fn map<N>(self, form: impl FnOnce(M) -> N) -> FreeError<N> {
        FreeError { reason: self.reason, memory: form(self.memory) }
    }
}

/// Why memory was not freed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NotFreed {
    /// It is another device's; free it there.
    NotThisDevice,
    /// The context forbids what that takes: pages are converted on free, which atomic context must
    /// not do.
    Context(Refuse),
    /// The IOMMU could not unmap it: the device may still reach it, so that it can be nobody
    /// else's.
    StillMapped(UnmapError),
}

impl fmt::Display for NotFreed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotThisDevice => f.write_str("the memory is another device's; free it there"),
            Self::Context(reason) => write!(f, "{}; {}", reason.text(), reason.way_out()),
            Self::StillMapped(error) => write!(f, "{error}; free it again"),
        }
    }
}

impl core::error::Error for NotFreed {}

impl<M> fmt::Display for FreeError<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.reason.fmt(f)
    }
}

impl<M: fmt::Debug> core::error::Error for FreeError<M> {}
