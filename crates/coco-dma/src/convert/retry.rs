//! Getting memory out of quarantine: a bounded number of tries, each of which has to prove the
//! state before the memory is anybody's again.
// UNSAFETY: memory is handed to the platform.
#![expect(unsafe_code)]

use crate::addr::PhysRange;
use crate::dma::Dma;
use crate::observe::Event;
use crate::platform::Platform;
use crate::state::State;
use crate::state::Visibility;

/// What a round of retries came to, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retried {
    /// Memory that is private again, and was given to the caller.
    pub recovered: u64,
    /// Memory that is still in quarantine.
    pub held: u64,
}

impl<P: Platform + ?Sized> Dma<'_, P> {
    /// Tries to make memory in quarantine private again: at most `tries` conversions, lowest
    /// address first. What a conversion proves to be private is wiped and given to `recovered`,
    /// whose it is from then on; the rest stays in quarantine, and a later round goes on with
    /// what is left. Blocks.
    pub fn retry_quarantine(&self, tries: usize, mut recovered: impl FnMut(PhysRange)) -> Retried {
        let mut gained = 0;
        for run in self.ledger().quarantine().take(tries) {
            let Ok(conversion) = self.ledger().begin_retry(run) else { continue };
            // SAFETY: memory in quarantine is nobody's, and the ledger gave it to us alone.
            let proved = match unsafe { self.platform().convert(run, Visibility::Private) } {
                Ok(()) => run.len(),
                Err(error) => self.believed(run, error).0,
            };
            let back = match run.slice(0, proved) {
                Some(part) if self.wipe(part, State::PRIVATE) => proved,
                _ => 0,
            };
            let rest = run.len() - back;
            let settled = self.ledger().settle(conversion, back, rest, Visibility::Private);
            if let Some(run) = run.slice(0, settled.done) {
                gained += settled.done;
                self.tell(&Event::Recovered { run });
                recovered(run);
            }
        }
        Retried { recovered: gained, held: self.ledger().quarantined() }
    }
}
