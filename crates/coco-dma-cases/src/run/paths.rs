//! The ways through the layer that a bounce can take. Each ships, and all come to the same: a case
//! is run on each, and what it came to is compared step by step.

use coco_dma::device::Bounces;

use super::{Failed, Got, Witness, compare};
use crate::case::Step;
use crate::read::Place;

/// A way through the layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// What the fast-path table settles, with slots that the CPU keeps.
    Fast,
    /// The same with slots of the bitmap: no CPU keeps any.
    Bitmap,
    /// The whole way: the table is off, and `plan` is asked about every map.
    Slow,
    /// What the table settles, with slots of a cache that the caller has for itself.
    Handle,
}

impl Path {
    /// All of them. What the others come to is compared with the first that a case is run on.
    pub const ALL: [Self; 4] = [Self::Fast, Self::Bitmap, Self::Slow, Self::Handle];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fast => "fast",
            Self::Bitmap => "bitmap",
            Self::Slow => "slow",
            Self::Handle => "handle",
        }
    }

    /// Whether CPUs keep slots of the pools.
    pub(super) const fn keeps(self) -> bool {
        matches!(self, Self::Fast | Self::Handle)
    }

    /// Whether a device bounced on this path between two looks at its counters, of what went by a
    /// handle or not.
    pub(super) fn taken(self, before: Bounces, now: Bounces, by_handle: bool) -> bool {
        match self {
            Self::Fast => now.cached > before.cached,
            Self::Bitmap => now.bitmap > before.bitmap,
            Self::Slow => now.slow > before.slow,
            Self::Handle => by_handle && now.cached > before.cached,
        }
    }
}

/// What one step came to, for whoever compares paths.
#[derive(Debug)]
pub(super) struct Came {
    name: &'static str,
    place: Place,
    witness: Witness,
    outcome: String,
    bytes: Option<Vec<u8>>,
    /// Slots in use, and the most that ever were, of each pool.
    slots: Vec<(usize, usize)>,
    events: Vec<&'static str>,
}

impl Came {
    /// What the step came to, with the addresses that it gave only where they are equal by right.
    pub(super) fn new(
        step: &Step,
        got: &Got,
        addresses: bool,
        slots: Vec<(usize, usize)>,
        events: Vec<&'static str>,
    ) -> Self {
        let (name, place, witness) = (step.name, step.place.clone(), Witness::of(&step.op));
        let mut facts = Got { outcome: got.outcome, reason: got.reason.clone(), ..Got::default() };
        let told = got.facts.iter().filter(|(key, _)| addresses || *key != "address");
        facts.facts.extend(told.cloned());
        let outcome = compare::short(&facts);
        Self { name, place, witness, outcome, bytes: got.bytes.clone(), slots, events }
    }

    /// What is not as it was on another path.
    fn differs(&self, other: &Self) -> Option<Failed> {
        let differ = |witness, what: &str, expected: String, got: String| Failed {
            witness,
            place: self.place.clone(),
            expected: format!("{}: {what} {expected}", self.name),
            got: format!("{what} {got}"),
        };
        let text = |value: &dyn std::fmt::Debug| format!("{value:?}");
        if self.outcome != other.outcome {
            let (is, was) = (self.outcome.clone(), other.outcome.clone());
            return Some(differ(self.witness, "the outcome", was, is));
        }
        if self.bytes != other.bytes {
            let (is, was) = (short(&self.bytes, &other.bytes), short(&other.bytes, &self.bytes));
            return Some(differ(self.witness, "the bytes", was, is));
        }
        if self.slots != other.slots {
            let what = "slots in use, and the most ever,";
            return Some(differ(Witness::Layer, what, text(&other.slots), text(&self.slots)));
        }
        (self.events != other.events)
            .then(|| differ(Witness::Layer, "the events", text(&other.events), text(&self.events)))
    }
}

/// The first bytes of `these` that are not those.
fn short(these: &Option<Vec<u8>>, those: &Option<Vec<u8>>) -> String {
    let [these, those] = [these, those].map(|bytes| bytes.as_deref().unwrap_or_default());
    let at = these.iter().zip(those).position(|(a, b)| a != b);
    let at = at.unwrap_or(these.len().min(those.len()));
    let part = these.iter().skip(at).take(16).map(|byte| format!("{byte:02x}"));
    format!("from byte {at} on {}", part.collect::<Vec<_>>().join(" "))
}

/// What of a run differs from another one, first of all what the layer has no word in.
pub(super) fn difference(run: &[Came], other: &[Came]) -> impl Iterator<Item = Failed> {
    run.iter().zip(other).filter_map(|(this, that)| this.differs(that))
}
