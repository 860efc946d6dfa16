//! What may be done with the record of an allocation while it lives: how the CPU maps parts of it,
//! and the syncs of memory that is not coherent.

use super::raw::AllocInfo;
use super::raw::RawCoherent;
use super::scattered::RawScattered;
use crate::device::Device;
use crate::plan;
use crate::plan::AllocKind;
use crate::plan::MmapRequest;
use crate::plan::Protection;
use crate::plan::Trace;
use crate::platform::Platform;
use crate::pool::Owner;
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
        self.mmap_record((memory.owner, &memory.made, memory.len), offset, part, trace)
    }

    /// The same for a scattered allocation: each of its runs is mapped so, in their order.
    pub fn mmap_scattered(
        &self,
        memory: &RawScattered<'_>,
        offset: u64,
        part: u64,
        trace: &mut impl Trace,
    ) -> Result<Protection, Refuse> {
        self.mmap_record(memory.record(), offset, part, trace)
    }

    fn mmap_record(
        &self,
        (owner, made, len): (Owner, &AllocInfo, usize),
        offset: u64,
        part: u64,
        trace: &mut impl Trace,
    ) -> Result<Protection, Refuse> {
        if owner != self.owner() {
            return Err(Refuse::OutOfBounds);
        }
        let request = MmapRequest {
            regime: self.regime(),
            kind: made.options.kind,
            state: made.state,
            coherent: self.info().coherent,
            attrs: made.options.attrs,
            len: u64::try_from(len).unwrap_or(0),
            offset,
            part,
        };
        plan::mmap(&request, trace)
    }

    /// Shows the device what the driver wrote into an allocation that is not coherent. Nothing
    /// happens to coherent memory, or to another device's. Any context.
    pub fn sync_alloc_for_device(&self, memory: &RawCoherent, direction: Direction) {
        if self.is_synced(memory.owner, &memory.made) {
            self.platform().sync_for_device(memory.bytes(), direction, true);
        }
    }

    /// Lets the driver see what the device wrote into an allocation that is not coherent.
    pub fn sync_alloc_for_cpu(&self, memory: &RawCoherent, direction: Direction) {
        if self.is_synced(memory.owner, &memory.made) {
            self.platform().sync_for_cpu(memory.bytes(), direction, true);
        }
    }

    /// [`sync_alloc_for_device`](Self::sync_alloc_for_device) of all runs of a scattered allocation.
    pub fn sync_scattered_for_device(&self, memory: &RawScattered<'_>, direction: Direction) {
        if self.is_synced_in_runs(memory) {
            memory.runs().for_each(|run| self.platform().sync_for_device(run, direction, true));
        }
    }

    /// [`sync_alloc_for_cpu`](Self::sync_alloc_for_cpu) of all runs of a scattered allocation.
    pub fn sync_scattered_for_cpu(&self, memory: &RawScattered<'_>, direction: Direction) {
        if self.is_synced_in_runs(memory) {
            memory.runs().for_each(|run| self.platform().sync_for_cpu(run, direction, true));
        }
    }

    fn is_synced_in_runs(&self, memory: &RawScattered<'_>) -> bool {
        let (owner, made, _) = memory.record();
        self.is_synced(owner, made)
    }

    /// Whether an allocation is this device's and needs syncs.
    fn is_synced(&self, owner: Owner, made: &AllocInfo) -> bool {
        // sabotage: driver-synced-pages
        owner == self.owner() && !self.info().coherent && made.options.kind != AllocKind::Coherent
    }
}
