//! `coco-dma check`: runs case files. `coco-dma explain --case`: tells the story of one.

use std::collections::BTreeMap;
use std::env;
use std::num::NonZero;
use std::path::Path;
use std::thread;

use coco_dma_cases::Case;
use coco_dma_cases::File;
use coco_dma_cases::Heed;
use coco_dma_cases::Loaded;
use coco_dma_cases::Outcome;
use coco_dma_cases::Path as Way;
use coco_dma_cases::Witness;
use serde::Serialize;

use crate::args::CheckArgs;
use crate::explain::StepText;
use crate::failure::Failure;
use crate::output;
use crate::trace::Trace;
use crate::words::lookup;

/// What cases can be compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum System {
    Linux,
}

pub(crate) fn system(text: &str) -> Result<System, String> {
    lookup("system", text, &[("linux-7.3", System::Linux)])
}

/// The ways through the layer that cases are run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ways(&'static [Way]);

pub(crate) fn path(text: &str) -> Result<Ways, String> {
    let all = Way::ALL.iter().zip(Way::ALL.chunks(1));
    let mut known = vec![("all", Ways(&Way::ALL))];
    known.extend(all.map(|(way, alone)| (way.name(), Ways(alone))));
    lookup("path", text, &known)
}

/// The report. Its keys are the JSON document's.
#[derive(Debug, Serialize)]
struct Report<'a> {
    passed: usize,
    failed: usize,
    cases: Vec<Row<'a>>,
}

#[derive(Debug, Serialize)]
struct Row<'a> {
    name: &'a str,
    title: &'a str,
    id: Option<&'a str>,
    ok: bool,
    expected: &'a str,
    got: &'a str,
    place: String,
    /// Who saw it, where it does not hold.
    witness: Option<&'static str>,
    /// The path on which it does not hold, where the case maps anything.
    path: Option<&'static str>,
    /// The paths that its bounces really took.
    paths: Vec<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    linux: Option<Other<'a>>,
}

/// What another system does.
#[derive(Debug, Serialize)]
struct Other<'a> {
    does: &'a str,
    why_not_here: &'a str,
}

/// Runs the command.
pub(crate) fn check(args: &CheckArgs) -> Result<(), Failure> {
    let jobs = match args.jobs {
        Some(0) => return Err(Failure::Usage("--jobs: at least one case at a time".to_owned())),
        Some(jobs) => usize::try_from(jobs).unwrap_or(usize::MAX),
        None => thread::available_parallelism().map_or(1, NonZero::get),
    };
    let mut cases = read(&files(&args.paths)?)?;
    if let Some(filter) = &args.filter {
        cases.retain(|case| case.name.contains(filter) || case.id.as_ref() == Some(filter));
    }
    if cases.is_empty() {
        return Err(Failure::Usage(match &args.filter {
            Some(filter) => format!("--filter: no case's name holds '{filter}', and no id is it"),
            None => "there is no case file here".to_owned(),
        }));
    }
    let trace = args.trace.as_deref().map(|path| Trace::begin(path, &[])).transpose()?;
    let heed = if args.seen { Heed::Seen } else { Heed::All };
    let outcomes = coco_dma_cases::run_all(&cases, jobs, heed, args.path.0);
    // Apart from the judgement: whoever listens to every map changes the paths.
    if let Some(trace) = &trace {
        for case in &cases {
            trace.remark(&case.name);
            coco_dma_cases::trace(case).iter().for_each(|point| trace.line(point));
        }
        trace.end()?;
    }
    let report = report(&cases, &outcomes, args.compare);
    if args.json {
        output::json(&report)?;
    } else {
        output::lines(&told(&report, args.compare))?;
    }
    match report.failed {
        0 => Ok(()),
        1 => Err(Failure::NotHeld(format!("1 case of {} does not hold", cases.len()))),
        failed => Err(Failure::NotHeld(format!("{failed} cases of {} do not hold", cases.len()))),
    }
}

/// The case files that were named; else those of the repository, else those that are built in.
fn files(paths: &[impl AsRef<Path>]) -> Result<Vec<File>, Failure> {
    if paths.is_empty() {
        let here = env::current_dir().unwrap_or_default();
        let folders = here.ancestors().map(|above| above.join("cases"));
        let mut found = folders.filter(|folder| folder.join("ids.toml").is_file());
        return match found.next() {
            Some(folder) => {
                let shown = folder.strip_prefix(&here).unwrap_or(&folder);
                coco_dma_cases::load(shown).map_err(Failure::Usage)
            }
            None => {
                output::note("no folder cases/ here or above: taking the cases that are built in");
                Ok(coco_dma_cases::built_in())
            }
        };
    }
    let mut files: Vec<File> = Vec::new();
    for path in paths {
        for file in coco_dma_cases::load(path.as_ref()).map_err(Failure::Usage)? {
            if !files.contains(&file) {
                files.push(file);
            }
        }
    }
    Ok(files)
}

fn read(files: &[File]) -> Result<Vec<Case>, Failure> {
    let loaded = Loaded::read(files);
    if loaded.wrong.is_empty() {
        return Ok(loaded.cases);
    }
    let wrong: Vec<String> = loaded.wrong.iter().map(ToString::to_string).collect();
    Err(Failure::Usage(wrong.join("\n")))
}

