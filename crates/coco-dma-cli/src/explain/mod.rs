//! `coco-dma explain`: one decision, with every step and its reason. The question becomes a case of one
//! step, which `coco-dma-cases` reads and answers; what is here is options, tables and stories.

mod args;
mod draft;
mod matrix;

use coco_dma::plan::Rule;
use coco_dma::regime::Parameters;
use coco_dma::regime::PlatformName;
use coco_dma::regime::Regime;
use coco_dma_cases::Answer;
use coco_dma_cases::answer;
use serde::Serialize;

use crate::failure::Failure;
use crate::number::Address;
use crate::output;
pub(crate) use args::ExplainArgs;
use draft::Draft;
use draft::Mistake;

/// The platform that is meant where none is named.
const PLATFORM: &str = "tdx";

/// The answer. Its keys are the JSON document's.
#[derive(Debug, Serialize)]
struct Told {
    operation: String,
    outcome: &'static str,
    dma_addr: Option<Address>,
    pool: Option<String>,
    reason: String,
    steps: Vec<StepText>,
    assumed: Vec<String>,
}

/// A rule that was applied. Its keys are the JSON document's.
#[derive(Debug, Serialize)]
pub(crate) struct StepText {
    rule: &'static str,
    text: String,
    source: &'static str,
}

impl From<&(Rule, String)> for StepText {
    fn from((rule, text): &(Rule, String)) -> Self {
        Self { rule: rule.name(), text: text.clone(), source: rule.origin() }
    }
}

impl StepText {
    /// The rule and where it comes from.
    pub(crate) fn origin(&self) -> (&'static str, &'static str) {
        (self.rule, self.source)
    }

    /// A line of a story.
    pub(crate) fn line(&self) -> String {
        format!("{:<16} {}", self.rule, self.text)
    }
}

/// Runs the command.
pub(crate) fn explain(args: &ExplainArgs) -> Result<(), Failure> {
    if let Some(file) = &args.case {
        return crate::check::explain(file, args.json);
    }
    args.check()?;
    if let Some(form) = args.matrix {
        return matrix::print(args, form);
    }
    let platform = args.platform.as_deref().unwrap_or(PLATFORM);
    let draft = Draft::new(args, platform, args.trust.as_deref())?;
    let answer = ask(&draft)?;
    if args.emit_case {
        return output::lines(&as_case(args, platform, &draft, &answer));
    }
    args.note_unused(platform);
    let told = Told {
        operation: args.operation().to_owned(),
        outcome: answer.outcome,
        dma_addr: answer.address.map(Address),
        pool: answer.pool,
        reason: answer.reason,
        steps: answer.rules.iter().map(StepText::from).collect(),
        assumed: args.assumed(platform),
    };
    if args.json { output::json(&told) } else { output::lines(&story(&told)) }
}

/// Asks a question.
fn ask(draft: &Draft) -> Result<Answer, Failure> {
    answer_to(draft).map_err(Failure::from)
}

fn answer_to(draft: &Draft) -> Result<Answer, Mistake> {
    let case = draft.read()?;
    answer(&case).ok_or_else(|| Mistake::of_nothing("this is no question"))
}

/// The answer for people: a short numbered story.
fn story(told: &Told) -> String {
    let addr = match told.dma_addr {
        Some(Address(addr)) => format!(" at {addr:#x}"),
        None => String::new(),
    };
    let pool = told.pool.as_ref().map(|pool| format!(" through {pool}")).unwrap_or_default();
    let mut text = format!("{} ({}){addr}{pool}\n", told.outcome, told.reason);
    for (place, step) in told.steps.iter().enumerate() {
        text += &format!("{:3}. {}\n", place + 1, step.line());
    }
    if !told.assumed.is_empty() {
        text += &format!("assumed: {}", told.assumed.join(", "));
    }
    text.trim_end().to_owned()
}

