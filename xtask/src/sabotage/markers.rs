//! The markers in the core's sources, `// sabotage: NAME`: which line a sabotage makes wrong. So a
//! rename or a move of the line needs no change to the table.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use super::table::Sabotage;
use crate::source::{read, rust_files};

/// The sources that may be marked.
const FOLDER: &str = "crates/coco-dma/src";
/// What stands before the names of a marker.
const MARKER: &str = "// sabotage:";

/// A sabotage, the file that it is put into, and that file's text with it.
#[derive(Debug)]
pub(super) struct Mutant<'a> {
    pub(super) sabotage: &'a Sabotage,
    /// Below the root of the tree.
    pub(super) path: PathBuf,
    pub(super) text: String,
}

/// What the table makes of the sources below `root`: a mutant for each row, in its order. It is an
/// error if a name is marked twice or not at all, if a marker has no row, and if a row does not fit
/// its line.
pub(super) fn mutants<'a>(root: &Path, table: &'a [Sabotage]) -> Result<Vec<Mutant<'a>>> {
    let mut sources = Vec::new();
    for path in rust_files(&root.join(FOLDER))? {
        let text = read(&path)?;
        sources.push((path.strip_prefix(root)?.to_owned(), text));
    }
    let (mutants, wrong) = matched(&sources, table);
    ensure!(wrong.is_empty(), "markers and table do not agree:\n   {}", wrong.join("\n   "));
    Ok(mutants)
}

/// The mutants, and what does not agree.
fn matched<'a>(
    sources: &[(PathBuf, String)],
    table: &'a [Sabotage],
) -> (Vec<Mutant<'a>>, Vec<String>) {
    let (mut wrong, mut marked) = (Vec::new(), BTreeMap::new());
    for (path, text) in sources {
        match marks(text) {
            Err(error) => wrong.push(format!("{}: {error}", path.display())),
            Ok(marks) => {
                for (name, line) in marks {
                    if marked.insert(name, (path, text, line)).is_some() {
                        wrong.push(format!("{}: `{name}` is marked twice", path.display()));
                    }
                }
            }
        }
    }
    let mut mutants = Vec::new();
    for sabotage in table {
        let name = sabotage.name.as_str();
        let Some((path, text, line)) = marked.remove(name) else {
            wrong.push(format!("{name}: no line is marked"));
            continue;
        };
        match replaced(text, line, |line| sabotage.applied(line)) {
            Ok(text) => mutants.push(Mutant { sabotage, path: path.clone(), text }),
            Err(error) => wrong.push(format!("{name}: {error}")),
        }
    }
    for (name, (path, ..)) in marked {
        wrong.push(format!("{}: `{name}` is not in the table", path.display()));
    }
    (mutants, wrong)
}

/// The names that a text is marked with, each with the index of its line: the one that the marker
/// ends, or the one below where the marker stands alone.
fn marks(text: &str) -> Result<Vec<(&str, usize)>> {
    let mut found = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let Some((code, names)) = line.split_once(MARKER) else { continue };
        let target = if code.trim().is_empty() { index + 1 } else { index };
        for name in names.trim().split(", ") {
            let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            if name.is_empty() || !name.chars().all(good) {
                bail!("line {}: `{name}` is no name of a sabotage", index + 1);
            }
            found.push((name, target));
        }
    }
    Ok(found)
}

/// A text with one line made another. The comment that marks it is no part of it.
fn replaced(text: &str, index: usize, change: impl Fn(&str) -> Result<String>) -> Result<String> {
    let mut lines: Vec<&str> = text.lines().collect();
    let line = lines.get_mut(index).context("the marker marks no line")?;
    let code = line.split_once(MARKER).map_or(*line, |(code, _)| code);
    let changed = change(code)?;
    *line = &changed;
    Ok(lines.join("\n") + "\n")
}

#[cfg(test)]
mod tests {
    use super::super::table::{self, TABLE};
    use super::*;

    #[test]
    fn markers_and_table_agree() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let table = table::read(TABLE).unwrap();
        for mutant in mutants(root, &table).unwrap() {
            let right = read(&root.join(&mutant.path)).unwrap();
            let differ = right.lines().zip(mutant.text.lines()).filter(|(is, was)| is != was);
            assert_eq!(differ.count(), 1, "{}", mutant.sabotage.name);
            assert_eq!(right.lines().count(), mutant.text.lines().count());
        }
    }

    #[test]
    fn a_marker_marks_its_line_or_the_one_below() {
        let row = |name| format!("name: {name}\nrule: r\nwrong: w\n- x\n+ y\nseen: c device\n\n");
        let table = table::read(&(row("one") + &row("two") + &row("three"))).unwrap();
        let text = |text: &str| vec![(PathBuf::from("f.rs"), text.to_owned())];
        let good = "a x; // sabotage: one, two\n    // sabotage: three\n    b x;\n";
        let (mutants, wrong) = matched(&text(good), &table);
        assert!(wrong.is_empty(), "{wrong:?}");
        let texts: Vec<&str> = mutants.iter().map(|mutant| mutant.text.as_str()).collect();
        let first = "a y; \n    // sabotage: three\n    b x;\n";
        assert_eq!(texts, [first, first, &good.replace("b x", "b y")]);
        for (old, new) in [
            (", two", ""),
            (", two", ", two, one"),
            (", two", ", two, four"),
            (", two", ", Two"),
            (", two", ",two"),
            ("a x", "a z"),
            ("a x", "x x"),
            ("    b x;\n", ""),
        ] {
            let (_, wrong) = matched(&text(&good.replacen(old, new, 1)), &table);
            assert!(!wrong.is_empty(), "{old} {new}");
        }
    }
}
