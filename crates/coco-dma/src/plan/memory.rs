//! What follows from the state of memory that was allocated or is shared between devices: how the
//! CPU maps it, how it is freed, whether another device may attach to it.

use super::map;
use super::reach::reach;
use super::request::AllocKind;
use super::request::MapRequest;
use super::request::Place;
use super::source;
use super::source::What;
use super::step::Known;
use super::step::Step;
use super::step::Trace;
use crate::addr::DmaAddr;
use crate::attrs::Attrs;
use crate::reason::Direct;
use crate::reason::Refuse;
use crate::regime::Regime;
use crate::state::CacheMode;
use crate::state::Context;
use crate::state::Memory;
use crate::state::State;
use crate::state::Trust;

/// How the CPU's page tables map memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Protection {
    /// What the entry's address carries for the state of the memory.
    pub mark: u64,
    /// The memory type.
    pub cache: CacheMode,
}

/// How the CPU sees a pool for as long as it is open: cached, whatever its devices see. What goes
/// through slots is handed over and taken back, and uncached copies cost a hundred times as much.
/// Coherent memory out of a pool has a view of its own where this one does not suit
/// ([`AllocPlan::cache`](super::AllocPlan::cache)).
pub const POOL_CACHE: CacheMode = CacheMode::WriteBack;

/// How the CPU sees registers of a device that is not accepted: their state, and never cached.
pub const fn registers(regime: &Regime) -> (State, CacheMode) {
    let state = match regime {
        Regime::Open => State::Ordinary,
        Regime::Host(_) => State::PLAIN,
        Regime::Guest(_) => State::SHARED,
    };
    (state, CacheMode::Uncached)
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
    told(entry(regime, state, cache(coherent, attrs), trace), trace)
}

/// The entry of a page table for memory in `state`.
fn entry(
    regime: &Regime,
    state: State,
    cache: CacheMode,
    trace: &mut impl Trace,
) -> Result<Protection, Refuse> {
    let mark = regime.cpu_mark(state).ok_or(Refuse::InvalidRange)?;
    let protection = Protection { mark, cache }; // sabotage: cpu-mark-lost
    trace.step(Step::Protection { state, protection });
    Ok(protection)
}

fn told<T: Copy>(answer: Result<T, Refuse>, trace: &mut impl Trace) -> Result<T, Refuse> {
    if let Err(reason) = answer {
        trace.step(Step::Refuse(reason));
    }
    answer
}

/// A CPU mapping of memory that is no allocation, before anything is done about it: of a buffer, or of
/// a device's registers.
#[derive(Clone, Copy, Debug)]
pub struct ViewRequest<'a> {
    /// The rules of the machine.
    pub regime: &'a Regime,
    /// Where the memory lies.
    pub place: Place,
    /// How long it is in bytes.
    pub len: u64,
    /// What is known about it.
    pub memory: Memory,
    /// The trust of the device that it is mapped for: whose registers they are, if they are any.
    pub trust: Trust,
    /// Whether that device sees the CPU's caches.
    pub coherent: bool,
    /// What the caller asserts and wants, out of [`Attrs::FOR_VIEW`].
    pub attrs: Attrs,
}

/// How the CPU maps memory that is no allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    /// The state of the memory.
    pub state: State,
    /// What its page-table entries carry.
    pub protection: Protection,
}

/// Decides how the CPU maps memory that is no allocation, for the kernel and for user space alike.
/// Registers are never cached, and those of a device that is not accepted are the host's: shared in a
/// guest, plain on an SME host. Memory that nobody may touch as it is (mixed, unaccepted, in
/// quarantine, being converted, in a guest another device's) is refused, and so is memory in no
/// single run, which has no mapping as one. Never panics.
pub fn view(request: &ViewRequest<'_>, trace: &mut impl Trace) -> Result<View, Refuse> {
    told(decide_view(request, trace), trace)
}

fn decide_view(request: &ViewRequest<'_>, trace: &mut impl Trace) -> Result<View, Refuse> {
    let ViewRequest { regime, attrs, .. } = *request;
    let alien = attrs.without(Attrs::FOR_VIEW);
    if !alien.is_empty() {
        trace.step(Step::NotTaken(alien));
        return Err(Refuse::BadAttribute);
    }
    source::range(regime, request.place, request.len, trace)?.ok_or(Refuse::Unlocated)?;
    let What { state, mmio, known } = source::what(regime, request.memory, attrs, None, trace)?;
    let private = request.trust == Trust::Accepted && state == State::PRIVATE;
    let (state, known) = match mmio && !private {
        true => (registers(regime).0, Known::Host),
        false => (state, known),
    };
    trace.step(Step::Memory { state, mmio, known });
    let cache = cache(request.coherent && !mmio, attrs);
    Ok(View { state, protection: entry(regime, state, cache, trace)? })
}

