//! The table of sabotages, `sabotages.table`: what is made wrong, where, and who has to see it.

use anyhow::{Context, Result, bail, ensure};

use super::Failed;

/// The table.
pub(super) const TABLE: &str = include_str!("sabotages.table");
/// Where the files of the table lie.
const FOLDER: &str = "crates/coco-dma/src";
/// Who can see something. What the layer says of itself counts for nothing here.
const WITNESSES: [&str; 4] = ["device", "host", "driver", "machine"];

/// One thing made wrong.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Sabotage {
    rule: String,
    wrong: String,
    file: String,
    is: String,
    becomes: String,
    /// Cases that have to fail, each with who has to see it.
    seen: Vec<(String, String)>,
}

impl Sabotage {
    pub(super) fn told(&self) -> String {
        format!("{}: {}", self.rule, self.wrong)
    }

    pub(super) fn path(&self) -> String {
        format!("{FOLDER}/{}", self.file)
    }

    /// The text of its file with the sabotage in it.
    pub(super) fn applied(&self, right: &str) -> Result<String> {
        let found = right.matches(&self.is).count();
        ensure!(found == 1, "its text stands {found} times in {}, not once", self.path());
        Ok(right.replacen(&self.is, &self.becomes, 1))
    }

    /// What of the table did not come true.
    pub(super) fn lacking(&self, failed: &Failed) -> Vec<String> {
        let lacks = |(case, witness): &(String, String)| match failed.get(case) {
            Some(found) if found == witness => None,
            Some(found) => Some(format!("{case}: seen by {found}, not by {witness}")),
            None => Some(format!("{case}: holds")),
        };
        self.seen.iter().filter_map(lacks).collect()
    }

    fn finished(self, line: usize) -> Result<Self> {
        let texts = [&self.rule, &self.wrong, &self.file, &self.is];
        ensure!(texts.iter().all(|text| !text.is_empty()), "line {line}: something is left out");
        ensure!(self.is != self.becomes, "line {line}: nothing is made wrong");
        ensure!(!self.seen.is_empty(), "line {line}: nobody sees it");
        for (_, witness) in &self.seen {
            ensure!(WITNESSES.contains(&witness.as_str()), "line {line}: who is '{witness}'?");
        }
        Ok(self)
    }
}

/// Reads a table. Sabotages are apart by empty lines; a line that starts with `#` says nothing.
pub(super) fn read(text: &str) -> Result<Vec<Sabotage>> {
    let mut table = Vec::new();
    let mut one: Option<Sabotage> = None;
    for (line, text) in text.lines().enumerate().map(|(index, text)| (index + 1, text)) {
        if text.is_empty() {
            table.extend(one.take().map(|one| one.finished(line)).transpose()?);
            continue;
        }
        if text.starts_with('#') {
            continue;
        }
        let one = one.get_or_insert_default();
        let (key, value) = match text.split_once(' ') {
            Some((key, value)) => (key, value),
            None => (text, ""),
        };
        match key {
            "rule:" => value.clone_into(&mut one.rule),
            "wrong:" => value.clone_into(&mut one.wrong),
            "file:" => value.clone_into(&mut one.file),
            "-" => add(&mut one.is, value),
            "+" => add(&mut one.becomes, value),
            "seen:" => {
                let (case, witness) =
                    value.rsplit_once(' ').with_context(|| format!("line {line}: by whom?"))?;
                one.seen.push((case.to_owned(), witness.to_owned()));
            }
            _ => bail!("line {line}: what is '{key}'?"),
        }
    }
    let line = text.lines().count();
    table.extend(one.map(|one| one.finished(line)).transpose()?);
    Ok(table)
}

/// Adds a line.
fn add(text: &mut String, line: &str) {
    if !text.is_empty() {
        text.push('\n');
    }
    text.push_str(line);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    /// The house rules by name, with what holds those that no case can show.
    const RULES: [(&str, &str); 12] = [
        ("one-decision", ""),
        ("recorded-state", ""),
        ("who-converts", ""),
        ("transaction", ""),
        ("host-not-believed", ""),
        ("no-byte-out", ""),
        ("fail-closed", ""),
        ("no-shared-slot-for-accepted", ""),
        ("atomic-never-converts", ""),
        ("open-pays-nothing", ""),
        ("sound-from-safe", "what the compiler refuses, in tests of the core"),
        ("unsafe-rare", "a check of the sources: cargo xtask unsafe"),
    ];

    fn root() -> &'static Path {
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
    }

    #[test]
    fn the_table_fits_the_sources() {
        let mut wrong = Vec::new();
        for sabotage in read(TABLE).unwrap() {
            let text = std::fs::read_to_string(root().join(sabotage.path()));
            let applied = text.map_err(Into::into).and_then(|text| sabotage.applied(&text));
            wrong.extend(applied.err().map(|error| format!("{}: {error}", sabotage.told())));
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    #[test]
    fn every_rule_has_its_sabotages() {
        let table = read(TABLE).unwrap();
        let found: BTreeSet<&str> = table.iter().map(|sabotage| sabotage.rule.as_str()).collect();
        for (rule, elsewhere) in RULES {
            assert_eq!(found.contains(rule), elsewhere.is_empty(), "{rule}");
        }
        for rule in found {
            let known = RULES.iter().any(|(known, _)| *known == rule) || rule == "dma-form";
            assert!(known, "{rule} is no rule");
        }
    }

    #[test]
    fn a_table_says_all_of_it() {
        let good = "rule: r\nwrong: w\nfile: f\n- a\n-   b\n+ c\nseen: case/x device\n";
        let table = read(&format!("# c\n{good}\n{good}")).unwrap();
        assert_eq!(table.len(), 2);
        assert_eq!(table[0].applied("1 a\n  b 2").unwrap(), "1 c 2");
        assert!(table[0].applied("a").is_err());
        assert!(table[0].applied("a\n  b a\n  b").is_err());
        for (old, new) in [
            ("rule: r\n", ""),
            ("device", "layer"),
            ("seen: case/x device\n", ""),
            ("+ c", "+ a\n+   b"),
            ("file:", "fiel:"),
        ] {
            assert!(read(&good.replacen(old, new, 1)).is_err(), "{new}");
        }
    }

    #[test]
    fn what_the_table_says_has_to_come_true() {
        let table = read("rule: r\nwrong: w\nfile: f\n- a\n+ b\nseen: x device\n").unwrap();
        let failed = |witness: &str| Failed::from([("x".to_owned(), witness.to_owned())]);
        assert!(table[0].lacking(&failed("device")).is_empty());
        assert_eq!(table[0].lacking(&failed("host")).len(), 1);
        assert_eq!(table[0].lacking(&Failed::new()).len(), 1);
    }
}
