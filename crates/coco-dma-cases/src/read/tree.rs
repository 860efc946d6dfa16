//! TOML as a tree whose values know their place, and the merge that a matrix needs.

use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{Place, Source, Wrong};

/// A file is not longer than this, in bytes.
pub(crate) const LONGEST: usize = 1 << 20;

/// A value with its place.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) place: Place,
    pub(crate) value: Value,
}

/// What a case needs of TOML.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Text(String),
    Number(u64),
    Flag(bool),
    List(Vec<Node>),
    Table(Table),
}

impl Value {
    /// The kind, for messages.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "a text",
            Self::Number(_) => "a number",
            Self::Flag(_) => "true or false",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
        }
    }
}

/// A table: its entries in the order of the file.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    pub(crate) place: Place,
    pub(crate) entries: Vec<(String, Place, Node)>,
}

impl Table {
    /// The value of a key.
    pub(crate) fn get(&self, key: &str) -> Option<&Node> {
        self.entries.iter().find(|(name, ..)| name == key).map(|(.., node)| node)
    }

    /// Takes the value of a key out.
    pub(crate) fn take(&mut self, key: &str) -> Option<Node> {
        let place = self.entries.iter().position(|(name, ..)| name == key)?;
        Some(self.entries.remove(place).2)
    }

    /// Puts `over` over this table, key by key: tables are merged, but for `expect`; anything else
    /// is replaced.
    pub(crate) fn merge(&mut self, over: &Self) {
        for (key, place, node) in &over.entries {
            match self.entries.iter_mut().find(|(name, ..)| name == key) {
                Some((.., Node { value: Value::Table(old), .. }))
                    if key != "expect" && matches!(node.value, Value::Table(_)) =>
                {
                    if let Value::Table(new) = &node.value {
                        old.merge(new);
                    }
                }
                Some((_, at, old)) => (*at, *old) = (place.clone(), node.clone()),
                None => self.entries.push((key.clone(), place.clone(), node.clone())),
            }
        }
    }
}

/// Reads a file's text.
pub(crate) fn parse(name: &str, text: &str) -> Result<Table, Wrong> {
    let source = Arc::new(Source { name: name.to_owned(), text: text.to_owned() });
    let tree = Tree { source };
    if text.len() > LONGEST {
        return Err(tree.place(0).wrong("the file is longer than 1 MiB"));
    }
    let table = DeTable::parse(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        tree.place(at).wrong(format!("no TOML: {}", error.message().trim()))
    })?;
    tree.table(table.get_ref(), 0)
}

/// Makes the tree of one file.
struct Tree {
    source: Arc<Source>,
}

impl Tree {
    fn place(&self, at: usize) -> Place {
        Place::new(&self.source, at)
    }

    fn table(&self, table: &DeTable<'_>, at: usize) -> Result<Table, Wrong> {
        let mut entries = Vec::new();
        for (key, value) in table {
            let place = self.place(key.span().start);
            entries.push((key.span().start, key.get_ref().to_string(), place, self.node(value)?));
        }
        entries.sort_by_key(|(at, ..)| *at);
        let entries = entries.into_iter().map(|(_, key, place, node)| (key, place, node));
        Ok(Table { place: self.place(at), entries: entries.collect() })
    }

    fn node(&self, value: &Spanned<DeValue<'_>>) -> Result<Node, Wrong> {
        let at = value.span().start;
        let place = self.place(at);
        let value = match value.get_ref() {
            DeValue::String(text) => Value::Text(text.to_string()),
            DeValue::Integer(number) => {
                match u64::from_str_radix(number.as_str(), number.radix()) {
                    Ok(number) => Value::Number(number),
                    Err(_) => {
                        return Err(place.wrong(format!(
                            "'{}' is no number from 0 to 2^64-1",
                            number.as_str()
                        )));
                    }
                }
            }
            DeValue::Boolean(flag) => Value::Flag(*flag),
            DeValue::Array(list) => {
                Value::List(list.iter().map(|node| self.node(node)).collect::<Result<_, _>>()?)
            }
            DeValue::Table(table) => Value::Table(self.table(table, at)?),
            DeValue::Float(_) => return Err(place.wrong("a case has no numbers with a point")),
            DeValue::Datetime(_) => return Err(place.wrong("a case has no dates")),
        };
        Ok(Node { place, value })
    }
}
