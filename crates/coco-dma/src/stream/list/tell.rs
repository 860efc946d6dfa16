//! Telling the observer of lists, when all of one has its addresses, or no more of it can be had.
// UNSAFETY: a list whose addresses nobody was given is taken out of its domain.
#![expect(unsafe_code)]

use core::mem;

use super::RawList;
use super::layout::Asked;
use super::layout::Walk;
use crate::device::Device;
use crate::plan;
use crate::plan::Plan;
use crate::platform::Platform;
use crate::stream::raw::RawMapping;

impl<P: Platform + ?Sized> Device<'_, P> {
    /// Tells of what was lent of a list, piece by piece. Where the observer panics, the list is ended on
    /// the way out, since nobody will have its record.
    ///
    /// Why a piece bounces is no part of its record: `plan` is asked once more, for the observer alone,
    /// and where the state of its memory has changed meanwhile its bounce is not told.
    #[cold]
    #[inline(never)]
    pub(super) fn tell_list<'s>(&self, asked: &Asked<'_>, list: RawList<'s>) -> RawList<'s> {
        let RawList { owner, limits, translated, entries } = list;
        let mut guard = ListGuard { device: self, entries };
        let mut walk = Walk::default();
        for mapping in guard.entries.iter().flatten() {
            let Some(part) = self.next_part(asked, &mut walk) else { break };
            let bounce = match plan::map(&part.request, &mut ()) {
                Plan::Bounce { reason, .. } if mapping.is_bounced() => Some(reason),
                _ => None,
            };
            self.notify_mapped(self.map_info(mapping), part.range, bounce);
        }
        RawList { owner, limits, translated, entries: mem::take(&mut guard.entries) }
    }
}

/// Ends a list when it is dropped, unless its entries were taken out.
struct ListGuard<'g, 's, 'd, P: Platform + ?Sized> {
    device: &'g Device<'d, P>,
    entries: &'s mut [Option<RawMapping>],
}

impl<P: Platform + ?Sized> Drop for ListGuard<'_, '_, '_, P> {
    fn drop(&mut self) {
        // SAFETY: nobody has the addresses yet.
        if unsafe { self.device.untranslate_list(self.entries) }.is_err() {
            return;
        }
        for mapping in self.entries.iter_mut().filter_map(Option::take) {
            self.device.release(&mut self.device.hand(), mapping.place);
            self.device.count().unmapped();
        }
    }
}
