//! The raw form of an allocation: a pointer into memory that the device may write at any time.
// UNSAFETY: raw memory that a device writes behind the compiler's back.
#![expect(unsafe_code)]

use core::fmt;
use core::ptr::NonNull;

use crate::addr::DmaAddr;
use crate::attrs::Attrs;
use crate::device::Device;
use crate::plan;
use crate::plan::MapRequest;
use crate::plan::Place;
use crate::plan::Plan;
use crate::platform::Platform;
use crate::pool::SlotRun;
use crate::reason::Refuse;
use crate::state::Direction;

/// Allocations are multiples of this, in bytes, and aligned to it.
const PAGE: u64 = 4096;

/// The record of one allocation: what it was taken from and what the device was given.
#[derive(Debug)]
#[must_use = "memory that is not freed is lost"]
pub struct RawCoherent {
    device: usize,
    pool: usize,
    run: SlotRun,
    addr: DmaAddr,
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: the record only carries the pointer; whoever uses it answers for it.
unsafe impl Send for RawCoherent {}

impl RawCoherent {
    /// The address for the device.
    pub fn addr(&self) -> DmaAddr {
        self.addr
    }

    /// The memory as the CPU sees it. The device may write it at any time: read and write it
    /// through the pointer, never through a reference.
    pub fn bytes(&self) -> NonNull<[u8]> {
        NonNull::slice_from_raw_parts(self.start, self.len)
    }
}

/// An allocation that was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AllocError<'d> {
    /// The device's name.
    pub device: &'d str,
    /// Why.
    pub reason: Refuse,
    /// Bytes asked for.
    pub len: usize,
}

impl fmt::Display for AllocError<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { device, reason, len } = self;
        write!(f, "{device}: an allocation of {len} bytes was refused ({reason}): ")?;
        write!(f, "{}; {}", reason.text(), reason.way_out())
    }
}

impl core::error::Error for AllocError<'_> {}

impl<'d, P: Platform + ?Sized> Device<'d, P> {
    /// Allocates `len` bytes that the device reaches, rounded up to pages of 4096 and aligned to
    /// one, zeroed. Never blocks.
    pub fn alloc_raw(&self, len: usize) -> Result<RawCoherent, AllocError<'d>> {
        let refused = |reason| AllocError { device: self.name(), reason, len };
        let asked = u64::try_from(len).ok().and_then(|len| len.checked_next_multiple_of(PAGE));
        let Some(whole) = asked.filter(|whole| *whole > 0) else {
            return Err(refused(Refuse::InvalidRange));
        };
        // Memory that lies nowhere yet: plan names the pools that this device reaches.
        let request = MapRequest {
            place: Place::Unlocated,
            align: PAGE,
            ..self.request(None, whole, Direction::Both, Attrs::NONE)
        };
        let pools = match plan::map(&request, &mut ()) {
            Plan::Bounce { pools, .. } => pools,
            Plan::Refuse(reason) => return Err(refused(reason)),
            Plan::Direct { .. } => return Err(refused(Refuse::NoPool)),
        };
        for candidate in pools {
            let Some(pool) = self.pool(candidate.index) else { continue };
            let Ok(run) = pool.take(&candidate.places) else { continue };
            let offset = run.offset();
            let addr = u64::try_from(offset).ok().and_then(|at| candidate.base?.checked_add(at));
            let size = usize::try_from(whole).unwrap_or(0);
            let (Some(addr), Some(start)) = (addr, pool.bytes().at(offset, size)) else {
                pool.give(run);
                continue;
            };
            // SAFETY: the slots are ours.
            unsafe { pool.bytes().zero(offset, size) };
            let pool = candidate.index;
            return Ok(RawCoherent { device: self.id(), pool, run, addr, start, len: size });
        }
        Err(refused(Refuse::PoolFull))
    }

    /// Frees an allocation of this device; another device's comes back.
    ///
    /// # Safety
    ///
    /// The device has stopped using it, and nobody uses the pointer any more.
    pub unsafe fn free_raw(&self, memory: RawCoherent) -> Result<(), RawCoherent> {
        if memory.device != self.id() {
            return Err(memory);
        }
        if let Some(pool) = self.pool(memory.pool) {
            pool.give(memory.run);
        }
        Ok(())
    }
}
