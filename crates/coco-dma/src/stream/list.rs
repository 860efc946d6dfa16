//! Scatter lists: each segment is planned by itself; all are mapped or none.
// UNSAFETY: raw buffers, as in `map`.
#![expect(unsafe_code)]

use core::fmt;
use core::ptr::NonNull;

use super::MapError;
use super::RawMapping;
use super::UnmapRawError;
use crate::attrs::Attrs;
use crate::device::Device;
use crate::platform::Platform;
use crate::state::Direction;

/// A list of which one segment could not be mapped. None of it is, but for what an IOMMU could not
/// unmap again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ListError {
    /// This segment was refused.
    Segment {
        /// Its number, from 0 on.
        index: usize,
        /// Why.
        error: MapError,
        /// Segments before it that could not be unmapped again: their records are in their
        /// entries, to be finished with nothing written.
        still_mapped: usize,
    },
    /// There is room for fewer records than the list has segments.
    Records {
        /// Segments.
        wanted: usize,
        /// Records.
        given: usize,
    },
}

impl fmt::Display for ListError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Segment { index, error, still_mapped: 0 } => {
                write!(f, "segment {index}: {error}")
            }
            Self::Segment { index, error, still_mapped } => {
                write!(f, "segment {index}: {error}; {still_mapped} before it are still mapped")
            }
            Self::Records { wanted, given } => {
                write!(f, "a list of {wanted} segments needs as many records, not {given}")
            }
        }
    }
}

impl core::error::Error for ListError {}

/// A list of which some maps did not end. Their records are in their entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListUnfinished {
    /// Records of another device.
    pub not_this_device: usize,
    /// Maps that the IOMMU could not unmap.
    pub still_mapped: usize,
}

impl fmt::Display for ListUnfinished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { not_this_device, still_mapped } = self;
        write!(
            f,
            "{still_mapped} maps of a list could not be unmapped, and {not_this_device} are "
        )?;
        f.write_str("another device's; finish those that are left one by one")
    }
}

impl core::error::Error for ListUnfinished {}

impl<P: Platform + ?Sized> Device<'_, P> {
    /// Maps the buffers of a list, each by its own plan, and puts the records into the first
    /// entries of `records`, which have to be empty. Where a segment is refused, those before it
    /// are unmapped again, last first, without copying anything back. Never blocks.
    ///
    /// # Safety
    ///
    /// As for [`map_raw`](Self::map_raw), for every buffer.
    pub unsafe fn map_list(
        &self,
        buffers: &[NonNull<[u8]>],
        direction: Direction,
        attrs: Attrs,
        records: &mut [Option<RawMapping>],
    ) -> Result<(), ListError> {
        let (wanted, given) = (buffers.len(), records.len());
        let records = records.get_mut(..wanted).ok_or(ListError::Records { wanted, given })?;
        if records.iter().any(Option::is_some) {
            return Err(ListError::Records { wanted, given: 0 });
        }
        for (index, buffer) in buffers.iter().enumerate() {
            // SAFETY: the caller's conditions.
            match unsafe { self.map_raw(*buffer, direction, attrs) } {
                Ok(mapping) => {
                    if let Some(record) = records.get_mut(index) {
                        *record = Some(mapping);
                    }
                }
                Err(error) => {
                    self.look_at_used();
                    // SAFETY: no device was given an address.
                    let ended = unsafe { self.unmap_list(records, 0) };
                    let still_mapped = ended.map_or_else(|left| left.still_mapped, |()| 0);
                    return Err(ListError::Segment { index, error, still_mapped });
                }
            }
        }
        Ok(())
    }

    /// Ends the maps of a list, last first; the device wrote the first `written` bytes of all of
    /// it. Never blocks.
    ///
    /// # Errors
    ///
    /// Some did not end, for the reasons of [`unmap_raw`](Self::unmap_raw): their records are
    /// in their entries as they were, while those of the others are empty. Finish what is left
    /// one by one: where in the list its bytes lie is no longer to be seen.
    ///
    /// # Safety
    ///
    /// As for [`unmap_raw`](Self::unmap_raw), for every record.
    pub unsafe fn unmap_list(
        &self,
        records: &mut [Option<RawMapping>],
        written: usize,
    ) -> Result<(), ListUnfinished> {
        let mut before: usize = records.iter().flatten().map(RawMapping::len).sum();
        let mut left = ListUnfinished { not_this_device: 0, still_mapped: 0 };
        for record in records.iter_mut().rev() {
            let Some(mapping) = record.take() else { continue };
            before -= mapping.len().min(before);
            let arrived = written.saturating_sub(before);
            // SAFETY: the caller's conditions.
            if let Err(error) = unsafe { self.unmap_raw(mapping, arrived) } {
                match &error {
                    UnmapRawError::NotThisDevice(_) => left.not_this_device += 1,
                    UnmapRawError::StillMapped(..) => left.still_mapped += 1,
                }
                *record = Some(error.into_mapping());
            }
        }
        if left.not_this_device + left.still_mapped == 0 { Ok(()) } else { Err(left) }
    }
}
