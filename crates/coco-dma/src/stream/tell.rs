//! Telling the observer of maps. The record is complete, and everything counted, before it hears of
//! it: it may call the layer. Where it panics at a map that was made, the map is ended on the way
//! out, since nobody will have its record.
// UNSAFETY: a map whose address nobody was given is taken out of its domain.
#![expect(unsafe_code)]

use core::mem;
use core::ops::Range;

use super::raw::Held;
use super::raw::RawMapping;
use crate::addr::DmaAddr;
use crate::addr::PhysRange;
use crate::device::Device;
use crate::observe::BounceCause;
use crate::observe::Event;
use crate::observe::Form;
use crate::observe::MapInfo;
use crate::observe::SyncFor;
use crate::platform::Platform;
use crate::pool::Pool;
use crate::pool::SlotAlloc;
use crate::pool::SlotRun;
use crate::reason::Bounce;

impl<P: Platform + ?Sized> Device<'_, P> {
    /// A map as events tell of it.
    #[cold]
    pub(super) fn map_info(&self, mapping: &RawMapping) -> MapInfo<'_> {
        let form = match &mapping.place {
            Held::Open | Held::InPlace { .. } => Form::Direct,
            Held::Slots { pool, .. } => self.form(*pool),
        };
        let RawMapping { addr, direction, attrs, .. } = *mapping;
        let (device, len) = (self.name(), mapping.len());
        MapInfo { device, direction, phys: None, addr, len, attrs, form }
    }

    /// Tells of a map that was made.
    #[cold]
    #[inline(never)]
    pub(super) fn tell_mapped(
        &self,
        hand: &mut impl SlotAlloc,
        mapping: &mut RawMapping,
        range: Option<PhysRange>,
        bounce: Option<Bounce>,
    ) {
        let lent = self.map_info(mapping);
        let place = mem::replace(&mut mapping.place, Held::Open);
        let mut guard = MapGuard { device: self, hand, place };
        self.notify_mapped(lent, range, bounce);
        mapping.place = mem::replace(&mut guard.place, Held::Open);
    }

    /// The events of a map that was made of `range`.
    pub(super) fn notify_mapped(
        &self,
        lent: MapInfo<'_>,
        range: Option<PhysRange>,
        bounce: Option<Bounce>,
    ) {
        let lent = MapInfo { phys: range.map(PhysRange::base), ..lent };
        if let Some(reason) = bounce {
            let MapInfo { device, addr, len, .. } = lent;
            self.dma().notify(&Event::Bounced { device, addr, len, reason });
        }
        if self.dma().tells_maps() {
            let in_place = range.and_then(|range| self.info().bus.to_bus(range));
            let (in_place, limit) = (in_place.map(DmaAddr::new), self.info().limit());
            let bounce = bounce.map(|reason| BounceCause { reason, in_place, limit });
            self.dma().notify(&Event::Mapped { lent, bounce });
        }
    }

    /// Tells of a bounce on the fast path.
    #[cold]
    #[inline(never)]
    pub(super) fn tell_fast(
        &self,
        hand: &mut impl SlotAlloc,
        pool: &Pool<'_>,
        run: &SlotRun,
        event: &Event<'_>,
    ) {
        let mut guard = RunGuard { device: self, hand, pool, run: Some(run) };
        self.dma().notify(event);
        guard.run = None;
    }

    /// Tells of a sync of a part, as far as it lies in the mapping.
    #[inline]
    pub(super) fn tell_synced(&self, mapping: &RawMapping, part: Range<usize>, to: SyncFor) {
        if self.dma().tells_maps() && mapping.owner == self.owner() {
            let whole = self.map_info(mapping);
            let end = part.end.min(whole.len);
            let start = part.start.min(end);
            let addr = DmaAddr::new(whole.addr.raw().wrapping_add(start as u64));
            let lent = MapInfo { addr, len: end - start, ..whole };
            self.dma().notify(&Event::Synced { lent, to });
        }
    }
}

/// Ends a map when it is dropped, unless its place was taken out.
struct MapGuard<'g, 'd, P: Platform + ?Sized, H: SlotAlloc> {
    device: &'g Device<'d, P>,
    hand: &'g mut H,
    place: Held,
}

impl<P: Platform + ?Sized, H: SlotAlloc> Drop for MapGuard<'_, '_, P, H> {
    fn drop(&mut self) {
        let place = mem::replace(&mut self.place, Held::Open);
        if matches!(place, Held::Open) {
            return;
        }
        // SAFETY: nobody has the address yet.
        if unsafe { self.device.untranslate(place.mapped()) }.is_ok() {
            self.device.release(self.hand, place);
            self.device.count().unmapped();
        }
    }
}

/// Frees slots of the fast path when it is dropped, unless they were taken out.
struct RunGuard<'g, 'd, P: Platform + ?Sized, H: SlotAlloc> {
    device: &'g Device<'d, P>,
    hand: &'g mut H,
    pool: &'g Pool<'g>,
    run: Option<&'g SlotRun>,
}

impl<P: Platform + ?Sized, H: SlotAlloc> Drop for RunGuard<'_, '_, P, H> {
    fn drop(&mut self) {
        if let Some(run) = self.run {
            self.device.free_fast(self.hand, self.pool, run);
        }
    }
}