fn report<'a>(cases: &'a [Case], outcomes: &'a [Outcome], compare: Option<System>) -> Report<'a> {
    let rows = cases.iter().zip(outcomes).map(|(case, outcome)| {
        let linux = case.linux.as_deref().filter(|_| compare == Some(System::Linux));
        Row {
            name: &outcome.name,
            title: &case.title,
            id: case.id.as_deref(),
            ok: outcome.ok,
            expected: &outcome.expected,
            got: &outcome.got,
            place: outcome.place.to_string(),
            witness: outcome.witness.map(Witness::name),
            path: outcome.path.map(Way::name),
            paths: outcome.paths.iter().map(|path| path.name()).collect(),
            linux: linux
                .map(|does| Other { does, why_not_here: case.why.as_deref().unwrap_or_default() }),
        }
    });
    let failed = outcomes.iter().filter(|outcome| !outcome.ok).count();
    Report { passed: outcomes.len() - failed, failed, cases: rows.collect() }
}

/// The report for people: what fails is explained, what holds is counted.
fn told(report: &Report<'_>, compare: Option<System>) -> String {
    let mut text = String::new();
    for row in &report.cases {
        if let Some(Other { does, why_not_here }) = &row.linux {
            text += &format!("{} ({})\n", row.name, row.id.unwrap_or("no id"));
            text += &format!("  here:  {}\n", row.title);
            text += &format!("  linux: {does}\n  why:   {why_not_here}\n");
        }
    }
    if compare.is_some() {
        let differ = report.cases.iter().filter(|row| row.linux.is_some()).count();
        text += &format!("Linux 7.3 does something else in {differ} cases\n");
    }
    for row in report.cases.iter().filter(|row| !row.ok) {
        let path = row.path.map(|path| format!(" on the path {path}")).unwrap_or_default();
        text += &format!("{} does not hold{path} ({})\n", row.name, row.place);
        text += &format!("  {}\n", row.title);
        text += &format!("  expected: {}\n  got:      {}\n", row.expected, row.got);
    }
    match report.passed {
        1 => text += "1 case holds",
        passed => text += &format!("{passed} cases hold"),
    }
    if report.failed > 0 {
        text += &format!(", {} not", report.failed);
    }
    text
}

/// The stories of a file's cases. Their keys are the JSON document's.
#[derive(Debug, Serialize)]
struct Stories<'a> {
    cases: Vec<Story<'a>>,
}

#[derive(Debug, Serialize)]
struct Story<'a> {
    name: &'a str,
    title: &'a str,
    id: Option<&'a str>,
    source: &'a str,
    linux: Option<&'a str>,
    why: Option<&'a str>,
    ok: bool,
    expected: &'a str,
    got: &'a str,
    story: Vec<Told<'a>>,
}

#[derive(Debug, Serialize)]
struct Told<'a> {
    step: &'a str,
    outcome: &'a str,
    steps: Vec<StepText>,
}

/// Tells what each step of a case file came to, rule by rule.
pub(crate) fn explain(file: &Path, json: bool) -> Result<(), Failure> {
    let cases = read(&coco_dma_cases::load(file).map_err(Failure::Usage)?)?;
    let outcomes: Vec<Outcome> = cases.iter().map(coco_dma_cases::run).collect();
    let stories = Stories {
        cases: cases.iter().zip(&outcomes).map(|(case, outcome)| story(case, outcome)).collect(),
    };
    if json {
        output::json(&stories)?;
    } else {
        let texts: Vec<String> = stories.cases.iter().map(Story::text).collect();
        output::lines(texts.join("\n\n").trim_end())?;
    }
    match outcomes.iter().find(|outcome| !outcome.ok) {
        None => Ok(()),
        Some(outcome) => Err(Failure::NotHeld(format!("{} does not hold", outcome.name))),
    }
}

fn story<'a>(case: &'a Case, outcome: &'a Outcome) -> Story<'a> {
    let steps = outcome.story.iter().map(|told| Told {
        step: &told.step,
        outcome: &told.outcome,
        steps: told.rules.iter().map(StepText::from).collect(),
    });
    Story {
        name: &outcome.name,
        title: &case.title,
        id: case.id.as_deref(),
        source: &case.source,
        linux: case.linux.as_deref(),
        why: case.why.as_deref(),
        ok: outcome.ok,
        expected: &outcome.expected,
        got: &outcome.got,
        story: steps.collect(),
    }
}

impl Story<'_> {
    fn text(&self) -> String {
        let mut text = format!("{}: {}\n", self.name, self.title);
        for (place, told) in self.story.iter().enumerate() {
            text += &format!("{:3}. {}: {}\n", place + 1, told.step, told.outcome);
            for rule in &told.steps {
                text += &format!("       {}\n", rule.line());
            }
        }
        let about = [
            ("id", self.id),
            ("source", Some(self.source)),
            ("linux", self.linux),
            ("why", self.why),
        ];
        for (key, said) in about {
            text += &said.map(|said| format!("  {key:<7} {said}\n")).unwrap_or_default();
        }
        let steps = self.story.iter().flat_map(|told| &told.steps);
        let origins: BTreeMap<_, _> = steps.map(StepText::origin).collect();
        if !origins.is_empty() {
            text += "  where the rules come from:\n";
        }
        for (rule, source) in origins {
            text += &format!("       {rule:<16} {source}\n");
        }
        if !self.ok {
            text += &format!("  here it stops: expected {}, got {}\n", self.expected, self.got);
        }
        text.trim_end().to_owned()
    }
}
