//! Scatter lists: each segment is planned by itself; all are mapped or none.
// UNSAFETY: raw buffers, as in `map`.
#![expect(unsafe_code)]

use core::fmt;
use core::ptr::NonNull;

use super::MapError;
use super::RawMapping;
use crate::attrs::Attrs;
use crate::device::Device;
use crate::platform::Platform;
use crate::state::Direction;

/// A list of which one segment could not be mapped. None of it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ListError {
    /// This segment was refused.
    Segment {
        /// Its number, from 0 on.
        index: usize,
        /// Why.
        error: MapError,
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
            Self::Segment { index, error } => write!(f, "segment {index}: {error}"),
            Self::Records { wanted, given } => {
                write!(f, "a list of {wanted} segments needs as many records, not {given}")
            }
        }
    }
}

impl core::error::Error for ListError {}

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
                    // SAFETY: no device was given an address.
                    unsafe { self.finish_list(records, 0) };
                    return Err(ListError::Segment { index, error });
                }
            }
        }
        Ok(())
    }

    /// Ends the maps of a list, last first; the device wrote the first `written` bytes of all of
    /// it. Records of other devices, and empty ones, stay as they are. Never blocks.
    ///
    /// # Safety
    ///
    /// As for [`finish_raw`](Self::finish_raw), for every record.
    pub unsafe fn finish_list(&self, records: &mut [Option<RawMapping>], written: usize) {
        let mut before: usize = records.iter().flatten().map(RawMapping::len).sum();
        for record in records.iter_mut().rev() {
            let Some(mapping) = record.take() else { continue };
            before -= mapping.len().min(before);
            let arrived = written.saturating_sub(before);
            // SAFETY: the caller's conditions.
            if let Err(other) = unsafe { self.finish_raw(mapping, arrived) } {
                *record = Some(other.0);
            }
        }
    }
}
