//! What follows from the state of memory that was allocated or is shared between devices: how the
//! CPU maps it, how it is freed, whether another device may attach to it.

use super::map;
use super::map::Plan;
use super::request::MapRequest;
use super::step::Step;
use super::step::Trace;
use crate::addr::DmaAddr;
use crate::attrs::Attrs;
use crate::reason::Direct;
use crate::reason::Refuse;
use crate::regime::Regime;
use crate::state::Context;
use crate::state::State;

/// How the CPU's page tables map memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Protection {
    /// What the entry's address carries for the state of the memory.
    pub mark: u64,
    /// The memory type.
    pub cache: Cache,
}

/// A memory type, as far as DMA depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cache {
    /// As all memory is.
    WriteBack,
    /// Writes are gathered, reads bypass the caches.
    WriteCombine,
    /// Neither reads nor writes are cached.
    Uncached,
}

/// The protection of every mapping of memory in `state`, for the kernel and for user space alike:
/// it follows from the memory, never from the device. A device that does not see the caches gets
/// memory that is not cached; write-combining where the caller allows it. `InvalidRange` for a
/// state that this machine does not have.
pub fn protection(
    regime: &Regime,
    state: State,
    coherent: bool,
    attrs: Attrs,
    trace: &mut impl Trace,
) -> Result<Protection, Refuse> {
    let protection = match regime.cpu_mark(state) {
        None => Err(Refuse::InvalidRange),
        Some(mark) => {
            let cache = match (coherent, attrs.contains(Attrs::WRITE_COMBINE)) {
                (true, _) => Cache::WriteBack,
                (false, true) => Cache::WriteCombine,
                (false, false) => Cache::Uncached,
            };
            Ok(Protection { mark, cache })
        }
    };
    match protection {
        Ok(protection) => trace.step(Step::Protection { state, protection }),
        Err(reason) => trace.step(Step::Refuse(reason)),
    }
    protection
}

/// What freeing takes, from the record of the allocation: nobody asks the device again.
/// `converted` says that we converted the memory, so that we convert it back.
pub fn free(converted: bool, context: Context, trace: &mut impl Trace) -> Result<(), Refuse> {
    trace.step(Step::Free { converted });
    if converted && context == Context::Atomic {
        trace.step(Step::Atomic);
        trace.step(Step::Refuse(Refuse::AtomicNeedsConversion));
        return Err(Refuse::AtomicNeedsConversion);
    }
    Ok(())
}

/// Decides about attaching a device to memory that several devices share: it touches the memory
/// where it lies, or it does not attach. A heap never bounces. The pools of the request do not
/// matter, but for a restricted one, which forbids everything outside of it.
pub fn attach(
    request: &MapRequest<'_>,
    trace: &mut impl Trace,
) -> Result<(Direct, Option<DmaAddr>), Refuse> {
    trace.step(Step::InPlaceOnly);
    let request = MapRequest { attrs: request.attrs.with(Attrs::REQUIRE_COHERENT), ..*request };
    match map::map(&request, trace) {
        Plan::Direct { reason, addr, .. } => Ok((reason, addr)),
        Plan::Refuse(reason) => Err(reason),
        Plan::Bounce { .. } => Err(Refuse::RequireCoherent),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::regime::Parameters;
    use crate::regime::PlatformName;

    #[test]
    fn protection_follows_the_memory() {
        let tdx = PlatformName::Tdx.regime(&Parameters::default()).unwrap();
        let of = |state, coherent, attrs| protection(&tdx, state, coherent, attrs, &mut ());
        let back = Cache::WriteBack;
        assert_eq!(
            of(State::SHARED, true, Attrs::NONE),
            Ok(Protection { mark: 1 << 51, cache: back })
        );
        assert_eq!(of(State::PRIVATE, true, Attrs::NONE), Ok(Protection { mark: 0, cache: back }));
        let combine = of(State::PRIVATE, false, Attrs::WRITE_COMBINE).unwrap();
        assert_eq!(combine.cache, Cache::WriteCombine);
        assert_eq!(of(State::PRIVATE, false, Attrs::NONE).unwrap().cache, Cache::Uncached);
        assert_eq!(of(State::PLAIN, true, Attrs::NONE), Err(Refuse::InvalidRange));
    }

    #[test]
    fn only_what_was_converted_needs_a_context_that_may_wait() {
        for context in [Context::Blocking, Context::Atomic] {
            assert_eq!(free(false, context, &mut ()), Ok(()));
        }
        assert_eq!(free(true, Context::Blocking, &mut ()), Ok(()));
        assert_eq!(free(true, Context::Atomic, &mut ()), Err(Refuse::AtomicNeedsConversion));
    }
}
