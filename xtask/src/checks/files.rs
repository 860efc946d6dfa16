//! Files stay readable in one sitting, and `lib.rs` is a table of contents.

use anyhow::{Context, Result, bail};
use proc_macro2::{Delimiter, TokenTree};

use crate::shell::Workshop;
use crate::source::{inside, is_mark, read, rust_files, tokens, word};

/// More lines than this fail.
const CEILING: usize = 600;
/// More lines than this are worth a look.
const NOTE: usize = 300;
/// The crate whose `lib.rs` only leads to its modules.
const CORE: &str = "crates/coco-dma/src/lib.rs";

/// The step `files`.
pub(crate) fn step(shop: &mut Workshop) -> Result<()> {
    let mut errors = 0;
    let files = rust_files(&shop.root)?;
    for path in &files {
        let lines = read(path)?.lines().count();
        let name = path.strip_prefix(&shop.root).unwrap_or(path).display();
        if lines > CEILING {
            println!("   {name}: {lines} lines, {CEILING} is the ceiling: split it");
            errors += 1;
        } else if lines > NOTE {
            println!("   note: {name}: {lines} lines");
        }
    }
    for (line, what) in strangers(&read(&shop.root.join(CORE))?).context(CORE)? {
        println!("   {CORE}:{line}: `{what}`: only docs, attributes, modules and exports");
        errors += 1;
    }
    if errors > 0 {
        bail!("{errors} findings");
    }
    println!("   {} files, none above {CEILING} lines", files.len());
    Ok(())
}

/// The line and the first word of each item that is no `mod name;`, `use` or `extern crate`.
fn strangers(text: &str) -> Result<Vec<(usize, String)>> {
    let trees = tokens(text)?;
    let (mut found, mut at) = (Vec::new(), 0);
    while let Some(tree) = trees.get(at) {
        if is_mark(Some(tree), '#') {
            at += if is_mark(trees.get(at + 1), '!') { 3 } else { 2 };
            continue;
        }
        let rest = trees.get(at..).unwrap_or_default();
        let is_use = rest.iter().take(3).any(|tree| word(Some(tree)).is_some_and(|w| w == "use"));
        let end = rest
            .iter()
            .position(|tree| {
                is_mark(Some(tree), ';')
                    || (!is_use && inside(Some(tree), Delimiter::Brace).is_some())
            })
            .unwrap_or(rest.len());
        let head = rest.iter().find_map(|tree| match tree {
            TokenTree::Ident(name) if name != "pub" => Some(name.to_string()),
            _ => None,
        });
        let head = head.unwrap_or_default();
        let inline = inside(rest.get(end), Delimiter::Brace).is_some();
        if inline || !["mod", "use", "extern"].contains(&head.as_str()) {
            found.push((tree.span().start().line, head));
        }
        at += end + 1;
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_of_contents_passes() {
        let text = "//! Doc.\n#![no_std]\n#![cfg_attr(x, y)]\n#[cfg(feature = \"alloc\")]\n\
                    extern crate alloc;\n/// Doc.\npub mod a;\npub(crate) mod b;\n\
                    pub use a::{B, c::D};\npub use b::E;";
        assert_eq!(strangers(text).unwrap(), []);
    }

    #[test]
    fn code_does_not() {
        let names = |text| strangers(text).unwrap().into_iter().map(|(_, w)| w).collect::<String>();
        assert_eq!(names("pub fn f() {} mod a;"), "fn");
        assert_eq!(names("mod a { fn f() {} } pub use a::B;"), "mod");
        assert_eq!(names("mod a;\npub const X: u8 = 1;"), "const");
        assert_eq!(strangers("mod a;\n\nstruct S;").unwrap(), [(3, "struct".to_owned())]);
    }
}
