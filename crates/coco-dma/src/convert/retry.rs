//! Getting memory out of quarantine: a bounded number of tries, each of which has to prove the
//! state before the memory is anybody's again.
// UNSAFETY: memory is handed to the platform.
#![expect(unsafe_code)]

use crate::addr::PhysAddr;
use crate::addr::PhysRange;
use crate::dma::Dma;
use crate::observe::Event;
use crate::plan;
use crate::platform::Platform;

/// What a round of retries came to, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retried {
    /// Memory that is as it was again, and was given to the caller.
    pub recovered: u64,
    /// Memory that is still in quarantine.
    pub held: u64,
}

impl<P: Platform + ?Sized> Dma<'_, P> {
    /// Tries to make memory in quarantine private again (encrypted, on an SME host): at most `tries` conversions. What a
    /// conversion proves to be so is wiped and given to `recovered`, whose it is from then
    /// on; the rest stays in quarantine. A round goes on where the last one ended, behind what
    /// failed then, and once around: memory that never comes back keeps no other from being tried.
    /// Blocks.
    pub fn retry_quarantine(&self, tries: usize, mut recovered: impl FnMut(PhysRange)) -> Retried {
        let (start, mut left) = (self.retry_from(), tries);
        let (mut at, mut gained) = (start, 0);
        for (from, end) in [(start, None), (PhysAddr::new(0), Some(start))] {
            at = if left > 0 { from } else { at };
            while let Some(run) = self.ledger().quarantine_from(at).next()
                && let Some(run) = before(run, end)
                && left > 0
            {
                left -= 1;
                let (back, tried) = self.retry(run);
                if let Some(run) = run.slice(0, back) {
                    gained += back;
                    self.notify(&Event::Recovered { run });
                    recovered(run);
                }
                at = run.base().checked_add(tried).unwrap_or(run.last());
            }
        }
        self.retry_from_now_on(at);
        Retried { recovered: gained, held: self.ledger().quarantined() }
    }

    /// Tries one run: how many bytes are private again, and how many were tried.
    fn retry(&self, run: PhysRange) -> (u64, u64) {
        // Where nothing converts nothing is in quarantine.
        let Some(lent) = plan::lent(self.regime()) else { return (0, run.len()) };
        let own = plan::restored(lent);
        // Somebody else tries it.
        let Ok(conversion) = self.ledger().begin_retry(run) else { return (0, run.len()) };
        // SAFETY: memory in quarantine is nobody's, and the ledger gave it to us alone.
        let (proved, tried) = match unsafe { self.platform().convert(run, lent, own) } {
            Ok(()) => (run.len(), run.len()),
            Err(error) => {
                let (done, doubt) = self.believed(run, error);
                (done, done + doubt.max(self.regime().granule())) // sabotage: retry-without-proof
            }
        };
        let back = match run.slice(0, proved) {
            Some(part) if self.wipe(part, own) => proved,
            _ => 0,
        };
        let rest = run.len() - back;
        let settled = self.ledger().settle_state(conversion, back, rest, own);
        (settled.done, tried)
    }
}

/// What of a run lies below `end`.
fn before(run: PhysRange, end: Option<PhysAddr>) -> Option<PhysRange> {
    match end {
        None => Some(run),
        Some(end) => run.slice(0, end.offset_from(run.base())?.min(run.len())),
    }
}
