//! A dump of everything that lives: for a debugger, a panic handler, a `/proc` file. Reads only;
//! while others work, each line is of its own moment.

use core::fmt;

use crate::device::Device;
use crate::dma::Dma;
use crate::ledger::GranuleState;
use crate::ledger::Ledger;
use crate::ledger::Tracked;
use crate::platform::Platform;
use crate::pool::Pool;

/// Prints the state of a layer: see [`Dma::inspect`](crate::Dma::inspect).
#[derive(Debug)]
pub struct Inspect<'a, T: ?Sized>(&'a T);

impl<'m, P: Platform + ?Sized> Dma<'m, P> {
    /// The regime, each range of the ledger with what is pinned, shared and lost in it, each pool
    /// with every run of slots that is held and by which device. Any context; takes time in the
    /// size of books and pools.
    pub fn inspect(&self) -> Inspect<'_, Self> {
        Inspect(self)
    }
}

impl<P: Platform + ?Sized> Device<'_, P> {
    /// The device with its limits, its pools and its counters. Any context.
    pub fn inspect(&self) -> Inspect<'_, Self> {
        Inspect(self)
    }
}

impl<P: Platform + ?Sized> fmt::Display for Inspect<'_, Dma<'_, P>> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dma = self.0;
        writeln!(f, "regime: {:?}", dma.regime())?;
        for tracked in dma.ledger().ranges() {
            write_memory(f, dma.ledger(), tracked)?;
        }
        let (held, limit) = (dma.ledger().quarantined(), dma.quarantine_limit());
        writeln!(f, "quarantine: {held:#x} bytes (limit {limit:#x})")?;
        for run in dma.ledger().quarantine() {
            writeln!(f, "  lost {run}")?;
        }
        dma.pools().iter().try_for_each(|pool| write_pool(f, pool))
    }
}

impl<P: Platform + ?Sized> fmt::Display for Inspect<'_, Device<'_, P>> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let device = self.0;
        let (info, counters) = (device.info(), device.counters());
        writeln!(f, "device {} ({}): {:?}", device.name(), info.trust, info.limits)?;
        if let Some(reason) = device.stopped() {
            writeln!(f, "  stopped: {reason}")?;
        }
        if let Some(domain) = device.domain() {
            let (mapped, lost) = (domain.mapped(), domain.lost());
            let window = domain.window();
            writeln!(f, "  behind a domain of {window}: {mapped:#x} bytes mapped, {lost:#x} lost")?;
        }
        let live = counters.live();
        writeln!(
            f,
            "  {} direct, {} bounced, {} refused, {} finished, {live} live",
            counters.direct, counters.bounced, counters.refused, counters.finished
        )?;
        for pool in device.pool_infos() {
            writeln!(f, "  may use {} at {}", pool.label, pool.range)?;
        }
        Ok(())
    }
}

/// One range: how many granules are in which state, and how many of them are pinned.
fn write_memory(
    f: &mut fmt::Formatter<'_>,
    ledger: &Ledger<'_>,
    tracked: &Tracked<'_>,
) -> fmt::Result {
    let range = tracked.range();
    let Some(granule) = tracked.granule() else {
        return writeln!(f, "memory {range}: {}", ledger.peek(range));
    };
    let (mut counts, mut pinned) = ([0u64; GranuleState::ALL.len()], 0u64);
    for number in 0..range.len() / granule {
        let at = range.base().checked_add(number.saturating_mul(granule));
        let Some(entry) = at.and_then(|at| ledger.granule(at)) else { continue };
        pinned += u64::from(entry.pins > 0);
        let states = GranuleState::ALL.iter().zip(&mut counts);
        states.filter(|(state, _)| **state == entry.state).for_each(|(_, count)| *count += 1);
    }
    write!(f, "memory {range}, granules of {granule:#x} bytes:")?;
    for (state, count) in GranuleState::ALL.iter().zip(counts).filter(|(_, count)| *count > 0) {
        write!(f, " {count} {state},")?;
    }
    writeln!(f, " {pinned} pinned")
}

fn write_pool(f: &mut fmt::Formatter<'_>, pool: &Pool<'_>) -> fmt::Result {
    let state = if pool.is_open() { "open" } else { "closed" };
    writeln!(
        f,
        "pool {} at {} ({:?}, {:?}, {state}): {} of {} slots, at most {} so far",
        pool.label(),
        pool.range(),
        pool.origin(),
        pool.purpose(),
        pool.used(),
        pool.capacity(),
        pool.high_water()
    )?;
    for held in pool.held() {
        writeln!(f, "  {} slots from {} held by device {}", held.count, held.first, held.device)?;
    }
    Ok(())
}
