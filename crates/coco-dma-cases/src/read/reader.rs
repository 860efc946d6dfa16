//! A table that is read key by key. At the end it says which key nobody asked for.

use std::cell::RefCell;

use super::{Node, Place, Table, Value, Wrong, lookup, unknown};

/// Reads one table.
#[derive(Debug)]
pub(crate) struct Reader<'t> {
    table: &'t Table,
    /// What the table is, for messages.
    what: String,
    asked: RefCell<Vec<&'static str>>,
}

impl<'t> Reader<'t> {
    pub(crate) fn new(table: &'t Table, what: impl Into<String>) -> Self {
        Self { table, what: what.into(), asked: RefCell::default() }
    }

    pub(crate) fn place(&self) -> &'t Place {
        &self.table.place
    }

    /// The value of a key, of any kind.
    pub(crate) fn node(&self, key: &'static str) -> Option<&'t Node> {
        self.asked.borrow_mut().push(key);
        self.table.get(key)
    }

    /// The place of a key's value, or of the table.
    pub(crate) fn place_of(&self, key: &'static str) -> &'t Place {
        self.table.get(key).map_or(&self.table.place, |node| &node.place)
    }

    /// A key that has to be there.
    pub(crate) fn need<T>(&self, key: &'static str, value: Option<T>) -> Result<T, Wrong> {
        value.ok_or_else(|| {
            let near = |name: &str| {
                strsim::damerau_levenshtein(name, key) <= key.len().saturating_sub(1).min(2)
            };
            match self.table.entries.iter().find(|(name, ..)| name != key && near(name)) {
                Some((name, place, _)) => place.wrong(format!(
                    "unknown key of {} '{name}'; did you mean '{key}'? (it is needed)",
                    self.what
                )),
                None => self.place().wrong(format!("{} needs '{key}'", self.what)),
            }
        })
    }

    pub(crate) fn text(&self, key: &'static str) -> Result<Option<&'t str>, Wrong> {
        self.node(key).map(|node| text_of(node, key)).transpose()
    }

    pub(crate) fn flag(&self, key: &'static str) -> Result<Option<bool>, Wrong> {
        self.node(key)
            .map(|node| match &node.value {
                Value::Flag(flag) => Ok(*flag),
                other => Err(kind(node, key, "true or false", other)),
            })
            .transpose()
    }

    /// A number or a size.
    pub(crate) fn size(&self, key: &'static str) -> Result<Option<u64>, Wrong> {
        self.node(key).map(|node| size_of(node, key)).transpose()
    }

    pub(crate) fn small(&self, key: &'static str) -> Result<Option<u32>, Wrong> {
        let Some(number) = self.size(key)? else { return Ok(None) };
        u32::try_from(number)
            .map(Some)
            .map_err(|_| self.place_of(key).wrong(format!("'{key}' is too large")))
    }

    /// A word of a table of words.
    pub(crate) fn word<T: Copy>(
        &self,
        key: &'static str,
        words: &[(&str, T)],
    ) -> Result<Option<T>, Wrong> {
        let Some(word) = self.text(key)? else { return Ok(None) };
        lookup(key, word, words).map(Some).map_err(|text| self.place_of(key).wrong(text))
    }

    /// The values of a list; none where the key is not there.
    pub(crate) fn list(&self, key: &'static str) -> Result<&'t [Node], Wrong> {
        match self.node(key) {
            None => Ok(&[]),
            Some(Node { value: Value::List(list), .. }) => Ok(list),
            Some(node) => Err(kind(node, key, "a list", &node.value)),
        }
    }

    /// The texts of a list with their places.
    pub(crate) fn texts(&self, key: &'static str) -> Result<Vec<(&'t str, &'t Place)>, Wrong> {
        let list = self.list(key)?.iter();
        list.map(|node| Ok((text_of(node, key)?, &node.place))).collect()
    }

    pub(crate) fn table(&self, key: &'static str) -> Result<Option<&'t Table>, Wrong> {
        self.node(key).map(|node| table_of(node, key)).transpose()
    }

    /// The tables of a list.
    pub(crate) fn tables(&self, key: &'static str) -> Result<Vec<&'t Table>, Wrong> {
        self.list(key)?.iter().map(|node| table_of(node, key)).collect()
    }

    /// Nothing else may be there.
    pub(crate) fn finish(self) -> Result<(), Wrong> {
        let mut asked = self.asked.into_inner();
        asked.sort_unstable();
        asked.dedup();
        for (key, place, _) in &self.table.entries {
            if !asked.contains(&key.as_str()) {
                let what = format!("key of {}", self.what);
                return Err(place.wrong(unknown(&what, key, asked.iter().copied())));
            }
        }
        Ok(())
    }
}

fn kind(node: &Node, key: &str, wanted: &str, found: &Value) -> Wrong {
    node.place.wrong(format!("'{key}' is {wanted}, not {}", found.kind()))
}

pub(crate) fn text_of<'t>(node: &'t Node, key: &str) -> Result<&'t str, Wrong> {
    match &node.value {
        Value::Text(text) => Ok(text),
        other => Err(kind(node, key, "a text", other)),
    }
}

pub(crate) fn table_of<'t>(node: &'t Node, key: &str) -> Result<&'t Table, Wrong> {
    match &node.value {
        Value::Table(table) => Ok(table),
        other => Err(kind(node, key, "a table", other)),
    }
}

/// A number, or a text with a unit.
pub(crate) fn size_of(node: &Node, key: &str) -> Result<u64, Wrong> {
    const UNITS: [(&str, u32); 4] = [("KiB", 10), ("MiB", 20), ("GiB", 30), ("TiB", 40)];
    let text = match &node.value {
        Value::Number(number) => return Ok(*number),
        Value::Text(text) => text.replace('_', ""),
        other => return Err(kind(node, key, "a number or a size", other)),
    };
    let (digits, shift) = UNITS
        .iter()
        .find_map(|(unit, shift)| text.strip_suffix(unit).map(|rest| (rest, *shift)))
        .unwrap_or((&text, 0));
    let number = match digits.strip_prefix("0x") {
        Some(hex) if hex.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
            u64::from_str_radix(hex, 16).ok()
        }
        None if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits.parse().ok(),
        _ => None,
    };
    number.and_then(|number| number.checked_mul(1 << shift)).ok_or_else(|| {
        node.place.wrong(format!(
            "'{text}' is no number from 0 to 2^64-1; write bytes, 0x and hex digits, or 4KiB, 64MiB"
        ))
    })
}
