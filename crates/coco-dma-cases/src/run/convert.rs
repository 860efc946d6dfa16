//! Conversions, pools that grow and shrink, and the quarantine.
// UNSAFETY: whoever converts memory says that it is theirs.
#![expect(unsafe_code)]

use coco_dma::addr::PhysRange;
use coco_dma::convert::{ConvertErrorKind, ConvertFailed, GrowFailed, ShrinkFailed};
use coco_dma::ledger::{Found, Initial};
use coco_dma::state::{State, Visibility};
use coco_dma_sim::GranuleState as Granule;

use super::Got;
use super::stream::wide;
use super::world::World;
use crate::case::Op;

impl Got {
    /// The outcome in words, for a message.
    pub(super) fn describe(&self) -> String {
        super::compare::short(self)
    }
}

/// The slug of what the ledger found.
const fn conflict_slug(found: Found) -> &'static str {
    match found {
        Found::State(_) => "wrong-state",
        Found::Pinned | Found::TooManyPins => "pinned",
        Found::Foreign(_) => "foreign",
        Found::Untracked => "untracked",
        Found::Border => "border",
        Found::Misaligned { .. } => "misaligned",
        _ => "unknown",
    }
}

/// What a failed conversion is as an outcome.
fn failed(error: &ConvertFailed) -> Got {
    let slug = match error.why {
        ConvertErrorKind::Ledger(conflict) => conflict_slug(conflict.found),
        ConvertErrorKind::Platform(_) => "platform",
        ConvertErrorKind::NoView => "no-view",
        ConvertErrorKind::QuarantineFull { .. } => "quarantine-full",
        ConvertErrorKind::Stopped => "stopped",
        ConvertErrorKind::NoGuest => "no-guest",
        _ => "unknown",
    };
    let got = Got::refused(slug).number("converted", error.converted);
    got.number("quarantined", error.quarantined)
}

/// What a pool that did not grow is as an outcome.
pub(super) fn grow(error: &GrowFailed) -> Got {
    match error {
        GrowFailed::Convert(error) => failed(error),
        GrowFailed::Open => Got::refused("already-open"),
        GrowFailed::Label(_) => Got::refused("label"),
        GrowFailed::NoView => Got::refused("no-view"),
        _ => Got::refused("unknown"),
    }
}

impl World<'_> {
    /// Memory is there and accepted before the layer hears of it, and gone after.
    fn plug(&mut self, run: PhysRange, add: bool) -> Got {
        let ledger = self.ground.dma.ledger();
        let done = if add { ledger.add(run, Initial::Private) } else { ledger.remove(run) };
        if let Err(conflict) = done {
            return Got::refused(conflict_slug(conflict.found));
        }
        let state = if add { Granule::In(State::PRIVATE) } else { Granule::Unaccepted };
        self.ground.machine.set_up(run, state);
        for at in self.granules(run) {
            // So it is at the end, too.
            self.began.insert(at, state);
        }
        Got::new("done")
    }

    pub(super) fn convert(&mut self, op: &Op) -> Result<Got, String> {
        let dma = self.ground.dma;
        let pool = |index: &usize| self.ground.pools.get(*index).copied().ok_or("no such pool");
        Ok(match op {
            Op::Convert { memory, offset, size, to } => {
                let range = self.buffers.get(*memory).and_then(|buffer| buffer.range);
                let range = range.ok_or("the memory lies in no single run")?;
                let run = range.slice(*offset, *size).ok_or("an empty part")?;
                let converted = match to {
                    // SAFETY: the memory is the case's; it keeps no references into it.
                    Visibility::Shared => unsafe { dma.share(run) },
                    // SAFETY: as above.
                    Visibility::Private => unsafe { dma.reclaim(run) },
                };
                match converted {
                    Ok(()) => Got::new("done").number("converted", run.len()),
                    Err(error) => failed(&error),
                }
            }
            Op::Plug { run, add } => self.plug(*run, *add),
            Op::Grow(index) => match dma.grow(pool(index)?) {
                Ok(()) => Got::new("done"),
                Err(error) => grow(&error),
            },
            Op::Shrink(index) => match dma.shrink(pool(index)?) {
                Ok(()) => Got::new("done"),
                Err(ShrinkFailed::Adopted) => Got::refused("adopted"),
                Err(ShrinkFailed::Closed) => Got::refused("closed"),
                Err(ShrinkFailed::InUse { .. }) => Got::refused("in-use"),
                Err(ShrinkFailed::Convert(error)) => failed(&error),
                Err(_) => Got::refused("unknown"),
            },
            Op::Refill => match dma.refill() {
                Ok(None) => Got::new("done"),
                Ok(Some(range)) => {
                    let pools = &self.case.pools;
                    let pool = pools.iter().find(|pool| pool.range.base() == range.base());
                    Got::new("done").word("pool", pool.map_or("", |pool| &pool.name))
                }
                Err(error) => grow(&error),
            },
            Op::Retry(tries) => {
                let mut runs = Vec::new();
                let retried = dma.retry_quarantine(*tries, |run| runs.push(run));
                for run in &runs {
                    self.ground.pages.recover(*run);
                }
                let recovered = runs.iter().map(|run| run.len()).sum();
                if retried.recovered != recovered {
                    return Err(format!(
                        "{:#x} bytes told to be recovered, but {recovered:#x} given",
                        retried.recovered
                    ));
                }
                let got = Got::new("done").number("recovered", recovered);
                got.number("held", retried.held)
            }
            Op::ReclaimAll => {
                // SAFETY: memory is the case's, and it keeps no references into it; no other
                // thread allocates.
                let account = unsafe { dma.reclaim_all(|_| ()) };
                let got = Got::new(if account.is_clean() { "done" } else { "left" });
                let got = got.number("shared", account.shared).number("pinned", account.pinned);
                let got = got.number("pools-in-use", account.in_use);
                let got = got.number("converting", account.converting);
                let got = got.number("quarantined", account.quarantined);
                got.number("adopted", account.adopted).number("foreign", account.foreign)
            }
            Op::AllowSharing => {
                dma.allow_sharing();
                Got::new("done")
            }
            _ => return Err(format!("no conversion among {} pools", wide(self.case.pools.len()))),
        })
    }
}
