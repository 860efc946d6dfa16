//! Maps of devices behind an IOMMU: once the bytes are in their place, the entry that shows them.
// UNSAFETY: what the device reaches is mapped here.
#![expect(unsafe_code)]

use core::ptr::NonNull;

use super::raw::Held;
use super::raw::RawMapping;
use crate::addr::PhysRange;
use crate::addr::SLOT;
use crate::attrs::Attrs;
use crate::device::Device;
use crate::iommu::Fit;
use crate::platform::Platform;
use crate::reason::Refuse;
use crate::state::State;

impl<P: Platform + ?Sized> Device<'_, P> {
    /// Maps what a mapping holds in the device's domain, and gives the mapping its address.
    /// `buffer` is where the driver's buffer lies, if that is in one place.
    ///
    /// # Safety
    ///
    /// The mapping holds its memory in this state, with the bytes in their place, and the
    /// conditions of [`map_raw`](Self::map_raw) hold.
    pub(super) unsafe fn map_iommu(
        &self,
        mapping: &mut RawMapping,
        buffer: Option<PhysRange>,
        state: State,
    ) -> Result<(), Refuse> {
        let original = buffer.map_or(0, |range| range.base().raw());
        let mmio = mapping.attrs.contains(Attrs::MMIO);
        let entry = self.entry(mapping.direction, state, mmio); // sabotage: domain-entry-shared
        let range = match &mapping.place {
            Held::Open => None,
            Held::InPlace { .. } => buffer,
            Held::Slots { .. } => self.scrub(mapping),
        };
        // What lies in no single run is never mapped in place.
        let range = range.ok_or(Refuse::NoReachablePool)?;
        // SAFETY: in place the whole pages are pinned, or their state cannot change; slots are
        // whole pages that hold nothing else, and a pool's memory keeps its state.
        let (addr, entries) = unsafe { self.translate(range, Fit::Like(original), entry) }?;
        mapping.addr = addr;
        match &mut mapping.place {
            Held::InPlace { mapped, .. } | Held::Slots { mapped, .. } => *mapped = Some(entries),
            Held::Open => {}
        }
        Ok(())
    }

    /// Zeroes what lies beside the bytes of a mapping in its slots, and has all of it out of the
    /// caches. Answers where the bytes lie.
    pub(super) fn scrub(&self, mapping: &RawMapping) -> Option<PhysRange> {
        let Held::Slots { pool, run, at, .. } = &mapping.place else { return None };
        let pool = self.pool(*pool).filter(|pool| pool.holds(run))?;
        let (start, end) = (run.offset(), at.checked_add(mapping.len())?);
        let len = run.count().checked_mul(usize::try_from(SLOT).ok()?)?;
        // SAFETY: the slots are held by the mapping.
        unsafe { pool.bytes().zero(start, at.checked_sub(start)?) };
        // SAFETY: as above.
        // sabotage: iommu-rest-not-scrubbed
        unsafe { pool.bytes().zero(end, start.checked_add(len)?.checked_sub(end)?) };
        let whole = NonNull::slice_from_raw_parts(pool.bytes().at(start, len)?, len);
        self.platform().sync_for_device(whole, mapping.direction, !self.info().coherent);
        pool.range().slice(u64::try_from(*at).ok()?, u64::try_from(mapping.len()).ok()?)
    }
}
