//! One decision in one place: above `plan` nobody asks which platform this is, or whether a device is
//! trusted. [`ALLOWED`] is what may, with the reason.

use std::path::Path;

use proc_macro2::{Delimiter, TokenTree};

use super::table;
use crate::source::{after_colons, inside, is_mark, is_word, test_item, word};

/// The types by which `plan` alone decides.
const DECIDED_BY: [&str; 3] = ["Regime", "Trust", "PlatformName"];

/// The file, what is asked there, and why it may be. An entry that nothing needs is an error of the
/// reader's to take out: keep it short.
const ALLOWED: &[(&str, &str, &str)] = &[];

/// Every question of a module above `plan`, as `file:line: why`.
pub(super) fn check(trees: &[TokenTree], file: &Path, module: &str) -> Vec<String> {
    let number = |module| table::floor(module).map_or(0, |floor| floor.number);
    if number(module) <= number("plan") {
        return Vec::new();
    }
    let mut asked = Vec::new();
    scan(trees, false, &mut asked);
    asked
        .into_iter()
        .filter(|(_, what)| {
            !ALLOWED.iter().any(|(where_, allowed, _)| file == Path::new(where_) && what == allowed)
        })
        .map(|(line, what)| {
            format!("{}:{line}: `{what}` is asked here: only `plan` decides by it", file.display())
        })
        .collect()
}

/// Looks for values of the types that stand in a pattern or beside `==` and `!=`.
fn scan(trees: &[TokenTree], pattern: bool, asked: &mut Vec<(usize, String)>) {
    let mut at = 0;
    while let Some(tree) = trees.get(at) {
        let rest = trees.get(at..).unwrap_or_default();
        if let Some(length) = test_item(rest) {
            at += length;
            continue;
        }
        let line = tree.span().start().line;
        if is_word(Some(tree), "use") {
            let end = rest.iter().position(|tree| is_mark(Some(tree), ';')).unwrap_or(rest.len());
            imports(rest.get(..end).unwrap_or_default(), asked);
            at += end;
        } else if is_word(Some(tree), "let") {
            // `let PATTERN = value`: the value is looked at as any other.
            let end = (0..rest.len()).find(|end| is_assignment(rest, *end)).unwrap_or(1);
            scan(rest.get(1..end).unwrap_or_default(), true, asked);
            at += end.max(1);
        } else if is_word(Some(tree), "matches")
            && is_mark(rest.get(1), '!')
            && let Some(inner) = inside(rest.get(2), Delimiter::Parenthesis)
        {
            let value = inner.iter().position(|tree| is_mark(Some(tree), ',')).unwrap_or(0);
            scan(inner.get(..value).unwrap_or_default(), false, asked);
            scan(inner.get(value..).unwrap_or_default(), true, asked);
            at += 3;
        } else if is_word(Some(tree), "is_guest")
            && inside(rest.get(1), Delimiter::Parenthesis).is_some()
        {
            asked.push((line, "is_guest()".to_owned()));
            at += 2;
        } else if let Some((name, length)) = value(rest) {
            if pattern || is_compared(trees, at) || is_pattern(rest, length) {
                asked.push((line, name));
            }
            at += length;
        } else {
            if let TokenTree::Group(group) = tree {
                let inner: Vec<_> = group.stream().into_iter().collect();
                let arm = match group.delimiter() {
                    Delimiter::Brace => is_arrow(rest, 1),
                    _ => is_pattern(rest, 1),
                };
                scan(&inner, pattern || arm, asked);
            }
            at += 1;
        }
    }
}

/// `Trust::Accepted` at the start, and how many tokens it has.
fn value(trees: &[TokenTree]) -> Option<(String, usize)> {
    let name = word(trees.first()).filter(|name| DECIDED_BY.contains(&name.as_str()))?;
    let variant = word(after_colons(trees, 1)?.first())?;
    let is_variant = variant.chars().next()?.is_uppercase() && variant.to_uppercase() != variant;
    is_variant.then(|| (format!("{name}::{variant}"), 4))
}

/// Whether what ends before `at` is followed by what follows a pattern alone, or a comparison.
fn is_pattern(trees: &[TokenTree], at: usize) -> bool {
    let after = if matches!(trees.get(at), Some(TokenTree::Group(_))) { at + 1 } else { at };
    let or = is_mark(trees.get(after), '|') && !is_mark(trees.get(after + 1), '|');
    let guard = is_word(trees.get(after), "if");
    or || guard || is_arrow(trees, after) || is_comparison(trees, after)
}

