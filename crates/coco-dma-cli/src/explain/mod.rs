//! `coco-dma explain`: one decision, with every step and its reason.

mod question;
pub(crate) mod words;

use coco_dma::addr::AddressLimit;
use coco_dma::addr::BusRanges;
use coco_dma::addr::PhysAddr;
use coco_dma::attrs::Attrs;
use coco_dma::plan::DeviceFace;
use coco_dma::plan::Limits;
use coco_dma::plan::MapRequest;
use coco_dma::plan::Place;
use coco_dma::plan::PoolFace;
use coco_dma::regime::Parameters;
use coco_dma::regime::PlatformName;
use coco_dma::regime::Regime;
use coco_dma::state::Attachment;
use coco_dma::state::Context;
use coco_dma::state::Direction;
use coco_dma::state::Memory;
use coco_dma::state::State;
use coco_dma::state::Trust;
use serde::Serialize;

use crate::args::ExplainArgs;
use crate::failure::Failure;
use crate::number::Address;
use crate::output;
use crate::words::unknown;
use question::Question;
use words::MEMORY;
use words::MemoryWord;
use words::Operation;

/// The answer.
#[derive(Debug, Serialize)]
struct Answer<'a> {
    operation: &'static str,
    outcome: &'static str,
    dma_addr: Option<Address>,
    pool: Option<&'a str>,
    reason: &'static str,
    steps: Vec<StepText>,
    assumed: Vec<String>,
}

#[derive(Debug, Serialize)]
struct StepText {
    rule: &'static str,
    text: String,
}

/// Runs the command.
pub(crate) fn explain(args: &ExplainArgs) -> Result<(), Failure> {
    if let Some(file) = &args.case {
        return crate::check::explain(file, args.json);
    }
    let answer = decide(args)?;
    if args.json {
        return output::json(&answer);
    }
    output::lines(&story(&answer))
}

fn decide(args: &ExplainArgs) -> Result<Answer<'_>, Failure> {
    let mut assumed = Assumed(Vec::new());
    let platform = assumed.or(args.platform, PlatformName::Tdx, "platform", PlatformName::name);
    let regime = regime(args, platform)?;
    let trust = assumed.or(args.trust, Trust::Untrusted, "trust", |trust| trust.to_string());
    if trust == Trust::Accepted && !regime.has_accepted_devices() {
        return Err(Failure::Usage(format!(
            "--trust: no device can be accepted on '{platform}'; use untrusted"
        )));
    }
    let attrs = args.attrs.iter().fold(Attrs::NONE, |all, attr| all.with(*attr));
    let memory = memory(args, platform, &regime, attrs, &mut assumed)?;
    let iommu = if platform == PlatformName::Sme { "passthrough" } else { "none" };
    let attachment = match (args.iommu, iommu) {
        (Some(given), _) => given,
        (None, word) => {
            assumed.note(format!("iommu {word}"));
            if word == "none" { Attachment::None } else { Attachment::Passthrough }
        }
    };
    let device = DeviceFace {
        trust,
        limits: Limits {
            mask: AddressLimit::bits(assumed.or(args.mask, 64, "mask", |bits| bits.to_string())),
            boundary: args.boundary,
            min_align: args.min_align_mask.unwrap_or_default(),
            ..Limits::NONE
        },
        bus_limit: args.bus_limit.map_or(AddressLimit::NONE, AddressLimit::last),
        bus: BusRanges::new(&args.bus_range),
        attachment,
        coherent: assumed.or(args.coherent, true, "coherent", |yes| if yes { "yes" } else { "no" }),
        external_facing: args.external_facing,
        force_bounce: args.force_bounce,
        node: args.node,
    };
    let direction = assumed.or(args.direction, Direction::Both, "direction", |way| way.to_string());
    let operation = assumed.or(args.operation, Operation::Map, "operation", |_| "map");
    let context = assumed.or(args.context, Context::Blocking, "context", |_| "blocking");
    let pools: Vec<PoolFace> = args.pools.iter().map(|pool| pool.face).collect();
    let request = MapRequest {
        regime: &regime,
        device: &device,
        place: Place::At(PhysAddr::new(args.phys.unwrap_or(0))),
        len: args.size.unwrap_or(0),
        memory,
        direction,
        attrs,
        align: 1,
        pools: &pools,
    };
    let kind = args.kind.unwrap_or_default();
    let offset = args.offset.unwrap_or(0);
    let part = args.length.unwrap_or_else(|| request.len.saturating_sub(offset));
    let question =
        Question { operation, context, kind, part: (offset, part), request, pools: &args.pools };
    Ok(question.answer(assumed.0))
}

