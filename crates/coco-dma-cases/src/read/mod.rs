//! Reading TOML so that every mistake has a place: a tree in which each value knows where it was
//! written, and a reader that knows which keys were asked for.

mod reader;
mod tree;
mod words;

use std::fmt;
use std::sync::Arc;

pub(crate) use reader::{Reader, size_of, table_of, text_of};
pub(crate) use tree::{LONGEST, Node, Table, Value, parse};
pub(crate) use words::{lookup, unknown};

/// A file with its text.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) name: String,
    pub(crate) text: String,
}

/// A place in a file.
#[derive(Clone)]
pub struct Place {
    source: Arc<Source>,
    at: usize,
}

impl Place {
    pub(crate) fn new(source: &Arc<Source>, at: usize) -> Self {
        Self { source: Arc::clone(source), at }
    }

    /// The file, as it was named.
    pub fn file(&self) -> &str {
        &self.source.name
    }

    /// The line and the column in characters, from 1 on.
    pub fn line_and_column(&self) -> (usize, usize) {
        let text = &self.source.text;
        let before = text.get(..self.at).unwrap_or(text);
        let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
        let start = before.rfind('\n').map_or(0, |newline| newline + 1);
        (line, before.get(start..).unwrap_or("").chars().count() + 1)
    }

    /// A mistake here.
    pub(crate) fn wrong(&self, text: impl Into<String>) -> Wrong {
        Wrong { place: self.clone(), text: text.into() }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (line, column) = self.line_and_column();
        write!(f, "{}:{line}:{column}", self.file())
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Place({self})")
    }
}

/// A mistake in a file: what is wrong, and where.
#[derive(Clone, Debug)]
pub struct Wrong {
    /// Where.
    pub place: Place,
    /// What, as a sentence without its full stop.
    pub text: String,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.text)
    }
}

impl std::error::Error for Wrong {}
