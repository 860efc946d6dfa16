//! Errors of streaming maps: each says who, what and the way out.

use core::fmt;

use super::RawMapping;
use crate::reason::Refuse;
use crate::state::Memory;

/// A map that was refused. Nothing was changed and nothing is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapError<'d> {
    /// The device's name.
    pub device: &'d str,
    /// Why.
    pub reason: Refuse,
    /// Length of the buffer in bytes.
    pub len: usize,
    /// What is known about its memory.
    pub memory: Memory,
}

impl fmt::Display for MapError<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { device, reason, len, memory } = self;
        write!(f, "{device}: a map of {len} bytes of {memory} memory was refused ({reason}): ")?;
        write!(f, "{}; {}", reason.text(), reason.way_out())
    }
}

impl core::error::Error for MapError<'_> {}

/// The mapping is another device's. It comes back untouched.
#[derive(Debug)]
pub struct NotThisDevice(pub RawMapping);

impl fmt::Display for NotThisDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the mapping was made by another device; finish it there")
    }
}

impl core::error::Error for NotThisDevice {}