/// The rules of the machine; options that the platform does not use are left out with a note.
fn regime(args: &ExplainArgs, platform: PlatformName) -> Result<Regime, Failure> {
    use PlatformName::{Cca, Hyperv, Sev, Sme, Snp, SnpVtom, Tdx};
    let used = |given: bool, option: &str, by: &[PlatformName]| {
        if given && !by.contains(&platform) {
            output::note(&format!("{option} means nothing on '{platform}' and is ignored"));
        }
    };
    used(args.c_bit.is_some(), "--c-bit", &[Sme, Sev, Snp]);
    used(args.ipa_bits.is_some(), "--ipa-bits", &[Cca]);
    used(args.gpaw.is_some(), "--gpaw", &[Tdx]);
    used(args.vtom.is_some(), "--vtom", &[SnpVtom, Hyperv]);
    let numbers = Parameters {
        c_bit: args.c_bit,
        ipa_bits: args.ipa_bits,
        gpaw: args.gpaw,
        vtom: args.vtom,
        granule: args.granule,
    };
    platform.regime(&numbers).map_err(|wrong| Failure::Usage(format!("{wrong}; see --help")))
}

/// What is known of the memory. On an open machine any word but `peer` is ignored; elsewhere a word of
/// another kind of machine is wrong.
fn memory(
    args: &ExplainArgs,
    platform: PlatformName,
    regime: &Regime,
    attrs: Attrs,
    assumed: &mut Assumed,
) -> Result<Memory, Failure> {
    let word = match args.memory {
        Some(word) => word,
        None if attrs.contains(Attrs::MMIO) => MemoryWord::Mmio,
        None => match regime {
            Regime::Open => return Ok(Memory::Untracked),
            Regime::Host(_) => {
                assumed.note("memory encrypted".to_owned());
                MemoryWord::Encrypted
            }
            Regime::Guest(_) => {
                assumed.note("memory private".to_owned());
                MemoryWord::Private
            }
        },
    };
    Ok(match (regime, word) {
        (_, MemoryWord::Peer) => Memory::Peer,
        (Regime::Open, _) => Memory::Untracked,
        (_, MemoryWord::Mmio) => Memory::Mmio,
        (Regime::Host(_), MemoryWord::Encrypted) => Memory::Known(State::ENCRYPTED),
        (Regime::Host(_), MemoryWord::Plain) => Memory::Known(State::PLAIN),
        (Regime::Guest(_), MemoryWord::Private) => Memory::Known(State::PRIVATE),
        (Regime::Guest(_), MemoryWord::Shared) => Memory::Known(State::SHARED),
        (Regime::Guest(_), MemoryWord::Untracked) => Memory::Untracked,
        (Regime::Guest(_), MemoryWord::Mixed) => Memory::Mixed,
        (_, word) => {
            let word = MEMORY.iter().find(|(_, w)| *w == word).map_or("", |(name, _)| name);
            let here: &[&str] = match regime {
                Regime::Guest(_) => &["private", "shared", "untracked", "mixed", "mmio", "peer"],
                _ => &["encrypted", "plain", "mmio", "peer"],
            };
            let what = format!("state of memory on '{platform}'");
            return Err(Failure::Usage(unknown(&what, word, here.iter().copied())));
        }
    })
}

/// What was not said and taken for granted.
struct Assumed(Vec<String>);

impl Assumed {
    fn note(&mut self, what: String) {
        self.0.push(what);
    }

    fn or<T: Copy, S: ToString>(
        &mut self,
        given: Option<T>,
        default: T,
        what: &str,
        name: impl Fn(T) -> S,
    ) -> T {
        given.unwrap_or_else(|| {
            self.note(format!("{what} {}", name(default).to_string()));
            default
        })
    }
}

/// The answer for people: a short numbered story.
fn story(answer: &Answer<'_>) -> String {
    let addr = match answer.dma_addr {
        Some(Address(addr)) => format!(" at {addr:#x}"),
        None => String::new(),
    };
    let pool = answer.pool.map(|pool| format!(" through {pool}")).unwrap_or_default();
    let mut text = format!("{} ({}){addr}{pool}\n", answer.outcome, answer.reason);
    for (place, step) in answer.steps.iter().enumerate() {
        text += &format!("{:3}. {:<16} {}\n", place + 1, step.rule, step.text);
    }
    if !answer.assumed.is_empty() {
        text += &format!("assumed: {}", answer.assumed.join(", "));
    }
    text.trim_end().to_owned()
}
