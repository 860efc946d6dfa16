//! Follows the core's modules from `lib.rs` and looks at every path that starts at the root.
//!
//! What is under `#[cfg(test)]` is left alone: tests may import anything.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use proc_macro2::{Delimiter, TokenTree};

use super::decisions;
use super::table;
use crate::source::{after_colons, inside, is_mark, is_word, test_item, tokens, word};

/// Reads a file of the crate, by its path under `src/`.
pub(super) type Reader<'a> = &'a dyn Fn(&Path) -> Option<String>;

/// A path to something at the crate's root, and where it stands.
struct Use {
    file: PathBuf,
    line: usize,
    /// The top module that the path stands in; none in `lib.rs` itself.
    from: Option<String>,
    target: String,
}

/// Every violation, as `file:line: why`.
pub(super) fn check(read: Reader<'_>) -> Result<Vec<String>> {
    let mut walk = Walk::new(read);
    let root = walk.file(Path::new("lib.rs"))?;
    walk.exports(&root);
    walk.items(&root, Path::new("lib.rs"), &mut Vec::new())?;
    Ok(walk.judge())
}

struct Walk<'a> {
    read: Reader<'a>,
    uses: Vec<Use>,
    errors: Vec<String>,
    /// Names that can be reached at the root without being modules, and the module they come from.
    exported: BTreeMap<String, String>,
}

impl<'a> Walk<'a> {
    fn new(read: Reader<'a>) -> Self {
        Self { read, uses: Vec::new(), errors: Vec::new(), exported: BTreeMap::new() }
    }

    fn file(&self, path: &Path) -> Result<Vec<TokenTree>> {
        let text = (self.read)(path).with_context(|| format!("cannot read {}", path.display()))?;
        tokens(&text).with_context(|| path.display().to_string())
    }

    /// `use module::{..};` in `lib.rs`: every name in it comes from that module.
    fn exports(&mut self, root: &[TokenTree]) {
        for item in root.split(|tree| is_mark(Some(tree), ';')) {
            let Some(start) = item.iter().position(|tree| is_word(Some(tree), "use")) else {
                continue;
            };
            let path = item.get(start + 1..).unwrap_or_default();
            let root = is_word(path.first(), "crate") || is_word(path.first(), "self");
            let path = if root { after_colons(path, 1).unwrap_or_default() } else { path };
            if let Some(module) = word(path.first()) {
                self.export(path, &module);
            }
        }
    }

    fn export(&mut self, trees: &[TokenTree], module: &str) {
        for (at, tree) in trees.iter().enumerate() {
            if let Some(inner) = inside(Some(tree), Delimiter::Brace) {
                self.export(&inner, module);
            } else if let Some(name) = word(Some(tree))
                && after_colons(trees, at + 1).is_none()
            {
                self.exported.insert(name, module.to_owned());
            }
        }
    }

    /// Looks through the tokens of the module at `path` (empty: the root), which stand in `file`.
    fn items(&mut self, trees: &[TokenTree], file: &Path, path: &mut Vec<String>) -> Result<()> {
        let mut at = 0;
        while let Some(tree) = trees.get(at) {
            let rest = trees.get(at..).unwrap_or_default();
            if let Some(length) = test_item(rest) {
                at += length;
            } else if is_word(Some(tree), "mod")
                && let Some(name) = word(trees.get(at + 1))
            {
                self.module(trees, at, name, file, path)?;
                at += 3;
            } else if let Some(length) = self.path(rest, file, path) {
                at += length;
            } else {
                if is_word(Some(tree), "macro_rules")
                    && let (Some(name), Some(module)) = (word(trees.get(at + 2)), path.first())
                {
                    self.exported.insert(name, module.clone());
                }
                if let TokenTree::Group(group) = tree {
                    let inner: Vec<_> = group.stream().into_iter().collect();
                    self.items(&inner, file, path)?;
                }
                at += 1;
            }
        }
        Ok(())
    }

    fn module(
        &mut self,
        trees: &[TokenTree],
        at: usize,
        name: String,
        file: &Path,
        path: &mut Vec<String>,
    ) -> Result<()> {
        if path.is_empty() && table::floor(&name).is_none() {
            let line = trees.get(at).map_or(0, |tree| tree.span().start().line);
            self.errors.push(format!(
                "{}:{line}: module `{name}` stands on no floor: enter it in the table",
                file.display()
            ));
        }
        path.push(name);
        if let Some(inner) = inside(trees.get(at + 2), Delimiter::Brace) {
            self.items(&inner, file, path)?;
        } else {
            let folder: PathBuf = path.iter().collect();
            let file = [folder.with_extension("rs"), folder.join("mod.rs")]
                .into_iter()
                .find(|candidate| (self.read)(candidate).is_some())
                .with_context(|| format!("module {} has no file", path.join("::")))?;
            let trees = self.file(&file)?;
            let module = path.first().map_or("", String::as_str);
            self.errors.extend(decisions::check(&trees, &file, module));
            self.items(&trees, &file, path)?;
        }
        path.pop();
        Ok(())
    }

    /// Takes in a path that leads to the root; answers how many tokens its start has.
    fn path(&mut self, trees: &[TokenTree], file: &Path, module: &[String]) -> Option<usize> {
        let (mut at, mut up) = (0, 0);
        if is_word(trees.first(), "crate") {
            (at, up) = (1, module.len());
        } else {
            while is_word(trees.get(at), "super") {
                up += 1;
                at += 1;
                if is_word(trees.get(at + 2), "super") && after_colons(trees, at).is_some() {
                    at += 2;
                }
            }
        }
        let tail = after_colons(trees, at)?;
        if at == 0 || up < module.len() {
            return None;
        }
        for target in firsts(tail) {
            self.uses.push(Use {
                file: file.to_path_buf(),
                line: trees.first()?.span().start().line,
                from: module.first().cloned(),
                target,
            });
        }
        Some(at + 2)
    }

    fn judge(mut self) -> Vec<String> {
        for Use { file, line, from, target } in self.uses {
            let Some(from) = from else { continue };
            let to = self.exported.get(&target).unwrap_or(&target);
            let known = table::floor(to).is_some() && table::floor(&from).is_some();
            let why = match (known, target.as_str()) {
                (true, _) => table::objection(&from, to),
                (false, "*") => Some("a glob of the root hides the floor".to_owned()),
                // Said once already, where the module is declared.
                (false, _) if table::floor(&from).is_none() => None,
                (false, _) => Some(format!("`crate::{target}` stands on no floor")),
            };
            if let Some(why) = why {
                self.errors.push(format!("{}:{line}: {why}", file.display()));
            }
        }
        self.errors
    }
}

/// The first names of a path or of a group of paths: `a::b` is a, `{a::b, c}` is a and c.
fn firsts(tail: &[TokenTree]) -> Vec<String> {
    if let Some(group) = inside(tail.first(), Delimiter::Brace) {
        return group.split(|tree| is_mark(Some(tree), ',')).flat_map(firsts).collect();
    }
    if is_mark(tail.first(), '*') {
        return vec!["*".to_owned()];
    }
    word(tail.first()).into_iter().filter(|name| name != "self").collect()
}

#[cfg(test)]
mod tests;
