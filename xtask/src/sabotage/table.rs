//! The table of sabotages, `sabotages.table`: what is made wrong, how, and who has to see it.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail, ensure};

use super::Failed;

/// The table.
pub(super) const TABLE: &str = include_str!("sabotages.table");
/// Who can see something. What the layer says of itself counts for nothing here.
const WITNESSES: [&str; 4] = ["device", "host", "driver", "machine"];

/// One thing made wrong.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Sabotage {
    /// What the marker in the sources calls it.
    pub(super) name: String,
    rule: String,
    wrong: String,
    /// A part of the marked line, and what it becomes.
    is: String,
    becomes: String,
    /// Cases that have to fail, each with who has to see it.
    seen: Vec<(String, String)>,
}

impl Sabotage {
    pub(super) fn told(&self) -> String {
        format!("{}: {}: {}", self.name, self.rule, self.wrong)
    }

    /// The marked line with the sabotage in it.
    pub(super) fn applied(&self, line: &str) -> Result<String> {
        let found = line.matches(&self.is).count();
        ensure!(found == 1, "`{}` stands {found} times in `{}`, not once", self.is, line.trim());
        Ok(line.replacen(&self.is, &self.becomes, 1))
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
        let texts = [&self.name, &self.rule, &self.wrong, &self.is];
        ensure!(texts.iter().all(|text| !text.is_empty()), "line {line}: something is left out");
        ensure!(self.is != self.becomes, "line {line}: nothing is made wrong");
        ensure!(!self.seen.is_empty(), "line {line}: nobody sees it");
        for (_, witness) in &self.seen {
            ensure!(WITNESSES.contains(&witness.as_str()), "line {line}: who is '{witness}'?");
        }
        Ok(self)
    }
}

/// Reads a table. Sabotages are separated by empty lines; a line that starts with `#` is a comment.
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
        let (key, value) = text.split_once(' ').unwrap_or((text, ""));
        let field = match key {
            "name:" => &mut one.name,
            "rule:" => &mut one.rule,
            "wrong:" => &mut one.wrong,
            "-" => &mut one.is,
            "+" => &mut one.becomes,
            "seen:" => {
                let (case, witness) =
                    value.rsplit_once(' ').with_context(|| format!("line {line}: by whom?"))?;
                one.seen.push((case.to_owned(), witness.to_owned()));
                continue;
            }
            _ => bail!("line {line}: what is '{key}'?"),
        };
        ensure!(field.is_empty(), "line {line}: '{key}' is there twice");
        value.clone_into(field);
    }
    let line = text.lines().count();
    table.extend(one.map(|one| one.finished(line)).transpose()?);
    let mut names = BTreeSet::new();
    for Sabotage { name, .. } in &table {
        ensure!(names.insert(name), "two sabotages are called `{name}`");
    }
    Ok(table)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use toml::de::DeTable;

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

    /// The names of the cases in a folder: a file's own, or one for each entry of its matrix.
    fn add_cases(folder: &Path, names: &mut BTreeSet<String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                add_cases(&path, names);
                continue;
            }
            let text = fs::read_to_string(&path).unwrap();
            let file = DeTable::parse(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            let Some(name) = file.get_ref().get("name") else { continue };
            let name = name.get_ref().as_str().unwrap();
            match file.get_ref().get("matrix") {
                None => drop(names.insert(name.to_owned())),
                Some(matrix) => {
                    names.extend(matrix.get_ref().as_array().unwrap().iter().map(|e| {
                        format!("{name}/{}", e.get_ref()["entry"].get_ref().as_str().unwrap())
                    }))
                }
            }
        }
    }

    #[test]
    fn the_cases_that_see_a_sabotage_exist() {
        let mut cases = BTreeSet::new();
        add_cases(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../cases"), &mut cases);
        assert!(cases.len() > 500, "{} cases", cases.len());
        for sabotage in read(TABLE).unwrap() {
            for (case, _) in &sabotage.seen {
                assert!(cases.contains(case), "{}: no case {case}", sabotage.name);
            }
        }
    }

    #[test]
    fn a_table_says_all_of_it() {
        let good = "name: n\nrule: r\nwrong: w\n- a b\n+ c\nseen: case/x device\n";
        let other = good.replacen("name: n", "name: other", 1);
        let table = read(&format!("# c\n{good}\n{other}")).unwrap();
        assert_eq!(table.len(), 2);
        assert!(read(&format!("{good}\n{good}")).is_err());
        assert_eq!(table[0].applied("1 a b 2").unwrap(), "1 c 2");
        assert!(table[0].applied("a").is_err());
        assert!(table[0].applied("a b a b").is_err());
        for (old, new) in [
            ("name: n\n", ""),
            ("rule: r\n", ""),
            ("device", "layer"),
            ("seen: case/x device\n", ""),
            ("+ c", "+ a b"),
            ("+ c", "- c"),
            ("wrong:", "worng:"),
        ] {
            assert!(read(&good.replacen(old, new, 1)).is_err(), "{new}");
        }
        let gone = read(&good.replacen("+ c", "+", 1)).unwrap();
        assert_eq!(gone[0].applied("1 a b 2").unwrap(), "1  2");
    }

    #[test]
    fn what_the_table_says_has_to_come_true() {
        let table = read("name: n\nrule: r\nwrong: w\n- a\n+ b\nseen: x device\n").unwrap();
        let failed = |witness: &str| Failed::from([("x".to_owned(), witness.to_owned())]);
        assert!(table[0].lacking(&failed("device")).is_empty());
        assert_eq!(table[0].lacking(&failed("host")).len(), 1);
        assert_eq!(table[0].lacking(&Failed::new()).len(), 1);
    }
}
