//! What may be done with the record of an allocation while it lives: how the CPU maps parts of it,
//! and the syncs of memory that is not coherent.

use core::ptr::NonNull;

use super::raw::RawCoherent;
use crate::device::Device;
use crate::plan;
use crate::plan::AllocKind;
use crate::plan::MmapRequest;
use crate::plan::Protection;
use crate::plan::Trace;
use crate::platform::Platform;
use crate::reason::Refuse;
use crate::state::Direction;

impl<P: Platform + ?Sized> Device<'_, P> {
    /// How a part of an allocation of this device is mapped, for the kernel or for user space:
    /// `part` bytes from `offset` on. By the record alone, whatever the device is now. Any
    /// context. Another device's record is `OutOfBounds`.
    pub fn mmap(
        &self,
        memory: &RawCoherent,
        offset: u64,
        part: u64,
        trace: &mut impl Trace,
    ) -> Result<Protection, Refuse> {
        if memory.owner != self.owner() {
            return Err(Refuse::OutOfBounds);
        }
        let request = MmapRequest {
            regime: self.regime(),
            kind: memory.made.wish.kind,
            state: memory.made.state,
            coherent: self.face().coherent,
            attrs: memory.made.wish.attrs,
            len: u64::try_from(memory.len).unwrap_or(0),
            offset,
            part,
        };
        plan::mmap(&request, trace)
    }

    /// Shows the device what the driver wrote into an allocation that is not coherent. Nothing
    /// happens to coherent memory, or to another device's. Any context.
    pub fn sync_alloc_for_device(&self, memory: &RawCoherent, direction: Direction) {
        if let Some(bytes) = self.synced(memory) {
            self.platform().hand_over(bytes, direction, true);
        }
    }

    /// Lets the driver see what the device wrote into an allocation that is not coherent.
    pub fn sync_alloc_for_cpu(&self, memory: &RawCoherent, direction: Direction) {
        if let Some(bytes) = self.synced(memory) {
            self.platform().take_back(bytes, direction, true);
        }
    }

    /// The bytes of an allocation where it needs syncs.
    fn synced(&self, memory: &RawCoherent) -> Option<NonNull<[u8]>> {
        let needed = memory.owner == self.owner()
            && !self.face().coherent
            && memory.made.wish.kind != AllocKind::Coherent;
        needed.then(|| memory.bytes())
    }
}
