//! Telling the observer of allocations, once they are complete and counted. Where it panics at one,
//! the memory is freed on the way out.
// UNSAFETY: memory that nobody was given is freed.
#![expect(unsafe_code)]

use core::mem;
use core::mem::ManuallyDrop;

use super::RawCoherent;
use super::raw::Source;
use crate::device::Device;
use crate::observe::Event;
use crate::observe::Form;
use crate::observe::MapInfo;
use crate::platform::Platform;
use crate::state::Direction;

impl<P: Platform + ?Sized> Device<'_, P> {
    /// An allocation as events tell of it.
    #[cold]
    pub(super) fn lent_alloc(&self, memory: &RawCoherent) -> MapInfo<'_> {
        let (phys, form) = match &memory.source {
            Source::Pages { run, .. } => (Some(run.base()), Form::Direct),
            Source::Slots { pool, run } => {
                let range = self.pool(*pool).map(|pool| pool.range());
                let first = range.and_then(|range| range.base().checked_add(run.offset() as u64));
                (first, self.form(*pool))
            }
        };
        MapInfo {
            device: self.name(),
            direction: Direction::Both,
            phys,
            addr: memory.addr,
            len: memory.len,
            attrs: memory.made.options.attrs,
            form,
        }
    }

    /// Tells of an allocation that was made.
    #[cold]
    #[inline(never)]
    pub(super) fn tell_allocated(&self, memory: RawCoherent) -> RawCoherent {
        let mut guard = AllocGuard { device: self, memory: ManuallyDrop::new(memory) };
        let (lent, context) = (self.lent_alloc(&guard.memory), guard.memory.made.options.context);
        self.dma().notify(&Event::Allocated { lent, context });
        // SAFETY: the guard is forgotten in the next line, so that this is the only use.
        let memory = unsafe { ManuallyDrop::take(&mut guard.memory) };
        mem::forget(guard);
        memory
    }
}

/// Frees an allocation when it is dropped.
struct AllocGuard<'g, 'd, P: Platform + ?Sized> {
    device: &'g Device<'d, P>,
    memory: ManuallyDrop<RawCoherent>,
}

impl<P: Platform + ?Sized> Drop for AllocGuard<'_, '_, P> {
    fn drop(&mut self) {
        // SAFETY: a drop comes once, and last.
        let memory = unsafe { ManuallyDrop::take(&mut self.memory) };
        // SAFETY: nobody has the address or the pointer yet.
        let _kept = unsafe { self.device.free_untold(memory) };
    }
}