fn is_arrow(trees: &[TokenTree], at: usize) -> bool {
    is_mark(trees.get(at), '=') && is_mark(trees.get(at + 1), '>')
}

fn is_comparison(trees: &[TokenTree], at: usize) -> bool {
    (is_mark(trees.get(at), '=') || is_mark(trees.get(at), '!')) && is_mark(trees.get(at + 1), '=')
}

fn is_assignment(trees: &[TokenTree], at: usize) -> bool {
    let before = at.checked_sub(1).and_then(|before| trees.get(before));
    is_mark(trees.get(at), '=')
        && !is_mark(trees.get(at + 1), '=')
        && !['=', '!', '<', '>', '.'].iter().any(|mark| is_mark(before, *mark))
}

/// Whether the path that has its last two names at `at` stands behind `==` or `!=`, or behind another
/// pattern.
fn is_compared(trees: &[TokenTree], at: usize) -> bool {
    let mut at = at;
    while at >= 3 && after_colons(trees, at - 2).is_some() {
        at -= 3;
    }
    while at >= 1 && (is_mark(trees.get(at - 1), '&') || is_mark(trees.get(at - 1), '*')) {
        at -= 1;
    }
    at >= 2 && is_comparison(trees, at - 2)
}

/// Variants that are imported would be asked about unseen.
fn imports(trees: &[TokenTree], asked: &mut Vec<(usize, String)>) {
    for (at, tree) in trees.iter().enumerate() {
        if let TokenTree::Group(group) = tree {
            imports(&group.stream().into_iter().collect::<Vec<_>>(), asked);
        }
        if let Some(name) = word(Some(tree)).filter(|name| DECIDED_BY.contains(&name.as_str()))
            && after_colons(trees, at + 1).is_some()
        {
            asked.push((tree.span().start().line, format!("use {name}::…")));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::tokens;

    fn asked(module: &str, text: &str) -> Vec<String> {
        let errors = check(&tokens(text).unwrap(), Path::new("file.rs"), module);
        errors.iter().filter_map(|error| error.split('`').nth(1).map(str::to_owned)).collect()
    }

    #[test]
    fn a_question_about_platform_or_trust_is_seen_in_every_form() {
        for (text, wanted) in [
            ("fn f() { match r { Regime::Open => 1, _ => 2 } }", "Regime::Open"),
            ("fn f() { match r { Regime::Guest(_) => 1, _ => 2 } }", "Regime::Guest"),
            ("fn f() { match r { Regime::Host(h) if h.x() => 1, _ => 2 } }", "Regime::Host"),
            ("fn f() { match (r, t) { (Regime::Open, _) => 1, _ => 2 } }", "Regime::Open"),
            ("fn f() { match r { None | Some(Trust::Accepted) => 1, _ => 2 } }", "Trust::Accepted"),
            ("fn f() -> bool { matches!(r, Regime::Guest(_)) }", "Regime::Guest"),
            ("fn f() { if let Regime::Open = r { g() } }", "Regime::Open"),
            ("fn f() { let Regime::Host(h) = r else { return }; }", "Regime::Host"),
            ("fn f() -> bool { t == Trust::Accepted }", "Trust::Accepted"),
            ("fn f() -> bool { *r != &crate::regime::Regime::Open }", "Regime::Open"),
            ("fn f() -> bool { PlatformName::Sme == name }", "PlatformName::Sme"),
            ("fn f() -> bool { r.is_guest() }", "is_guest()"),
            ("use crate::regime::Regime::{Guest, Open};", "use Regime::…"),
        ] {
            assert_eq!(asked("device", text), [wanted], "{text}");
            assert_eq!(asked("plan", text), [""; 0], "{text}");
            assert_eq!(asked("regime", text), [""; 0], "{text}");
        }
    }

    #[test]
    fn to_make_a_value_is_no_question() {
        for text in [
            "fn f() -> E { E { trust: Trust::Accepted, ..e } }",
            "fn f() { let t = Trust::Untrusted; g(t, Regime::Open); }",
            "fn f() { { g(Regime::Open) } if x { h() } }",
            "fn f() { match x { 1 => Trust::Accepted, _ => Trust::Untrusted } }",
            "fn f() { let a = PlatformName::ALL; Regime::memory_limit(r) == a }",
            "#[cfg(test)] mod tests { fn f() -> bool { r.is_guest() } }",
            "use crate::regime::Regime;",
        ] {
            assert_eq!(asked("device", text), [""; 0], "{text}");
        }
    }
}
