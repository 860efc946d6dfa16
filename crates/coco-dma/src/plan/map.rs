//! The decision about one streaming map. The order of the tests is the order of the reasons in
//! [`crate::reason`]: where several apply, the first is the reason.

use super::memory::Attached;
use super::pools;
use super::pools::Candidates;
use super::reach::reach;
use super::request::MapRequest;
use super::source::Source;
use super::source::source;
use super::step::Step;
use super::step::Trace;
use crate::addr::DmaAddr;
use crate::attrs::Attrs;
use crate::reason::Bounce;
use crate::reason::Direct;
use crate::reason::Refuse;
use crate::state::State;

/// What is to be done about one map.
#[derive(Clone, Copy, Debug)]
#[must_use]
pub enum Plan<'a> {
    /// The device touches the memory where it lies.
    Direct {
        /// Why.
        reason: Direct,
        /// The address that the device is given; `None` where an IOMMU domain will give it.
        addr: Option<DmaAddr>,
        /// The state that the memory has to keep while it is mapped.
        state: State,
        /// Whether caches have to be cleaned and invalidated.
        cache_work: bool,
    },
    /// The bytes go through a pool.
    Bounce {
        /// Why.
        reason: Bounce,
        /// The pools that can take it, in the order in which to try them. At least one.
        pools: Candidates<'a>,
        /// Whether caches have to be cleaned and invalidated.
        cache_work: bool,
    },
    /// It is not done.
    Refuse(Refuse),
}

/// Decides about one streaming map, telling `trace` each rule it applies. Never panics, whatever
/// the numbers; takes time linear in the number of pools.
pub fn map<'a>(request: &MapRequest<'a>, trace: &mut impl Trace) -> Plan<'a> {
    let plan = decide(request, trace);
    match plan {
        Ok(Plan::Direct { reason, .. }) => trace.step(Step::Direct(reason)),
        Ok(Plan::Bounce { reason, pools, .. }) => {
            trace.step(Step::Bounce(reason));
            pools.tell_first(trace);
        }
        Ok(Plan::Refuse(reason)) | Err(reason) => trace.step(Step::Refuse(reason)),
    }
    plan.unwrap_or_else(Plan::Refuse)
}

/// The decision itself.
fn decide<'a>(request: &MapRequest<'a>, trace: &mut impl Trace) -> Result<Plan<'a>, Refuse> {
    let source = source(request, trace)?;
    let reason = match reach(request, &source, trace) {
        Ok(addr) => {
            let Attached { reason, addr, state, cache_work } = in_place(request, &source, addr)?;
            return Ok(Plan::Direct { reason, addr, state, cache_work });
        }
        Err(reason) => reason,
    };
    match reason {
        // The platform has no address for them, whatever could be bounced.
        Bounce::SharedUnreachable if source.mmio => return Err(Refuse::SharedUnreachable),
        _ if source.mmio => return Err(Refuse::MmioCannotBounce),
        _ => trace.step(Step::Wanted(reason)),
    }
    let pools = match pools::too_long(request) {
        // No pool is a way out, whatever pools there are.
        Some(misfit) => {
            trace.step(Step::TooLong(misfit));
            Err(Refuse::TooLarge)
        }
        None => pools::candidates(request, reason, trace),
    };
    // A pool that suits but is too small is told as such.
    if reason == Bounce::SharedUnreachable && pools.is_err_and(|why| why != Refuse::TooLarge) {
        return Err(Refuse::SharedUnreachable);
    }
    if request.attrs.contains(Attrs::REQUIRE_COHERENT) {
        return Err(Refuse::RequireCoherent);
    }
    Ok(Plan::Bounce { reason, pools: pools?, cache_work: cache_work(request, &source) })
}

/// A device that reaches the memory at `addr` touches it where it lies, unless it had to see the
/// caches and does not.
pub(super) fn in_place(
    request: &MapRequest<'_>,
    source: &Source,
    addr: Option<DmaAddr>,
) -> Result<Attached, Refuse> {
    if request.attrs.contains(Attrs::REQUIRE_COHERENT) && !request.device.coherent {
        return Err(Refuse::RequireCoherent);
    }
    let reason = match source.state {
        State::SHARED => Direct::AlreadyShared,
        _ => Direct::InReach,
    };
    Ok(Attached { reason, addr, state: source.state, cache_work: cache_work(request, source) })
}

fn cache_work(request: &MapRequest<'_>, source: &Source) -> bool {
    !request.device.coherent && !source.mmio && !request.attrs.contains(Attrs::SKIP_CPU_SYNC)
}
