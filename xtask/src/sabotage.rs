//! Does anybody notice when the layer is made wrong on purpose? Each sabotage of the table is put
//! into a copy of the tree, one at a time, and the cases are run on it, heeding nothing that the
//! layer says of itself: the cases that the table names have to fail by what a device, the host, a
//! driver or the machine saw.

mod copy;
mod table;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::shell::Workshop;
use copy::copy;
use table::{Sabotage, TABLE, read};

/// Cases that do not hold, by name, each with who saw it.
type Failed = BTreeMap<String, String>;

/// The step `sabotage`.
pub(crate) fn step(shop: &mut Workshop) -> Result<()> {
    let table = read(TABLE)?;
    let (tree, target) = (shop.target.join("sabotage/tree"), shop.target.join("sabotage/target"));
    copy(&shop.root, &tree)?;
    let yard = Yard { shop, tree: &tree, target: &target };
    let failed = yard.failed().context("before any sabotage")?;
    ensure!(failed.is_empty(), "before any sabotage these do not hold: {failed:?}");
    let mut unseen = 0;
    for sabotage in &table {
        let failed = yard.with(sabotage).with_context(|| sabotage.told())?;
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
    ensure!(unseen == 0, "{unseen} of {} sabotages were not seen", table.len());
    println!("   {} sabotages, each seen", table.len());
    Ok(())
}

/// Where sabotaged trees are built.
struct Yard<'a> {
    shop: &'a Workshop,
    tree: &'a Path,
    target: &'a Path,
}

impl Yard<'_> {
    /// The cases that fail with a sabotage in the tree, which is taken out again.
    fn with(&self, sabotage: &Sabotage) -> Result<Failed> {
        let path = self.tree.join(sabotage.path());
        let right = fs::read_to_string(&path).with_context(|| sabotage.path())?;
        fs::write(&path, sabotage.applied(&right)?)?;
        let failed = self.failed();
        fs::write(&path, right)?;
        failed
    }

    /// Builds the tree, and runs its cases.
    fn failed(&self) -> Result<Failed> {
        let mut build = self.shop.cargo("build --quiet --locked --package coco-dma-cli");
        build.current_dir(self.tree).env("CARGO_TARGET_DIR", self.target);
        // Nobody debugs it, and a sabotage may leave something unused.
        build.env("CARGO_PROFILE_DEV_DEBUG", "0").env("RUSTFLAGS", "--cap-lints allow");
        let output = build.output().context("cannot start cargo")?;
        if !output.status.success() {
            bail!("it does not build:\n{}", String::from_utf8_lossy(&output.stderr));
        }
        // A case that hangs is ended by the runner; the rest takes seconds.
        let mut check = self.shop.program("timeout");
        check.args(["--kill-after=10", "300"]).arg(self.target.join("debug/coco-dma"));
        check.args(["check", "--seen", "--json"]).current_dir(self.tree);
        failed_of(&mut check)
    }
}

fn failed_of(check: &mut Command) -> Result<Failed> {
    let output = check.output().context("cannot start the command")?;
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
