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
mod paths;
mod question;
mod setup;
mod stream;
mod touch;
mod witness;
mod world;

use paths::{Came, difference};

pub use paths::Path;
pub use question::{Answer, answer};
pub use witness::{Heed, Witness};

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use coco_dma::plan;
use coco_dma::reason::Refuse;

use self::events::Lines;
use crate::case::{Case, Fact, Op};
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
    /// What happened, step by step; where the case does not hold, on the path that showed it.
    pub story: Vec<Told>,
    /// The path on which it does not hold; of a case without maps, which has none, none.
    pub path: Option<Path>,
    /// The paths that it was run on and that a bounce of it really took.
    pub paths: Vec<Path>,
}

/// One step as it was.
#[derive(Clone, Debug)]
pub struct Told {
    /// What was done.
    pub step: String,
    /// What it came to.
    pub outcome: String,
    /// The rules that were applied, each with what it found.
    pub rules: Vec<(plan::Rule, String)>,
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
struct Rules(Vec<(plan::Rule, String)>);

impl plan::Trace for Rules {
    fn step(&mut self, step: plan::Step) {
        self.0.push((step.rule(), step.to_string()));
    }
}

impl Rules {
    /// What was refused when it was done, not when it was decided, says the way out too.
    fn refused(&mut self, reason: Refuse) {
        let told = plan::Step::Refuse(reason);
        let told = (told.rule(), told.to_string());
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

/// What is left of a run on one path.
#[derive(Debug, Default)]
struct Trail {
    story: Vec<Told>,
    came: Vec<Came>,
    /// Whether a bounce took the path.
    taken: bool,
    /// What Linux would have traced, where it is wanted.
    lines: Option<Lines>,
}

/// What Linux's trace points would say of a case, a line each as tracefs has them behind the clock.
/// It is run once, with every map planned; whether it holds is not the question here.
pub fn trace(case: &Case) -> Vec<String> {
    let lines = Lines::default();
    let trail = Trail { lines: Some(lines.clone()), ..Trail::default() };
    let _judged = run_from(case, Heed::All, Path::Slow, trail);
    let told = lines.lock().unwrap_or_else(PoisonError::into_inner).clone();
    told
}

/// Runs one case on every path, each time in a thread of its own. A panic, or a case that takes too
/// long, is a failure like any other.
pub fn run(case: &Case) -> Outcome {
    run_with(case, Heed::All, &Path::ALL)
}

/// The same on these paths, heeding all expectations or those alone that the layer has no word in.
/// What maps nothing is run once, on the first of them.
pub fn run_with(case: &Case, heed: Heed, paths: &[Path]) -> Outcome {
    let maps = case.steps.iter().any(|step| matches!(step.op, Op::Map { .. } | Op::MapList { .. }));
    let paths = if maps { paths } else { paths.get(..1).unwrap_or(paths) };
    let (mut taken, mut first): (_, Option<Trail>) = (Vec::new(), None);
    for path in paths {
        let (mut ended, trail) = run_on(case, heed, *path);
        taken.extend(trail.taken.then_some(*path));
        if let (Ok(()), Some(first)) = (&ended, &first) {
            let judged = difference(&trail.came, &first.came).map(|failed| heed.judge(Err(failed)));
            ended = judged.into_iter().find(Result::is_err).unwrap_or(Ok(()));
        }
        if let Err(Failed { witness, place, expected, got }) = ended {
            let (name, witness) = (case.name.clone(), Some(witness));
            let (story, path) = (trail.story, maps.then_some(*path));
            return Outcome {
                name,
                ok: false,
                witness,
                expected,
                got,
                place,
                story,
                path,
                paths: taken,
            };
        }
        first.get_or_insert(trail);
    }
    let story = first.map(|first| first.story).unwrap_or_default();
    let short: Vec<&str> = story.iter().map(|told| told.outcome.as_str()).collect();
    let short = short.join("; ");
    Outcome {
        name: case.name.clone(),
        ok: true,
        witness: None,
        expected: short.clone(),
        got: short,
        place: case.place.clone(),
        story,
        path: None,
        paths: taken,
    }
}

/// One run.
fn run_on(case: &Case, heed: Heed, path: Path) -> (Result<(), Failed>, Trail) {
    run_from(case, heed, path, Trail::default())
}

/// The same with what is to be kept of it.
fn run_from(case: &Case, heed: Heed, path: Path, mut trail: Trail) -> (Result<(), Failed>, Trail) {
    let (send, receive) = mpsc::channel();
    let own = case.clone();
    let worker = thread::Builder::new().name(case.name.clone()).spawn(move || {
        let run = || build::execute(&own, heed, path, &mut trail);
        let ended = catch_unwind(AssertUnwindSafe(run));
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
        let _ = send.send((ended, trail));
    });
    let failed = |got: &str| {
        let expected = "an end in time".to_owned();
        let place = case.place.clone();
        let witness = Witness::Layer;
        (Err(Failed { witness, place, expected, got: got.to_owned() }), Trail::default())
    };
    match worker {
        Ok(_) => receive
            .recv_timeout(LIMIT)
            .unwrap_or_else(|_| failed(&format!("nothing after {} s", LIMIT.as_secs()))),
        Err(error) => failed(&format!("no thread: {error}")),
    }
}