/// The question as a case file that expects its answer.
fn as_case(args: &ExplainArgs, platform: &str, draft: &Draft, answer: &Answer) -> String {
    let Answer { outcome, reason, address, pool, rules } = answer;
    let mut expect = format!("[step.expect]\noutcome = \"{outcome}\"\n");
    if !reason.is_empty() {
        expect += &format!("reason = \"{reason}\"\n");
    }
    if let Some(address) = address {
        expect += &format!("address = {}\n", draft::value(&format!("{address:#x}")));
    }
    if let Some(pool) = pool {
        expect += &format!("pool = {}\n", draft::quoted(pool));
    }
    let rules: Vec<String> = rules.iter().map(|(rule, _)| draft::quoted(rule.name())).collect();
    expect += &format!("rules = [{}]", rules.join(", "));
    let operation = args.operation();
    let title = format!("On {platform}, {operation} comes to {outcome} ({reason})");
    draft.text(&title, &expect)
}

impl ExplainArgs {
    fn operation(&self) -> &str {
        self.operation.as_deref().unwrap_or("map")
    }

    fn is_unlocated(&self) -> bool {
        self.memory.as_deref() == Some("unlocated")
    }

    /// Whether it is about an allocation, which is nowhere and in no state before it is made.
    fn is_of_allocation(&self) -> bool {
        let registers = self.attrs.iter().any(|attr| attr == "mmio");
        match self.operation() {
            "alloc" | "free" => true,
            "mmap" => self.memory.is_none() && !registers,
            _ => false,
        }
    }

    /// What cannot be assumed is there.
    fn check(&self) -> Result<(), Failure> {
        let nowhere = self.is_unlocated() || self.is_of_allocation();
        let phys = self.phys.is_none() && !nowhere;
        let missing: Vec<&str> = [(phys, "--phys <ADDR>"), (self.size.is_none(), "--size <N>")]
            .into_iter()
            .filter_map(|(missing, option)| missing.then_some(option))
            .collect();
        let verb = if missing.len() == 1 { "is" } else { "are" };
        if missing.is_empty() {
            return Ok(());
        }
        Err(Failure::Usage(format!("{} {verb} required; see --help", missing.join(" and "))))
    }

    /// Options that a platform does not use are ignored, with a note.
    fn note_unused(&self, platform: &str) {
        let options = [
            (&self.c_bit, "--c-bit", &["sme", "sev", "snp"][..]),
            (&self.ipa_bits, "--ipa-bits", &["cca"]),
            (&self.gpaw, "--gpaw", &["tdx"]),
            (&self.vtom, "--vtom", &["snp-vtom", "hyperv"]),
        ];
        for (given, option, by) in options {
            if given.is_some() && !by.contains(&platform) {
                output::note(&format!("{option} means nothing on '{platform}' and is ignored"));
            }
        }
    }

    /// What was not said and is taken for granted.
    fn assumed(&self, platform: &str) -> Vec<String> {
        let named = PlatformName::ALL.iter().find(|known| known.name() == platform);
        let regime = named.and_then(|name| name.regime(&Parameters::default()).ok());
        let host = matches!(regime, Some(Regime::Host(_)));
        let registers = self.attrs.iter().any(|attr| attr == "mmio");
        let no_map = self.is_of_allocation() || self.operation() == "mmap";
        let memory = match regime {
            _ if self.is_of_allocation() || registers => None,
            Some(Regime::Open) | None => None,
            Some(Regime::Host(_)) => Some("encrypted"),
            Some(Regime::Guest(_)) => Some("private"),
        };
        let all = [
            (self.platform.is_some(), "platform", Some(PLATFORM)),
            (self.trust.is_some(), "trust", Some("untrusted")),
            (self.memory.is_some(), "memory", memory),
            (self.iommu.is_some(), "iommu", Some(if host { "passthrough" } else { "none" })),
            (self.mask.is_some(), "mask", Some("64")),
            (self.coherent.is_some(), "coherent", Some("yes")),
            (self.direction.is_some(), "direction", (!no_map).then_some("both")),
            (self.operation.is_some(), "operation", Some("map")),
            (self.context.is_some(), "context", Some("blocking")),
        ];
        let left = all.into_iter().filter(|(said, ..)| !said);
        left.filter_map(|(_, what, default)| Some(format!("{what} {}", default?))).collect()
    }
}
