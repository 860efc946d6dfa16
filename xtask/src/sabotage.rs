//! Does anybody notice when the layer is made wrong on purpose? Each sabotage of the table is put
//! into a copy of the tree, one at a time, at the line that a marker names, and the cases are run
//! on it, heeding nothing that the layer says of itself: the cases that the table names have to
//! fail by what a device, the host, a driver or the machine saw.
//!
//! | module | what |
//! |---|---|
//! | `table` | the rows: what is made wrong, and who sees it |
//! | `markers` | where in the sources, and the text that comes of it |
//! | `compile` | whether each still compiles: seconds, so that `test` has time for it |
//! | `copy` | the tree that harm is done to |

mod compile;
mod copy;
mod markers;
mod table;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use serde_json::Value;

use crate::shell::Workshop;
use copy::copy;
use markers::{Mutant, mutants};
use table::{Sabotage, TABLE, read};

/// How long the cases may take: one that hangs is ended by the runner, the rest takes seconds.
const PATIENCE: Duration = Duration::from_secs(600);

/// Cases that do not hold, by name, each with who saw it.
type Failed = BTreeMap<String, String>;

#[derive(Args)]
pub(crate) struct Options {
    /// Only these sabotages, by the names of their markers
    names: Vec<String>,
    /// Check that each still compiles, and run no case
    #[arg(long)]
    compile: bool,
}

/// `cargo xtask sabotage`.
pub(crate) fn command(shop: &Workshop, options: &Options) -> Result<()> {
    let table = read(TABLE)?;
    if let Some(unknown) = options.names.iter().find(|&name| !table.iter().any(|s| s.name == *name))
    {
        bail!("no sabotage is called `{unknown}`: xtask/src/sabotage/sabotages.table has them");
    }
    let chosen = |s: &Sabotage| options.names.is_empty() || options.names.contains(&s.name);
    if options.compile { compile_only(shop, &table, chosen) } else { run(shop, &table, chosen) }
}

/// The step `sabotage` of `deep`: each is seen.
pub(crate) fn step(shop: &mut Workshop) -> Result<()> {
    run(shop, &read(TABLE)?, |_| true)
}

/// The step `sabotage` of `test`: each finds its marker, and compiles.
pub(crate) fn compile_step(shop: &mut Workshop) -> Result<()> {
    compile_only(shop, &read(TABLE)?, |_| true)
}

/// Tries the sabotages that are chosen. Markers and table have to agree in all of them.
fn run(shop: &Workshop, table: &[Sabotage], chosen: impl Fn(&Sabotage) -> bool) -> Result<()> {
    let mut mutants = mutants(&shop.root, table)?;
    mutants.retain(|mutant| chosen(mutant.sabotage));
    let yard = Yard::open(shop)?;
    let failed = yard.failed().context("before any sabotage")?;
    ensure!(failed.is_empty(), "before any sabotage these do not hold: {failed:?}");
    let mut unseen = 0;
    for mutant in &mutants {
        let sabotage = mutant.sabotage;
        let failed = yard.with(&[mutant], Yard::failed).with_context(|| sabotage.told())?;
        let lacking = sabotage.lacking(&failed);
        if lacking.is_empty() {
            println!("   seen in {:3} cases: {}", failed.len(), sabotage.told());
            continue;
        }
        unseen += 1;
        println!("   NOT SEEN as the table says: {}", sabotage.told());
        for line in lacking {
            println!("      {line}");
        }
        for (case, witness) in failed.iter().take(12) {
            println!("      did fail: {case} {witness}");
        }
    }
    ensure!(unseen == 0, "{unseen} of {} sabotages were not seen", mutants.len());
    println!("   {} sabotages, each seen", mutants.len());
    Ok(())
}

fn compile_only(
    shop: &Workshop,
    table: &[Sabotage],
    chosen: impl Fn(&Sabotage) -> bool,
) -> Result<()> {
    let mut mutants = mutants(&shop.root, table)?;
    mutants.retain(|mutant| chosen(mutant.sabotage));
    compile::all(&Yard::open(shop)?, &mutants)
}

/// Where sabotaged trees are built.
struct Yard<'a> {
    shop: &'a Workshop,
    tree: PathBuf,
    target: PathBuf,
}

impl<'a> Yard<'a> {
    /// A yard with a fresh copy of the tree.
    fn open(shop: &'a Workshop) -> Result<Self> {
        let (tree, target) =
            (shop.target.join("sabotage/tree"), shop.target.join("sabotage/target"));
        copy(&shop.root, &tree)?;
        Ok(Self { shop, tree, target })
    }

    /// Does something with mutants in the tree, which are taken out again. Each has a file of its
    /// own.
    fn with<T>(&self, mutants: &[&Mutant<'_>], what: impl FnOnce(&Self) -> Result<T>) -> Result<T> {
        for mutant in mutants {
            fs::write(self.tree.join(&mutant.path), &mutant.text)?;
        }
        let result = what(self);
        for mutant in mutants {
            fs::copy(self.shop.root.join(&mutant.path), self.tree.join(&mutant.path))?;
        }
        result
    }

    /// A `cargo` command on the tree.
    fn cargo(&self, line: &str) -> Command {
        let mut cargo = self.shop.cargo(line);
        cargo.current_dir(&self.tree).env("CARGO_TARGET_DIR", &self.target);
        // Nobody debugs it, and a sabotage may leave something unused.
        cargo.env("CARGO_PROFILE_DEV_DEBUG", "0").env("RUSTFLAGS", "--cap-lints allow");
        cargo
    }

    /// Builds the tree, and runs its cases.
    fn failed(&self) -> Result<Failed> {
        let mut build = self.cargo("build --quiet --locked --package coco-dma-cli");
        let output = self.shop.capture(build.stderr(Stdio::piped()), None)?;
        if !output.status.success() {
            bail!("it does not build:\n{}", String::from_utf8_lossy(&output.stderr));
        }
        let mut check = self.shop.program(&self.target.join("debug/coco-dma").to_string_lossy());
        check.args(["check", "--seen", "--json"]).current_dir(&self.tree).stderr(Stdio::piped());
        failed_of(&self.shop.capture(&mut check, Some(PATIENCE))?)
    }
}

fn failed_of(output: &Output) -> Result<Failed> {
    let report: Value = serde_json::from_slice(&output.stdout).with_context(|| {
        format!("no report: {}: {}", output.status, String::from_utf8_lossy(&output.stderr))
    })?;
    let cases = report.get("cases").and_then(Value::as_array).context("no cases")?;
    let word = |case: &Value, key: &str| {
        case.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    let failed = cases.iter().filter(|case| case.get("ok") != Some(&Value::Bool(true)));
    Ok(failed.map(|case| (word(case, "name"), word(case, "witness"))).collect())
}
