//! Rust files as tokens: what a text search would get wrong (comments, strings) cannot happen.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// Every `.rs` file under `folder`, sorted; build output and hidden folders apart.
pub(crate) fn rust_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        let entries =
            fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
        for entry in entries {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_dir() && !name.starts_with('.') && name != "target" {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

pub(crate) fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

pub(crate) fn tokens(text: &str) -> Result<Vec<TokenTree>> {
    let stream: TokenStream =
        text.parse().map_err(|error| anyhow!("not Rust that can be read: {error}"))?;
    Ok(stream.into_iter().collect())
}

pub(crate) fn is_word(tree: Option<&TokenTree>, word: &str) -> bool {
    matches!(tree, Some(TokenTree::Ident(ident)) if ident == word)
}

pub(crate) fn word(tree: Option<&TokenTree>) -> Option<String> {
    match tree {
        Some(TokenTree::Ident(ident)) => Some(ident.to_string()),
        _ => None,
    }
}

pub(crate) fn is_mark(tree: Option<&TokenTree>, mark: char) -> bool {
    matches!(tree, Some(TokenTree::Punct(punct)) if punct.as_char() == mark)
}

/// The tokens inside a group of that kind.
pub(crate) fn inside(tree: Option<&TokenTree>, kind: Delimiter) -> Option<Vec<TokenTree>> {
    match tree {
        Some(TokenTree::Group(group)) if group.delimiter() == kind => {
            Some(group.stream().into_iter().collect())
        }
        _ => None,
    }
}

/// What follows a `::` at `at`.
pub(crate) fn after_colons(trees: &[TokenTree], at: usize) -> Option<&[TokenTree]> {
    (is_mark(trees.get(at), ':') && is_mark(trees.get(at + 1), ':'))
        .then(|| trees.get(at + 2..))
        .flatten()
}

/// The line of a word, anywhere in the tokens.
pub(crate) fn find_word(trees: &[TokenTree], word: &str) -> Option<usize> {
    trees.iter().find_map(|tree| match tree {
        TokenTree::Ident(ident) if ident == word => Some(ident.span().start().line),
        TokenTree::Group(group) => find_word(&group.stream().into_iter().collect::<Vec<_>>(), word),
        _ => None,
    })
}

/// How many tokens an item under `#[cfg(test)]` takes, if one starts here.
pub(crate) fn test_item(trees: &[TokenTree]) -> Option<usize> {
    let (mut at, mut test) = (0, false);
    while is_mark(trees.get(at), '#') {
        let attribute = inside(trees.get(at + 1), Delimiter::Bracket)?;
        test |= is_cfg_test(&attribute);
        at += 2;
    }
    if !test {
        return None;
    }
    let rest = trees.get(at..)?;
    let end = rest.iter().position(|tree| {
        is_mark(Some(tree), ';') || inside(Some(tree), Delimiter::Brace).is_some()
    });
    Some(end.map_or(trees.len(), |end| at + end + 1))
}

/// `cfg(test)` or `cfg(all(test, ..))`: under `any` or `not` the item is part of the crate too.
fn is_cfg_test(attribute: &[TokenTree]) -> bool {
    fn only_test(condition: &[TokenTree]) -> bool {
        condition.split(|tree| is_mark(Some(tree), ',')).any(|part| match part {
            [TokenTree::Ident(name)] => name == "test",
            [TokenTree::Ident(name), all] if name == "all" => {
                inside(Some(all), Delimiter::Parenthesis).is_some_and(|parts| only_test(&parts))
            }
            _ => false,
        })
    }
    is_word(attribute.first(), "cfg")
        && inside(attribute.get(1), Delimiter::Parenthesis).is_some_and(|inner| only_test(&inner))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_items_are_seen_and_others_are_not() {
        let length = |text: &str| test_item(&tokens(text).unwrap()).map(|length| length > 0);
        assert_eq!(length("#[cfg(test)] mod tests { }"), Some(true));
        assert_eq!(length("#[cfg(test)] mod tests;"), Some(true));
        assert_eq!(length("#[allow(x)] #[cfg(all(test, not(loom)))] use a::b;"), Some(true));
        assert_eq!(length("#[cfg(any(test, loom))] mod shim;"), None);
        assert_eq!(length("#[cfg(not(test))] mod shim;"), None);
        assert_eq!(length("#[cfg(loom)] mod shim;"), None);
        assert_eq!(length("mod shim;"), None);
    }

    #[test]
    fn words_in_comments_and_strings_are_not_found() {
        let text = "/// unsafe\n// unsafe\nfn f() -> &'static str { \"unsafe\" }";
        assert_eq!(find_word(&tokens(text).unwrap(), "unsafe"), None);
        let text = "fn f() {\n    g(|| { unsafe { h() } });\n}";
        assert_eq!(find_word(&tokens(text).unwrap(), "unsafe"), Some(2));
    }
}
