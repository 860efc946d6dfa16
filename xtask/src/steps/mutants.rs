//! Does a test notice when the decision is changed? `cargo mutants` changes one thing at a time, as
//! `.cargo/mutants.toml` says; what survives has to stand in `docs/mutants.toml` with a reason, and
//! what stands there has to survive.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use toml::de::DeTable;

use super::deep::has;
use crate::shell::Workshop;

/// The survivors that somebody explained.
const REASONS: &str = "docs/mutants.toml";

/// One mutant, named so that lines may be added above it: its file, what was changed, and the text
/// of the line where.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mutant {
    file: String,
    change: String,
    line: String,
}

pub(super) fn run(shop: &mut Workshop) -> Result<()> {
    if !has(shop, "cargo-mutants") {
        return Ok(());
    }
    let explained = explained(&fs::read_to_string(shop.root.join(REASONS))?)?;
    let output = shop.target.join("mutants");
    let mut command = shop.cargo("mutants --package coco-dma --jobs 1");
    // It builds copies of the sources, each with a target directory of its own.
    command.arg("--output").arg(&output).env_remove("CARGO_TARGET_DIR");
    println!("   $ cargo mutants --package coco-dma --jobs 1");
    let status = shop.status(&mut command)?;
    // 2: some were missed, 3: some were noticed because a test did not end.
    ensure!(matches!(status.code(), Some(0 | 2 | 3)), "cargo mutants ended with {status}");

    let outcomes = fs::read_to_string(output.join("mutants.out/outcomes.json"))?;
    let outcomes: Value = serde_json::from_str(&outcomes)?;
    let survived = survivors(&shop.root, &outcomes)?;
    let count = |what: &str| outcomes.get(what).and_then(Value::as_u64).unwrap_or(0);
    println!(
        "   {} mutants: {} noticed, {} by a test that did not end, {} do not compile, {} survived",
        count("total_mutants"),
        count("caught"),
        count("timeout"),
        count("unviable"),
        survived.len(),
    );
    ensure!(count("caught") > 0, "not a single mutant was noticed");
    let findings = compare(&survived, &explained);
    for finding in &findings {
        println!("   {finding}");
    }
    if !findings.is_empty() {
        bail!("{} findings: write a test, or the reason into {REASONS}", findings.len());
    }
    Ok(())
}

/// What does not agree. The same change may be possible twice in a line: each counts.
fn compare(survived: &[Mutant], explained: &[Mutant]) -> Vec<String> {
    let mut left = explained.to_vec();
    let mut findings = Vec::new();
    for mutant in survived {
        match left.iter().position(|known| known == mutant) {
            Some(place) => drop(left.remove(place)),
            None => findings.push(format!("survives without a reason: {}", mutant.shown())),
        }
    }
    let stale =
        left.iter().map(|known| format!("{REASONS} has, and it is gone: {}", known.shown()));
    findings.extend(stale);
    findings
}

impl Mutant {
    fn shown(&self) -> String {
        format!("{}: {} in `{}`", self.file, self.change, self.line)
    }
}

/// The entries of the list of reasons. An entry without one is an error.
fn explained(text: &str) -> Result<Vec<Mutant>> {
    let table = DeTable::parse(text).with_context(|| format!("{REASONS} is no TOML"))?;
    let Some(entries) = table.get_ref().get("survivor") else { return Ok(Vec::new()) };
    let entries = entries.get_ref().as_array().context("`survivor` is a list of tables")?;
    let mut mutants = Vec::new();
    for entry in entries.iter() {
        let of = |key: &str| {
            let value = entry.get_ref().get(key).and_then(|value| value.get_ref().as_str());
            value.filter(|text| !text.trim().is_empty()).map(str::to_owned)
        };
        let (Some(file), Some(change), Some(line)) = (of("file"), of("change"), of("line")) else {
            bail!("{REASONS}: a survivor has a file, a change, a line and a reason");
        };
        let mutant = Mutant { file, change, line };
        ensure!(of("reason").is_some(), "{REASONS} has no reason for {}", mutant.shown());
        mutants.push(mutant);
    }
    Ok(mutants)
}

/// The mutants that no test noticed.
fn survivors(root: &Path, outcomes: &Value) -> Result<Vec<Mutant>> {
    let mut found = Vec::new();
    for outcome in outcomes.get("outcomes").and_then(Value::as_array).into_iter().flatten() {
        if outcome.get("summary").and_then(Value::as_str) != Some("MissedMutant") {
            continue;
        }
        let text = |path: &str| outcome.pointer(path).and_then(Value::as_str);
        let file = text("/scenario/Mutant/file").context("a mutant without a file")?;
        let name = text("/scenario/Mutant/name").context("a mutant without a name")?;
        let line = outcome.pointer("/scenario/Mutant/span/start/line").and_then(Value::as_u64);
        let line = usize::try_from(line.context("a mutant without a line")?)?;
        let source = fs::read_to_string(root.join(file))?;
        let line = source.lines().nth(line.saturating_sub(1)).unwrap_or_default().trim();
        // `file:line:column: what was changed`.
        let change = name.splitn(4, ':').nth(3).unwrap_or(name).trim();
        found.push(Mutant {
            file: file.to_owned(),
            change: change.to_owned(),
            line: line.to_owned(),
        });
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "[[survivor]]\nfile = \"src/a.rs\"\nchange = \"replace < with <= in f\"\n\
                        line = 'if a < b {'\nreason = \"a is never b\"\n";

    #[test]
    fn a_survivor_needs_a_reason_and_a_reason_needs_a_survivor() {
        let known = explained(TEXT).unwrap();
        assert_eq!(compare(&known, &known), Vec::<String>::new());
        assert_eq!(compare(&known, &[]).len(), 1);
        assert_eq!(compare(&[], &known).len(), 1);
        let twice = [known.clone(), known.clone()].concat();
        assert_eq!(compare(&twice, &known).len(), 1, "each counts");
        assert!(explained(&TEXT.replace("a is never b", " ")).is_err());
        assert!(explained(&TEXT.replace("line =", "row =")).is_err());
        assert_eq!(explained("# none\n").unwrap(), []);
    }

    #[test]
    fn a_missed_mutant_is_known_by_its_line_of_source() {
        let folder = std::env::temp_dir().join(format!("xtask-mutants-{}", std::process::id()));
        fs::create_dir_all(folder.join("src")).unwrap();
        fs::write(folder.join("src/a.rs"), "fn f() {\n    if a < b {\n").unwrap();
        let missed = |summary: &str| {
            serde_json::json!({ "outcomes": [{ "summary": summary, "scenario": { "Mutant": {
                "name": "src/a.rs:2:10: replace < with <= in f", "file": "src/a.rs",
                "span": { "start": { "line": 2, "column": 10 } } } } }] })
        };
        let found = survivors(&folder, &missed("MissedMutant")).unwrap();
        assert_eq!(found, explained(TEXT).unwrap());
        assert_eq!(survivors(&folder, &missed("CaughtMutant")).unwrap(), []);
        fs::remove_dir_all(&folder).unwrap();
    }
}
