//! The steps of `test` and `deep`, in the order in which they run.

mod bare;
mod builds;
mod deep;
mod end_to_end;
mod gate;
mod mutants;
mod tests;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::checks::{files, instructions, open_path, unsafety};
use crate::shell::{Workshop, shown};
use crate::{floors, guest, packages, sabotage};

/// One check: it holds, or it says why not.
pub(crate) struct Step {
    name: &'static str,
    purpose: &'static str,
    /// How many minutes it may take, on a machine that has much else to do: several times of what
    /// two idle cores need from nothing. One test of it may take a quarter of that.
    limit: u64,
    run: fn(&mut Workshop) -> Result<()>,
}

impl Step {
    fn limit(&self) -> Duration {
        Duration::from_secs(60 * self.limit)
    }
}

const fn step(
    name: &'static str,
    purpose: &'static str,
    limit: u64,
    run: fn(&mut Workshop) -> Result<()>,
) -> Step {
    Step { name, purpose, limit, run }
}

/// `cargo xtask test`. Cheap ones first: a formatting slip should not cost ten minutes.
pub(crate) const TEST: &[Step] = &[
    step("fmt", "the sources are formatted", 10, builds::fmt),
    step("floors", "imports go down, crates depend downwards", 10, floors::step),
    step("unsafe", "every file with unsafe code opens with why", 10, unsafety::step),
    step("files", "no file too long, lib.rs a table of contents", 10, files::step),
    step("clippy", "lints, warnings denied", 40, builds::clippy),
    step("build", "the command, as it is shipped", 40, builds::release),
    step("test", "unit, integration and documentation tests", 90, tests::all),
    step("sabotage", "each sabotage has its line, and compiles", 40, sabotage::compile_step),
    step(
        "exhaustive",
        "every point of the finite core of plan, a million steps on pools",
        60,
        tests::exhaustive,
    ),
    step("examples", "the examples of the README run", 20, tests::examples),
    step("loom", "every interleaving of the lock-free parts, 3 preemptions", 60, tests::loom),
    step("shuttle", "4 to 8 threads on a pool, 1,000 schedules of each kind", 60, tests::shuttle),
    step("gate", "no std, no alloc, no way to panic", 20, gate::run),
    step("open-path", "what a map costs on an open machine", 20, open_path::step),
    step("instructions", "what a map costs beside the reference", 40, instructions::step),
    step("doc", "documentation builds, links hold", 30, builds::doc),
    step("run", "real I/O with each device, equal hashes", 40, end_to_end::run),
    step("guest", "a bare-metal guest, real IOMMUs, attacks and their controls", 60, guest::step),
];

/// `cargo xtask deep`.
pub(crate) const DEEP: &[Step] = &[
    step("properties", "property tests, 20,000 cases each", 480, deep::properties),
    step("questions", "100,000 random questions, asked and done", 600, deep::questions),
    step("loom", "every interleaving, 4 preemptions", 480, deep::loom),
    step("shuttle", "4 to 8 threads on a pool, 10,000 schedules of each kind", 240, deep::shuttle),
    step("asan", "the core's tests under AddressSanitizer", 120, deep::asan),
    step("tsan", "threads on the pools under ThreadSanitizer", 120, deep::tsan),
    step(
        "bare",
        "the crates for bare x86-64, Arm and RISC-V, also without 64-bit atomics",
        60,
        bare::run,
    ),
    step(
        "sabotage",
        "the layer made wrong on purpose: seen by a device, a host, a driver",
        240,
        sabotage::step,
    ),
    step("mutants", "does a test notice when the decision is changed?", 1440, mutants::run),
    step("deny", "licences, sources and duplicates of dependencies", 20, deep::deny),
];

#[derive(Args)]
pub(crate) struct Options {
    /// Leave nothing out but what this kernel lacks: anything else that is missing is a failure
    #[arg(long)]
    ci: bool,
    /// Run only this step (repeatable)
    #[arg(long, value_name = "STEP")]
    only: Vec<String>,
    /// Go on after a step that failed
    #[arg(long)]
    keep_going: bool,
    /// List the steps, each with the time that it may take, and end
    #[arg(long)]
    list: bool,
}

/// Runs one step of `test` by itself.
pub(crate) fn one(shop: &mut Workshop, name: &str) -> Result<()> {
    (begin(shop, TEST, name)?.run)(shop)
}

/// Begins the time of a step of `deep`, for something that is done in its place.
pub(crate) fn begin_deep(shop: &mut Workshop, name: &str) -> Result<()> {
    begin(shop, DEEP, name).map(drop)
}

fn begin(shop: &mut Workshop, steps: &'static [Step], name: &str) -> Result<&'static Step> {
    let step = steps.iter().find(|step| step.name == name).context("no such step")?;
    shop.begin(step.name, step.limit());
    Ok(step)
}

/// Runs the steps that were asked for.
pub(crate) fn run(
    shop: &mut Workshop,
    command: &str,
    steps: &[Step],
    options: &Options,
) -> Result<()> {
    if options.list {
        for Step { name, purpose, limit, .. } in steps {
            println!("{name:<12} {limit:>4} min  {purpose}");
        }
        return Ok(());
    }
    if let Some(wrong) = options.only.iter().find(|only| steps.iter().all(|s| s.name != **only)) {
        bail!("{command} has no step `{wrong}`; `cargo xtask {command} --list` shows them");
    }
    let chosen: Vec<&Step> = steps
        .iter()
        .filter(|step| options.only.is_empty() || options.only.iter().any(|o| o == step.name))
        .collect();

    let start = Instant::now();
    // The checks of sources need no program of Debian's.
    let needy = ["test", "run", "guest", "instructions", "properties"];
    if chosen.iter().any(|step| needy.contains(&step.name)) {
        packages::install(shop)?;
    }
    let failed = run_all(shop, &chosen, options.keep_going);

    println!();
    shop.omitted.print();
    if !failed.is_empty() {
        bail!("{command} FAILED in {}", failed.join(", "));
    }
    let unforgiven = shop.omitted.unforgiven().count();
    if options.ci && unforgiven > 0 {
        bail!("{command} FAILED: {unforgiven} checks left out that the kernel is not to blame for");
    }
    println!("{command} passed: {} steps in {}", chosen.len(), shown(start.elapsed()));
    Ok(())
}

fn run_all(shop: &mut Workshop, steps: &[&Step], keep_going: bool) -> Vec<&'static str> {
    let mut failed = Vec::new();
    let mut times = Vec::new();
    for (number, step) in steps.iter().enumerate() {
        println!("\n== {}/{} {}: {}", number + 1, steps.len(), step.name, step.purpose);
        let (start, omitted) = (Instant::now(), shop.omitted.len());
        shop.begin(step.name, step.limit());
        let result = (step.run)(shop);
        times.push((step.name, start.elapsed()));
        match result {
            Ok(()) => {
                let how =
                    if shop.omitted.len() > omitted { "held, as far as it went" } else { "held" };
                println!("   {} {how} ({})", step.name, shown(start.elapsed()));
            }
            Err(error) => {
                println!("   {} FAILED ({}): {error:#}", step.name, shown(start.elapsed()));
                failed.push(step.name);
                if !keep_going {
                    break;
                }
            }
        }
    }
    let times: Vec<_> =
        times.iter().map(|(name, time)| format!("{name} {}", shown(*time))).collect();
    println!("\nTimes: {}", times.join(", "));
    failed
}
