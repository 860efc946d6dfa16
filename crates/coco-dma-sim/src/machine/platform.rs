//! The machine as the layer sees it.
// UNSAFETY: the trait is unsafe to implement.
#![expect(unsafe_code)]

use std::ptr::NonNull;
use std::sync::atomic::Ordering;
use std::sync::atomic::fence;
use std::thread;

use coco_dma::addr::MemoryMap;
use coco_dma::addr::PhysRange;
use coco_dma::platform::ConvertError;
use coco_dma::platform::ConvertVerdict;
use coco_dma::platform::CpuView;
use coco_dma::platform::NoView;
use coco_dma::platform::Platform;
use coco_dma::regime::Regime;
use coco_dma::state::CacheMode;
use coco_dma::state::Context;
use coco_dma::state::Direction;
use coco_dma::state::State;
use coco_dma::state::Visibility;

use super::Live;
use super::Machine;
use super::Violation;
use super::code;
use super::record::View;
use crate::eye::Moment;
use crate::eye::Step;
use crate::number;
use crate::ram::GranuleState;

// SAFETY: 1. the regime is set when the machine is built. 2. `locate` answers from the addresses
// of the memory itself. 3. `convert` changes all granules or none. 4. RAM stays readable and
// writable to this process in every state, and a view is a pointer to it.
unsafe impl Platform for Machine {
    fn regime(&self) -> Regime {
        *self.rules()
    }

    fn memory(&self) -> MemoryMap<'_> {
        let inner = &self.inner;
        MemoryMap { present: &inner.present, ceiling: inner.ceiling }
    }

    fn cpu(&self) -> usize {
        self.inner.cpu.load(Ordering::Relaxed)
    }

    fn locate(&self, bytes: NonNull<[u8]>) -> Option<PhysRange> {
        self.live().ram.locate(bytes)
    }

    unsafe fn convert(&self, run: PhysRange, from: State, to: State) -> Result<(), ConvertError> {
        let _ = from;
        self.live().convert(self.rules(), run, to)
    }

    unsafe fn map_cpu(
        &self,
        run: PhysRange,
        state: State,
        cache: CacheMode,
        _: Context,
    ) -> Result<CpuView, NoView> {
        let mut live = self.live();
        live.look(Moment::View);
        if let Some((at, found)) = live.ram.first_not(run, state) {
            // What the host destroyed is its own doing.
            if found != Some(GranuleState::Lost) {
                live.violations.push(Violation::WrongView { run, asked: state, at, found });
            }
            return Err(NoView);
        }
        let start = live.ram.pointer(run, cache).ok_or(NoView)?;
        if cache != CacheMode::WriteBack {
            live.ram.drop_lines(run);
        }
        live.counts.views += 1;
        // No two views have the same: one that comes back with another's is not its own.
        let cookie = usize::try_from(live.counts.views).map_err(|_| NoView)?;
        live.views.push(View { start: start.addr().get(), cookie, run, cache });
        Ok(CpuView { start, cookie })
    }

    unsafe fn unmap_cpu(&self, view: CpuView, run: PhysRange) {
        let mut live = self.live();
        live.look(Moment::View);
        let CpuView { start, cookie } = view;
        let known =
            |view: &View| (view.start, view.cookie, view.run) == (start.addr().get(), cookie, run);
        match live.views.iter().position(known) {
            Some(place) => {
                let View { cache, .. } = live.views.swap_remove(place);
                if cache != CacheMode::WriteBack {
                    // Nobody saw it through the caches meanwhile: they fetch it anew.
                    live.ram.drop_lines(run);
                }
            }
            None => live.violations.push(Violation::UnknownView { run }),
        }
    }

    fn sync_for_device(&self, bytes: NonNull<[u8]>, _: Direction, cache_work: bool) {
        fence(Ordering::SeqCst);
        let mut live = self.live();
        if let Some(run) = live.ram.cached(bytes).filter(|_| cache_work) {
            live.ram.clean(run);
        }
        live.counts.hand_overs += 1;
        live.look(Moment::HandOver);
    }

    fn sync_for_cpu(&self, bytes: NonNull<[u8]>, _: Direction, cache_work: bool) {
        fence(Ordering::SeqCst);
        let mut live = self.live();
        if let Some(run) = live.ram.cached(bytes).filter(|_| cache_work) {
            live.ram.drop_lines(run);
        }
        live.counts.take_backs += 1;
        live.look(Moment::TakeBack);
    }
}

impl Live {
    fn convert(&mut self, rules: &Regime, run: PhysRange, to: State) -> Result<(), ConvertError> {
        match to {
            State::Guest(Visibility::Shared) => self.counts.shares += 1,
            State::Guest(Visibility::Private) => self.counts.reclaims += 1,
            _ => {}
        }
        if self.atomic.contains(&thread::current().id()) {
            self.violations.push(Violation::ConvertedInAtomic { run });
        }
        // An open machine has one state, and nothing to convert.
        if rules.states().len() < 2 || !rules.states().contains(&to) {
            self.violations.push(Violation::NothingConverts { run });
            return Err(ConvertError {
                done: 0,
                doubt: 0,
                code: code::NOTHING_CONVERTS,
                verdict: ConvertVerdict::Never,
            });
        };
        if !run.is_aligned(rules.granule()) || !self.ram.has(run) {
            self.violations.push(Violation::NotGranules { run });
            return Err(ConvertError {
                done: 0,
                doubt: 0,
                code: code::NOT_GRANULES,
                verdict: ConvertVerdict::Retry,
            });
        }
        let views = self.views.iter().filter(|view| view.run.overlaps(run));
        self.violations
            .extend(views.map(|view| Violation::ConvertedUnderView { run, view: view.run }));
        for part in number::granules(run, rules.granule()) {
            self.convert_granule(part, to);
        }
        Ok(())
    }

    /// One granule, in the order in which nobody sees what is not for them: the bytes go before
    /// the host may look, and change after it may no more.
    fn convert_granule(&mut self, part: PhysRange, to: State) {
        let Some(from) = self.ram.state(part.base()) else { return };
        let wanted = GranuleState::In(to);
        let lent = matches!(to, State::SHARED | State::PLAIN);
        if from == wanted {
            // Who tries again what was in doubt meets such granules.
            self.counts.already += 1;
            return;
        }
        // A platform has what it converts out of the caches: their lines carry the old state.
        self.ram.drop_lines(part);
        self.look_near(part, to, Step::Before);
        if lent {
            self.ram.take_effect(part, from, lent);
        } else {
            self.ram.set_state(part, wanted);
        }
        self.look_near(part, to, Step::Between);
        if lent {
            self.ram.set_state(part, wanted);
        } else {
            self.ram.take_effect(part, from, lent);
        }
        self.look_near(part, to, Step::After);
        self.counts.converted += 1;
    }

    fn look_near(&mut self, granule: PhysRange, to: State, step: Step) {
        self.eye.look_near(&self.ram, granule, Moment::Convert { granule, to, step });
    }
}
