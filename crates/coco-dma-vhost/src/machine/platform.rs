//! The machine under the layer.
// UNSAFETY: the layer believes what a platform says of memory.
#![expect(unsafe_code)]

use core::ptr::NonNull;

use coco_dma::addr::PhysRange;
use coco_dma::platform::ConvertVerdict;
use coco_dma::platform::CpuView;
use coco_dma::platform::{ConvertError, NoView, Platform};
use coco_dma::regime::Regime;
use coco_dma::state::{CacheMode, Context, State};

use super::{Placed, UserMachine};

// SAFETY: 1. `regime` is a constant of the machine. 2. `locate` answers only for the mappings that
// the machine owns, linearly; what lies in a region may be replaced, its place is not. 3. `convert`
// replaces the memory of every region of the run or says how far it came; no device has memory of
// its own that is private. 4. `map_cpu` answers with the mappings themselves, readable and writable
// for the machine's whole life, in the state that each has; its devices are processes, which
// see the caches, so that every memory type is the same.
unsafe impl Platform for UserMachine {
    fn regime(&self) -> Regime {
        self.regime
    }

    fn locate(&self, bytes: NonNull<[u8]>) -> Option<PhysRange> {
        let len = u64::try_from(bytes.len()).ok()?;
        let private = self.arena.offset_of(bytes).map(|offset| (self.arena_range, offset));
        let range = private.or_else(|| {
            let within = |placed: &Placed| Some((placed.range, placed.region.offset_of(bytes)?));
            self.shared.iter().find_map(within)
        });
        let region = || {
            let regions = self.regions.as_ref()?;
            Some((regions.range, regions.offset_of(bytes)?))
        };
        let (range, offset) = range.or_else(region)?;
        range.slice(u64::try_from(offset).ok()?, len)
    }

    fn cpu(&self) -> usize {
        rustix::thread::sched_getcpu()
    }

    unsafe fn convert(&self, run: PhysRange, _: State, to: State) -> Result<(), ConvertError> {
        let never = u64::from(libc::EOPNOTSUPP.unsigned_abs());
        let regions = self.regions.as_ref().filter(|regions| regions.range.contains(run));
        let regions = regions.ok_or(ConvertError {
            done: 0,
            doubt: 0,
            code: never,
            verdict: ConvertVerdict::Never,
        })?;
        self.board.convert(regions, run, to == State::SHARED)
    }

    unsafe fn map_cpu(
        &self,
        run: PhysRange,
        state: State,
        _cache: CacheMode,
        _context: Context,
    ) -> Result<CpuView, NoView> {
        let fixed = match state {
            State::PRIVATE => Some((self.arena_range, self.arena.start())),
            State::SHARED => {
                let holds = |placed: &&Placed| placed.range.contains(run);
                let placed = self.shared.iter().find(holds);
                placed.map(|placed| (placed.range, placed.region.start()))
            }
            _ => return Err(NoView),
        };
        let region = || {
            let regions = self.regions.as_ref()?;
            let as_wanted = self.board.is(regions, run, state == State::SHARED);
            as_wanted.then_some((regions.range, regions.start()))
        };
        let fixed = fixed.filter(|(range, _)| range.contains(run));
        let (range, start) = fixed.or_else(region).ok_or(NoView)?;
        if !range.contains(run) {
            return Err(NoView);
        }
        let offset = run.base().offset_from(range.base()).ok_or(NoView)?;
        let offset = usize::try_from(offset).map_err(|_| NoView)?;
        // SAFETY: the run lies in the mapping that starts here.
        Ok(unsafe { start.add(offset) }.into())
    }
}
