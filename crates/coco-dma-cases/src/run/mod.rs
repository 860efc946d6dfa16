//! Running a case: the machine is built, the steps go through the real layer, and what came of
//! each is compared with what the case expects.

mod allocated;
mod allocs;
mod ask;
mod build;
mod compare;
mod convert;
mod end;
mod events;
mod look;
mod memory;
mod setup;
mod stream;
mod touch;
mod witness;
mod world;

pub use witness::{Heed, Witness};

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use coco_dma::plan;
use coco_dma::reason::Refuse;

use crate::case::{Case, Fact};
use crate::read::Place;

/// No case takes longer; most take a few milliseconds.
const LIMIT: Duration = Duration::from_secs(20);

/// What a case came to.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The case's name.
    pub name: String,
    /// Whether it holds.
    pub ok: bool,
    /// Who saw it, where it does not hold.
    pub witness: Option<Witness>,
    /// What was expected: of the step that failed, or of all of them in short.
    pub expected: String,
    /// What came instead, or the same.
    pub got: String,
    /// Where the case says what does not hold; its own place if it holds.
    pub place: Place,
    /// What happened, step by step.
    pub story: Vec<Told>,
}

/// One step as it was.
#[derive(Clone, Debug)]
pub struct Told {
    /// What was done.
    pub step: String,
    /// What it came to.
    pub outcome: String,
    /// The rules that were applied, each with what it found.
    pub rules: Vec<(&'static str, String)>,
}

/// An expectation that does not hold.
#[derive(Clone, Debug)]
struct Failed {
    witness: Witness,
    place: Place,
    expected: String,
    got: String,
}

/// The rules that a decision applied.
#[derive(Debug, Default)]
struct Rules(Vec<(&'static str, String)>);

impl plan::Trace for Rules {
    fn step(&mut self, step: plan::Step) {
        self.0.push((step.rule().name(), step.to_string()));
    }
}

impl Rules {
    /// What was refused when it was done, not when it was decided, says the way out too.
    fn refused(&mut self, reason: Refuse) {
        let told = plan::Step::Refuse(reason);
        let told = (told.rule().name(), told.to_string());
        if self.0.last() != Some(&told) {
            self.0.push(told);
        }
    }
}

/// What a step came to.
#[derive(Debug, Default)]
struct Got {
    outcome: &'static str,
    reason: Option<String>,
    facts: Vec<(&'static str, Fact)>,
    bytes: Option<Vec<u8>>,
    rules: Rules,
}

impl Got {
    fn new(outcome: &'static str) -> Self {
        Self { outcome, ..Self::default() }
    }

    fn refused(reason: impl Into<String>) -> Self {
        Self::new("refuse").because(reason)
    }

    fn because(self, reason: impl Into<String>) -> Self {
        Self { reason: Some(reason.into()), ..self }
    }

    fn ruled(self, rules: Rules) -> Self {
        Self { rules, ..self }
    }

    fn number(mut self, key: &'static str, number: u64) -> Self {
        self.facts.push((key, Fact::Number(number)));
        self
    }

    fn flag(mut self, key: &'static str, flag: bool) -> Self {
        self.facts.push((key, Fact::Flag(flag)));
        self
    }

    fn word(mut self, key: &'static str, word: &str) -> Self {
        self.facts.push((key, Fact::Word(word.to_owned())));
        self
    }
}

/// Runs one case, in a thread of its own. A panic, or a case that takes too long, is a failure
/// like any other.
pub fn run(case: &Case) -> Outcome {
    run_with(case, Heed::All)
}

/// The same, heeding all expectations or those alone that the layer has no word in.
pub fn run_with(case: &Case, heed: Heed) -> Outcome {
    let (send, receive) = mpsc::channel();
    let own = case.clone();
    let worker = thread::Builder::new().name(case.name.clone()).spawn(move || {
        let mut story = Vec::new();
        let ended = catch_unwind(AssertUnwindSafe(|| build::execute(&own, heed, &mut story)));
        let ended = ended.unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("");
            Err(Failed {
                witness: Witness::Layer,
                place: own.place.clone(),
                expected: "no panic".to_owned(),
                got: format!("a panic: {text}"),
            })
        });
        // Nobody listens any more if it took too long.
        let _ = send.send((ended, story));
    });
    let failed = |got: &str| {
        let expected = "an end in time".to_owned();
        let place = case.place.clone();
        let witness = Witness::Layer;
        (Err(Failed { witness, place, expected, got: got.to_owned() }), Vec::new())
    };
    let (ended, story) = match worker {
        Ok(_) => receive
            .recv_timeout(LIMIT)
            .unwrap_or_else(|_| failed(&format!("nothing after {} s", LIMIT.as_secs()))),
        Err(error) => failed(&format!("no thread: {error}")),
    };
    let name = case.name.clone();
    match ended {
        Ok(()) => {
            let short: Vec<&str> = story.iter().map(|told| told.outcome.as_str()).collect();
            let short = short.join("; ");
            let place = case.place.clone();
            let expected = short.clone();
            Outcome { name, ok: true, witness: None, expected, got: short, place, story }
        }
        Err(Failed { witness, place, expected, got }) => {
            Outcome { name, ok: false, witness: Some(witness), expected, got, place, story }
        }
    }
}
