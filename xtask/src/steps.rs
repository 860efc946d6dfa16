//! The steps of `test` and `deep`, in the order in which they run.

mod bare;
mod builds;
mod deep;
mod end_to_end;
mod gate;
mod mutants;
mod tests;

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::Args;

use crate::checks::{files, instructions, open_path, unsafety};
use crate::shell::Workshop;
use crate::{floors, guest, packages, sabotage};

/// One check: it holds, or it says why not.
pub(crate) struct Step {
    name: &'static str,
    purpose: &'static str,
    run: fn(&mut Workshop) -> Result<()>,
}

const fn step(
    name: &'static str,
    purpose: &'static str,
    run: fn(&mut Workshop) -> Result<()>,
) -> Step {
    Step { name, purpose, run }
}

/// `cargo xtask test`. Cheap ones first: a formatting slip should not cost ten minutes.
pub(crate) const TEST: &[Step] = &[
    step("fmt", "the sources are formatted", builds::fmt),
    step("floors", "imports go down, crates depend downwards", floors::step),
    step("unsafe", "every file with unsafe code opens with why", unsafety::step),
    step("files", "no file too long, lib.rs a table of contents", files::step),
    step("clippy", "lints, warnings denied", builds::clippy),
    step("build", "the command, as it is shipped", builds::release),
    step("test", "unit, integration and documentation tests", tests::all),
    step("sabotage", "each sabotage has its line, and compiles", sabotage::compile_step),
    step(
        "exhaustive",
        "every point of the finite core of plan, a million steps on pools",
        tests::exhaustive,
    ),
    step("examples", "the examples of the README run", tests::examples),
    step("loom", "every interleaving of the lock-free parts, 3 preemptions", tests::loom),
    step("shuttle", "4 to 8 threads on a pool, 1,000 schedules of each kind", tests::shuttle),
    step("gate", "no std, no alloc, no way to panic", gate::run),
    step("open-path", "what a map costs on an open machine", open_path::step),
    step("instructions", "what a map costs beside the reference", instructions::step),
    step("doc", "documentation builds, links hold", builds::doc),
    step("run", "real I/O with each device, equal hashes", end_to_end::run),
    step("guest", "a bare-metal guest, real IOMMUs, attacks and their controls", guest::step),
];

/// `cargo xtask deep`.
pub(crate) const DEEP: &[Step] = &[
    step("properties", "property tests, 20,000 cases each", deep::properties),
    step("loom", "every interleaving, 4 preemptions", deep::loom),
    step("shuttle", "4 to 8 threads on a pool, 10,000 schedules of each kind", deep::shuttle),
    step("asan", "the core's tests under AddressSanitizer", deep::asan),
    step("tsan", "threads on the pools under ThreadSanitizer", deep::tsan),
    step(
        "bare",
        "the crates for bare x86-64, Arm and RISC-V, also without 64-bit atomics",
        bare::run,
    ),
    step(
        "sabotage",
        "the layer made wrong on purpose: seen by a device, a host, a driver",
        sabotage::step,
    ),
    step("mutants", "does a test notice when the decision is changed?", mutants::run),
    step("deny", "licences, sources and duplicates of dependencies", deep::deny),
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
    /// List the steps and end
    #[arg(long)]
    list: bool,
}

/// Runs the steps that were asked for.
pub(crate) fn run(
    shop: &mut Workshop,
    command: &str,
    steps: &[Step],
    options: &Options,
) -> Result<()> {
    if options.list {
        for Step { name, purpose, .. } in steps {
            println!("{name:<12} {purpose}");
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
    println!("{command} passed: {} steps in {}", chosen.len(), pretty(start.elapsed()));
    Ok(())
}

fn run_all(shop: &mut Workshop, steps: &[&Step], keep_going: bool) -> Vec<&'static str> {
    let mut failed = Vec::new();
    let mut times = Vec::new();
    for (number, step) in steps.iter().enumerate() {
        println!("\n== {}/{} {}: {}", number + 1, steps.len(), step.name, step.purpose);
        let (start, omitted) = (Instant::now(), shop.omitted.len());
        let result = (step.run)(shop);
        times.push((step.name, start.elapsed()));
        match result {
            Ok(()) => {
                let how =
                    if shop.omitted.len() > omitted { "held, as far as it went" } else { "held" };
                println!("   {} {how} ({})", step.name, pretty(start.elapsed()));
            }
            Err(error) => {
                println!("   {} FAILED ({}): {error:#}", step.name, pretty(start.elapsed()));
                failed.push(step.name);
                if !keep_going {
                    break;
                }
            }
        }
    }
    let times: Vec<_> =
        times.iter().map(|(name, time)| format!("{name} {}", pretty(*time))).collect();
    println!("\nTimes: {}", times.join(", "));
    failed
}

fn pretty(time: Duration) -> String {
    match time.as_secs() {
        0..60 => format!("{:.1} s", time.as_secs_f64()),
        seconds => format!("{} min {} s", seconds / 60, seconds % 60),
    }
}
