//! Bytes as a case writes them: a pattern that is repeated, or pieces.

use crate::read::{Node, Reader, Value, Wrong, size_of};

/// Bytes to write, to fill with, or to compare with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Bytes {
    /// A pattern, repeated.
    Pattern(Vec<u8>),
    /// The pattern with which the memory of this name was filled.
    FillOf(String),
    /// One after the other.
    Pieces(Vec<Piece>),
}

/// A piece: its bytes and how many; `None` for all that is left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) is: Bytes,
    pub(crate) size: Option<u64>,
}

impl Bytes {
    pub(crate) fn read(node: &Node, key: &'static str) -> Result<Self, Wrong> {
        let wrong = |text: &str| Err(node.place.wrong(text));
        match &node.value {
            Value::Text(text) if text.is_empty() => wrong("bytes are at least one"),
            Value::Text(text) => Ok(Self::Pattern(text.clone().into_bytes())),
            Value::Number(number) => match u8::try_from(*number) {
                Ok(byte) => Ok(Self::Pattern(vec![byte])),
                Err(_) => wrong("a byte is a number from 0 to 255"),
            },
            Value::Table(table) => {
                let reader = Reader::new(table, "the bytes");
                let name = reader.need("fill-of", reader.text("fill-of")?)?.to_owned();
                reader.finish()?;
                Ok(Self::FillOf(name))
            }
            Value::List(list) if list.is_empty() => wrong("bytes are at least one"),
            Value::List(list) if list.iter().all(|n| matches!(n.value, Value::Number(_))) => {
                let byte = |node: &Node| {
                    u8::try_from(size_of(node, key)?)
                        .map_err(|_| node.place.wrong("a byte is a number from 0 to 255"))
                };
                Ok(Self::Pattern(list.iter().map(byte).collect::<Result<_, _>>()?))
            }
            Value::List(list) => {
                let pieces = list.iter().map(piece).collect::<Result<Vec<_>, _>>()?;
                let open = |piece: &&Piece| piece.size.is_none();
                if pieces.iter().rev().skip(1).any(|piece| open(&piece)) {
                    return wrong("only the last piece may leave out its size");
                }
                Ok(Self::Pieces(pieces))
            }
            Value::Flag(_) => wrong("bytes are a text, a number, a list, or { fill-of = … }"),
        }
    }

    /// How many bytes it is by itself; `None` where it goes on for ever or is another's.
    pub(crate) fn own_len(&self) -> Option<u64> {
        match self {
            Self::Pattern(bytes) => u64::try_from(bytes.len()).ok(),
            Self::FillOf(_) => None,
            Self::Pieces(pieces) => {
                pieces.iter().try_fold(0u64, |sum, piece| sum.checked_add(piece.size?))
            }
        }
    }

    /// The names of memories that it speaks of.
    pub(crate) fn names(&self) -> Vec<&str> {
        match self {
            Self::Pattern(_) => Vec::new(),
            Self::FillOf(name) => vec![name],
            Self::Pieces(pieces) => pieces.iter().flat_map(|piece| piece.is.names()).collect(),
        }
    }

    /// `len` bytes of it; `fill` knows the pattern of a memory.
    pub(crate) fn make(&self, len: usize, fill: &dyn Fn(&str) -> Vec<u8>) -> Vec<u8> {
        let repeat = |pattern: &[u8]| pattern.iter().copied().cycle().take(len).collect();
        match self {
            Self::Pattern(bytes) => repeat(bytes),
            Self::FillOf(name) => repeat(&fill(name)),
            Self::Pieces(pieces) => {
                let mut all = Vec::new();
                for piece in pieces {
                    let left = len - all.len();
                    let size = piece.size.and_then(|size| usize::try_from(size).ok());
                    all.extend(piece.is.make(size.unwrap_or(left).min(left), fill));
                }
                all.resize(len, 0);
                all
            }
        }
    }
}

fn piece(node: &Node) -> Result<Piece, Wrong> {
    let Value::Table(table) = &node.value else {
        return Err(node.place.wrong("a piece is { is = BYTES, size = N }"));
    };
    let reader = Reader::new(table, "the piece");
    let is = reader.need("is", reader.node("is"))?;
    let is = Bytes::read(is, "is")?;
    if matches!(is, Bytes::Pieces(_)) {
        return Err(node.place.wrong("a piece is not made of pieces"));
    }
    let size = reader.size("size")?;
    reader.finish()?;
    Ok(Piece { is, size })
}
