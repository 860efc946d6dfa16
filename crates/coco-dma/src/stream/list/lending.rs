//! Lending the pieces of a list, and showing them in runs of addresses behind an IOMMU.
// UNSAFETY: raw buffers, as in `map`.
#![expect(unsafe_code)]

use core::cell::Cell;

use super::layout::Asked;
use super::layout::Part;
use super::layout::Walk;
use super::layout::base_of;
use super::wide;
use crate::addr::DmaAddr;
use crate::attrs::Attrs;
use crate::copy::barrier;
use crate::device::Device;
use crate::iommu::Fit;
use crate::iommu::PartialMap;
use crate::plan;
use crate::plan::MapRequest;
use crate::plan::PagePlace;
use crate::platform::Platform;
use crate::reason::Refuse;
use crate::state::Direction;
use crate::stream::map::Lent;
use crate::stream::map::NOWHERE;
use crate::stream::raw::Held;
use crate::stream::raw::RawMapping;

/// A run of addresses that is being put together: entries from `first` on.
struct Run {
    first: usize,
    original: u64,
    /// How far into its first page it begins, in bytes.
    pad: u64,
    /// Whole pages, in bytes.
    len: u64,
    last: PagePlace,
}

impl<P: Platform + ?Sized> Device<'_, P> {
    /// Lends all pieces, and has a domain show them in runs of addresses. On an error what was lent is in
    /// the entries.
    ///
    /// # Safety
    ///
    /// As for [`map_list`](Self::map_list).
    pub(super) unsafe fn lend_list(
        &self,
        asked: &Asked<'_>,
        entries: &mut [Option<RawMapping>],
    ) -> Result<(), (Option<usize>, Refuse)> {
        let (mut walk, mut index, page) = (Walk::default(), 0, self.iommu_page());
        let mut run = None::<Run>;
        while let Some(part) = self.next_part(asked, &mut walk) {
            let element = part.element;
            let Part { buffer, range, request, .. } = part;
            let failed = |reason| (Some(element), reason);
            // More pieces than were laid out: the state of memory changed meanwhile.
            let entry = entries.get_mut(index).ok_or(failed(Refuse::Busy))?;
            let owner = self.owner();
            let open =
                range.filter(|_| asked.attrs.is_empty()).and_then(|range| self.in_place(range));
            if let Some(addr) = open {
                barrier(buffer.as_ptr().cast());
                let (direction, attrs, place) = (asked.direction, asked.attrs, Held::Open);
                *entry = Some(RawMapping { owner, addr, buffer, direction, attrs, place });
                index += 1;
                continue;
            }
            let again = || MapRequest {
                device: request.device,
                ..self.request(range, request.len, asked.direction, asked.attrs)
            };
            // SAFETY: this function's conditions.
            let lent = unsafe { self.lend(&mut self.hand(), buffer, range, again) };
            let Lent { mapping, state, bounce, translate } = lent.map_err(failed)?;
            self.count_map(bounce);
            let mmio = mapping.attrs.contains(Attrs::MMIO);
            let pad = match &mapping.place {
                Held::Slots { run, at, .. } => wide(at.saturating_sub(run.offset())),
                Held::Open | Held::InPlace { .. } => base_of(range) & (page - 1),
            };
            *entry = Some(mapping);
            if translate {
                let next = PagePlace { pad, len: request.len, state, mmio };
                // The entries before this one are a run of their own.
                if let Some(done) =
                    run.take_if(|run| !run.last.joins(&next, page, &self.info().limits))
                {
                    // SAFETY: `lend` holds the memory of each in the state that joined them, the bytes
                    // are in their place, and the rest are this function's conditions.
                    unsafe { self.show(asked.direction, entries, done, index) }.map_err(failed)?;
                }
                let whole = pad.saturating_add(request.len).next_multiple_of(page);
                let original = base_of(range);
                let new = Run { first: index, original, pad, len: 0, last: next };
                let run = run.get_or_insert(new);
                run.len = run.len.saturating_add(whole);
                run.last = next;
            }
            index += 1;
        }
        match run {
            // SAFETY: as for the runs before.
            Some(run) => unsafe { self.show(asked.direction, entries, run, index) }
                .map_err(|reason| (None, reason)),
            None => Ok(()),
        }
    }

    /// Has the device's domain show the entries of a run up to `past` one behind the other, and gives
    /// them their addresses.
    ///
    /// # Safety
    ///
    /// The mappings hold their memory in the state of the run, with the bytes in their place, and the
    /// conditions of [`map_raw`](Self::map_raw) hold.
    unsafe fn show(
        &self,
        direction: Direction,
        entries: &mut [Option<RawMapping>],
        run: Run,
        past: usize,
    ) -> Result<(), Refuse> {
        let Run { first, original, pad, len, last } = run;
        let Some(entries) = entries.get_mut(first..past) else { return Err(Refuse::Busy) };
        let entry = self.entry(direction, last.state, last.mmio);
        let lost = Cell::new(false);
        let places = entries.iter().flatten().map_while(|mapping| {
            let place = match &mapping.place {
                Held::Slots { .. } => self.scrub(mapping),
                Held::Open | Held::InPlace { .. } => self.platform().locate(mapping.buffer),
            };
            lost.set(lost.get() | place.is_none());
            place.map(|place| self.shown(place))
        });
        let fit = Fit::List { original, align: plan::run_alignment(&self.info().limits, len) };
        // SAFETY: in place the whole pages are pinned, or their state cannot change; slots are whole
        // pages that hold nothing else.
        let made = unsafe { self.translate_runs(places, (len, fit), entry) };
        let (addr, mut mapped, failed) = match made {
            Ok((addr, mapped)) => (addr, Some(mapped), lost.get().then_some(Refuse::Revoked)),
            Err((reason, None)) => (NOWHERE, None, Some(reason)),
            Err((reason, Some(PartialMap { addr, mapped, .. }))) => {
                (addr, Some(mapped), Some(reason))
            }
        };
        let mut at = addr.raw().wrapping_add(pad);
        for mapping in entries.iter_mut().flatten() {
            mapping.addr = DmaAddr::new(at);
            at = at.wrapping_add(wide(mapping.len()));
            match &mut mapping.place {
                Held::InPlace { mapped: own, .. } | Held::Slots { mapped: own, .. } => {
                    *own = mapped.take();
                }
                Held::Open => {}
            }
        }
        failed.map_or(Ok(()), Err)
    }
}
