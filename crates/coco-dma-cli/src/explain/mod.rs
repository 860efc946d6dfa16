//! `coco-dma explain`: one decision, with every step and its reason.

mod args;
mod machine;
mod pools;
mod question;
pub(crate) mod words;

use coco_dma::addr::AddressLimit;
use coco_dma::addr::BusRanges;
use coco_dma::addr::PhysAddr;
use coco_dma::attrs::Attrs;
use coco_dma::plan::DeviceInfo;
use coco_dma::plan::Limits;
use coco_dma::plan::MapRequest;
use coco_dma::plan::Place;
use coco_dma::plan::PoolInfo;
use coco_dma::regime::PlatformName;
use coco_dma::state::Attachment;
use coco_dma::state::Context;
use coco_dma::state::Direction;
use coco_dma::state::Trust;
use serde::Serialize;

use crate::failure::Failure;
use crate::number::Address;
use crate::output;
pub(crate) use args::ExplainArgs;
use machine::Assumed;
use question::Question;
use words::MemoryWord;
use words::Operation;

/// Allocations are multiples of this, in bytes, and aligned to it.
const PAGE: u64 = 4096;

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
    let mut assumed = Assumed::default();
    let unlocated = args.memory == Some(MemoryWord::Unlocated);
    let place = match args.phys {
        _ if unlocated => Place::Unlocated,
        Some(phys) => Place::At(PhysAddr::new(phys)),
        None => return Err(missing(args)),
    };
    let len = args.size.ok_or_else(|| missing(args))?;
    let platform = assumed.or(args.platform, PlatformName::Tdx, "platform", PlatformName::name);
    let regime = machine::regime(args, platform)?;
    let trust = assumed.or(args.trust, Trust::Untrusted, "trust", |trust| trust.to_string());
    if trust == Trust::Accepted && !regime.has_accepted_devices() {
        return Err(Failure::Usage(format!(
            "--trust: no device can be accepted on '{platform}'; use untrusted"
        )));
    }
    let attrs = args.attrs.iter().fold(Attrs::NONE, |all, attr| all.with(*attr));
    let memory = machine::memory(args, platform, &regime, attrs, &mut assumed)?;
    let iommu = if platform == PlatformName::Sme { "passthrough" } else { "none" };
    let attachment = match (args.iommu, iommu) {
        (Some(given), _) => given,
        (None, word) => {
            assumed.note(format!("iommu {word}"));
            if word == "none" { Attachment::None } else { Attachment::Passthrough }
        }
    };
    let device = DeviceInfo {
        trust,
        limits: Limits {
            mask: AddressLimit::bits(assumed.or(args.mask, 64, "mask", |bits| bits.to_string())),
            segment: args.segment,
            boundary: args.boundary,
            min_align: args.min_align_mask.unwrap_or_default(),
            cache_line: args.cache_line.unwrap_or(Limits::NONE.cache_line),
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
    let iommu_page = args.iommu_page.filter(|_| attachment.is_translated()).unwrap_or(1);
    let pools: Vec<PoolInfo> = args.pools.iter().map(|pool| pool.info).collect();
    let request = MapRequest {
        regime: &regime,
        device: &device,
        place,
        len,
        memory,
        direction,
        attrs,
        align: args.align.unwrap_or(1).max(iommu_page),
        pools: &pools,
    };
    let kind = args.kind.unwrap_or_default();
    let offset = args.offset.unwrap_or(0);
    let part = args.length.unwrap_or_else(|| len.saturating_sub(offset));
    let question = Question {
        operation,
        context,
        kind,
        page: PAGE.max(iommu_page),
        align: args.align.unwrap_or(1),
        pages: args.pages.unwrap_or(true),
        alive: !args.revoked,
        part: (offset, part),
        request,
        pools: &args.pools,
    };
    Ok(question.answer(assumed.0))
}

/// What was not said and cannot be assumed.
fn missing(args: &ExplainArgs) -> Failure {
    let needed = [("--phys <ADDR>", args.phys), ("--size <N>", args.size)];
    let missing = needed.iter().filter(|(_, given)| given.is_none()).map(|(option, _)| *option);
    let verb = if args.phys.or(args.size).is_some() { "is" } else { "are" };
    let missing: Vec<&str> = missing.collect();
    Failure::Usage(format!("{} {verb} required; see --help", missing.join(" and ")))
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
