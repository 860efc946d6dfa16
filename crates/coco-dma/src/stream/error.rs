//! Errors of streaming maps: each says who, what and the way out.

use core::fmt;

use super::RawMapping;
use crate::iommu::UnmapError;
use crate::name::Name;
use crate::reason::Refuse;
use crate::state::Memory;

/// A map that was refused. Nothing was changed and nothing is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapError {
    /// The device's name.
    pub device: Name,
    /// Why.
    pub reason: Refuse,
    /// Length of the buffer in bytes.
    pub len: usize,
    /// What is known about its memory.
    pub memory: Memory,
}

impl fmt::Display for MapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { device, reason, len, memory } = self;
        write!(f, "{device}: a map of {len} bytes of {memory} memory was refused ({reason}): ")?;
        write!(f, "{}; {}", reason.text(), reason.way_out())
    }
}

impl core::error::Error for MapError {}

/// A map of an owned buffer that was refused, and the buffer, untouched.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct MapFailed<B> {
    error: MapError,
    buffer: B,
}

impl<B> MapFailed<B> {
    pub(super) fn new(error: MapError, buffer: B) -> Self {
        Self { error, buffer }
    }

    /// Who was refused what, why, and the way out.
    pub fn error(&self) -> MapError {
        self.error
    }

    /// The buffer.
    pub fn into_buffer(self) -> B {
        self.buffer
    }

    /// Both.
    pub fn into_parts(self) -> (MapError, B) {
        (self.error, self.buffer)
    }
}

/// The error, never the bytes: what is in a buffer has no place in a log.
impl<B> fmt::Debug for MapFailed<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MapFailed").field("error", &self.error).finish_non_exhaustive()
    }
}

impl<B> fmt::Display for MapFailed<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl<B> core::error::Error for MapFailed<B> {}

/// For `?`, where the buffer is of no more use: it is dropped.
impl<B> From<MapFailed<B>> for MapError {
    fn from(failed: MapFailed<B>) -> Self {
        failed.error
    }
}

/// A map that did not end. Its record comes back with all that it holds, and nothing was copied.
#[derive(Debug)]
pub enum UnmapRawError {
    /// The mapping is another device's; finish it there.
    NotThisDevice(RawMapping),
    /// The IOMMU could not unmap it: the device may still reach what the mapping holds, so that
    /// neither its slots nor its pin nor its addresses can be anybody else's. Finishing it again
    /// tries again; dropped, it holds them for good.
    StillMapped(RawMapping, UnmapError),
}

impl UnmapRawError {
    /// The mapping.
    pub fn into_mapping(self) -> RawMapping {
        match self {
            Self::NotThisDevice(mapping) | Self::StillMapped(mapping, _) => mapping,
        }
    }
}

impl fmt::Display for UnmapRawError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotThisDevice(_) => {
                f.write_str("the mapping was made by another device; finish it there")
            }
            Self::StillMapped(_, error) => write!(f, "{error}; finish it again"),
        }
    }
}

impl core::error::Error for UnmapRawError {}