fn cache(cached: bool, attrs: Attrs) -> CacheMode {
    match (cached, attrs.contains(Attrs::WRITE_COMBINE)) {
        (true, _) => CacheMode::WriteBack,
        (false, true) => CacheMode::WriteCombine,
        (false, false) => CacheMode::Uncached,
    }
}

/// How the CPU sees an allocation.
pub(super) fn cache_of(kind: AllocKind, coherent: bool, attrs: Attrs) -> CacheMode {
    cache(is_cached(kind, coherent), attrs) // sabotage: coherent-cached
}

/// Pages that the driver syncs are cached, whatever their device sees.
fn is_cached(kind: AllocKind, coherent: bool) -> bool {
    coherent || kind != AllocKind::Coherent
}

/// What freeing takes, from the record of the allocation: nobody asks the device again.
/// `converted` says that we converted the memory, so that we convert it back.
pub fn free(converted: bool, context: Context, trace: &mut impl Trace) -> Result<(), Refuse> {
    trace.step(Step::Free { converted });
    // sabotage: atomic-free-converts
    if converted && context == Context::Atomic {
        trace.step(Step::Atomic);
        return told(Err(Refuse::AtomicNeedsConversion), trace);
    }
    Ok(())
}

/// A CPU mapping of a part of an allocation, before anything is done about it. All of it but the
/// part comes from the record of the allocation.
#[derive(Clone, Copy, Debug)]
pub struct MmapRequest<'a> {
    /// The rules of the machine.
    pub regime: &'a Regime,
    /// What kind of allocation it is.
    pub kind: AllocKind,
    /// The state of its memory.
    pub state: State,
    /// Whether its device sees the CPU's caches.
    pub coherent: bool,
    /// The attributes that it was made with.
    pub attrs: Attrs,
    /// How long it is in bytes.
    pub len: u64,
    /// Where in it the mapping begins, in bytes.
    pub offset: u64,
    /// How long the mapping is in bytes.
    pub part: u64,
}

/// Decides how a part of an allocation is mapped, for the kernel and for user space alike. Pages
/// that the driver syncs are cached, whatever their device sees. `OutOfBounds` where the part is
/// empty or past the end.
pub fn mmap(request: &MmapRequest<'_>, trace: &mut impl Trace) -> Result<Protection, Refuse> {
    let alien = request.attrs.without(request.kind.takes());
    if !alien.is_empty() {
        trace.step(Step::NotTaken(alien));
        return told(Err(Refuse::BadAttribute), trace);
    }
    let MmapRequest { len, offset, part, .. } = *request;
    let inside = part > 0 && offset.checked_add(part).is_some_and(|end| end <= len);
    trace.step(Step::Part { offset, part, len, inside });
    if !inside {
        return told(Err(Refuse::OutOfBounds), trace);
    }
    let cached = is_cached(request.kind, request.coherent); // sabotage: driver-synced-uncached
    protection(request.regime, request.state, cached, request.attrs, trace)
}

/// A device that touches shared memory where it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attached {
    /// Why it may.
    pub reason: Direct,
    /// The address that the device is given; `None` where an IOMMU domain will give it.
    pub addr: Option<DmaAddr>,
    /// The state that the memory has to keep while it is attached.
    pub state: State,
    /// Whether caches have to be maintained when CPU and device take turns.
    pub cache_work: bool,
}

/// Decides about attaching a device to memory that several devices share: it touches the memory
/// where it lies, or it does not attach, for the reason for which a map would have to bounce. A heap
/// never bounces. The pools of the request do not matter, but for a restricted one, which forbids
/// everything outside of it.
pub fn attach(request: &MapRequest<'_>, trace: &mut impl Trace) -> Result<Attached, Refuse> {
    trace.step(Step::InPlaceOnly);
    let attached = source::source(request, trace).and_then(|source| {
        let addr = reach(request, &source, trace)?;
        map::in_place(request, &source, addr)
    });
    if let Ok(Attached { reason, .. }) = attached {
        trace.step(Step::Direct(reason));
    }
    told(attached, trace)
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
        let back = CacheMode::WriteBack;
        assert_eq!(
            of(State::SHARED, true, Attrs::NONE),
            Ok(Protection { mark: 1 << 51, cache: back })
        );
        assert_eq!(of(State::PRIVATE, true, Attrs::NONE), Ok(Protection { mark: 0, cache: back }));
        let combine = of(State::PRIVATE, false, Attrs::WRITE_COMBINE).unwrap();
        assert_eq!(combine.cache, CacheMode::WriteCombine);
        assert_eq!(of(State::PRIVATE, false, Attrs::NONE).unwrap().cache, CacheMode::Uncached);
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
