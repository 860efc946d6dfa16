//! Matrices: several cases of one file, each the file with some values in place of others.

use crate::case::MOST_THINGS;
use crate::read::{Node, Place, Reader, Table, Value, Wrong, table_of, unknown};

/// A case's text: the file, with one entry of its matrix merged in.
#[derive(Debug)]
pub(super) struct Entry {
    /// The entry's name; `None` for a file without a matrix.
    pub(super) name: Option<String>,
    /// Every entry of the matrix.
    pub(super) all: Vec<String>,
    pub(super) place: Place,
    pub(super) table: Table,
}

/// A mistake in a case, with the name of the entry that makes it one: what is wrong may stand in the
/// file's own part, where every other entry is right.
pub(super) fn in_entry(name: Option<&str>, mut wrong: Wrong) -> Wrong {
    if let Some(name) = name {
        wrong.text = format!("{} [matrix entry {name}]", wrong.text);
    }
    wrong
}

/// The keys of a case that an entry replaces as they are.
const OWN: [&str; 6] = ["title", "id", "also", "source", "linux", "why"];
/// Those that it merges.
const MERGED: [&str; 2] = ["machine", "end"];
/// Those whose tables it merges by name, and what holds the name.
const NAMED: [(&str, &str); 4] =
    [("device", "name"), ("pool", "name"), ("memory", "name"), ("step", "label")];

/// The cases of a file.
pub(super) fn entries(mut file: Table) -> Result<Vec<Entry>, Wrong> {
    let Some(matrix) = file.take("matrix") else {
        let place = file.get("name").map_or(&file.place, |node| &node.place).clone();
        return Ok(vec![Entry { name: None, all: Vec::new(), place, table: file }]);
    };
    let Value::List(list) = &matrix.value else {
        return Err(matrix.place.wrong("'matrix' is a list: write [[matrix]]"));
    };
    if let Some(node) = list.get(MOST_THINGS) {
        return Err(node.place.wrong(format!("a matrix has at most {MOST_THINGS} entries")));
    }
    let mut all = Vec::new();
    for node in list {
        let table = table_of(node, "matrix")?;
        let reader = Reader::new(table, "the matrix entry");
        let name = reader.need("entry", reader.text("entry")?)?;
        let good = |c: char| c.is_ascii_alphanumeric() || c == '-';
        if name.is_empty() || !name.chars().all(good) || all.iter().any(|other| other == name) {
            let text = "an entry's name is its own, and made of letters, digits and dashes";
            return Err(reader.place_of("entry").wrong(text));
        }
        all.push(name.to_owned());
    }
    let entries = list.iter().zip(all.clone());
    entries
        .map(|(node, name)| {
            entry(&file, node, name.clone(), &all).map_err(|wrong| in_entry(Some(&name), wrong))
        })
        .collect()
}

fn entry(file: &Table, node: &Node, name: String, all: &[String]) -> Result<Entry, Wrong> {
    let over = table_of(node, "matrix")?;
    let mut table = file.clone();
    for (key, place, node) in &over.entries {
        let key = key.as_str();
        if key == "entry" {
            continue;
        } else if OWN.contains(&key) || MERGED.contains(&key) {
            let entries = vec![(key.to_owned(), place.clone(), node.clone())];
            table.merge(&Table { place: place.clone(), entries });
        } else if let Some((_, by)) = NAMED.iter().find(|(name, _)| *name == key) {
            for (name, place, node) in &table_of(node, key)?.entries {
                override_named(&mut table, (key, by), name, place, table_of(node, name)?)?;
            }
        } else {
            let keys = OWN.iter().chain(&MERGED).chain(NAMED.iter().map(|(name, _)| name));
            let text = unknown("key of a matrix entry", key, keys.copied().chain(["entry"]));
            return Err(place.wrong(text));
        }
    }
    let place = node.place.clone();
    Ok(Entry { name: Some(name), all: all.to_vec(), place, table })
}

/// Merges `over` into the table of the list `key` that is called `name`.
fn override_named(
    table: &mut Table,
    (key, by): (&str, &str),
    name: &str,
    place: &Place,
    over: &Table,
) -> Result<(), Wrong> {
    let list = table.entries.iter_mut().find(|(known, ..)| known == key);
    let mut names = Vec::new();
    if let Some((.., Node { value: Value::List(list), .. })) = list {
        for node in list {
            let Value::Table(thing) = &mut node.value else { continue };
            let Some(Node { value: Value::Text(found), .. }) = thing.get(by) else { continue };
            if found == name {
                thing.merge(over);
                return Ok(());
            }
            names.push(found.clone());
        }
    }
    let what = format!("{by} of a {key}");
    Err(place.wrong(unknown(&what, name, names.iter().map(String::as_str))))
}
