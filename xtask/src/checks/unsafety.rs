//! `unsafe` lives in few files, and each opens with why.

use anyhow::{Context, Result, bail};

use crate::shell::Workshop;
use crate::source::{find_word, read, rust_files, tokens};

const OPENINGS: [&str; 2] = ["#![expect(unsafe_code", "#![allow(unsafe_code"];
const WHY: &str = "// UNSAFETY:";

/// The step `unsafe`.
pub(crate) fn step(shop: &mut Workshop) -> Result<()> {
    let (mut errors, mut opened) = (0, 0);
    for path in rust_files(&shop.root)? {
        let text = read(&path)?;
        let name = path.strip_prefix(&shop.root).unwrap_or(&path).display();
        match judge(&text).with_context(|| name.to_string())? {
            Verdict::None => {}
            Verdict::Opened => opened += 1,
            Verdict::Wrong { line, why } => {
                println!("   {name}:{line}: {why}");
                errors += 1;
            }
        }
    }
    if errors > 0 {
        bail!("{errors} files with `unsafe` do not open as the house wants it");
    }
    println!("   {opened} files hold unsafe code, each says why");
    Ok(())
}

#[derive(Debug, PartialEq)]
enum Verdict {
    None,
    Opened,
    Wrong { line: usize, why: &'static str },
}

fn judge(text: &str) -> Result<Verdict> {
    let used = find_word(&tokens(text)?, "unsafe");
    let lines: Vec<&str> = text.lines().collect();
    let opening = lines.iter().position(|line| {
        let line: String = line.split_whitespace().collect();
        OPENINGS.iter().any(|opening| line.starts_with(opening))
    });
    let wrong = |line, why| Ok(Verdict::Wrong { line, why });
    match (used, opening) {
        (None, None) => Ok(Verdict::None),
        (None, Some(at)) => wrong(at + 1, "opens for unsafe code, but holds none"),
        (Some(line), None) => {
            wrong(line, "`unsafe` in a file without `#![expect(unsafe_code)]` under `// UNSAFETY:`")
        }
        (Some(_), Some(at)) => {
            // The comment block right above, whose first line is the lead-in.
            let above = lines.get(..at).unwrap_or_default();
            let comment = above.iter().rev().take_while(|line| line.starts_with("// "));
            if comment.last().is_some_and(|first| first.len() > WHY.len() && first.starts_with(WHY))
            {
                Ok(Verdict::Opened)
            } else {
                wrong(at + 1, "no `// UNSAFETY:` line with the reason above")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> Option<usize> {
        match judge(text).unwrap() {
            Verdict::Wrong { line, .. } => Some(line),
            _ => None,
        }
    }

    #[test]
    fn an_opened_file_may() {
        let body = "fn f() { unsafe { g() } }";
        let why = "// UNSAFETY: talks to the device.\n";
        for text in [
            format!("//! Doc.\n{why}#![expect(unsafe_code)]\n{body}"),
            format!("{why}// On two lines.\n#![expect(unsafe_code, reason = \"x\")]\n{body}"),
            format!("{why}#![allow(unsafe_code)]\n{body}"),
        ] {
            assert_eq!(judge(&text).unwrap(), Verdict::Opened, "{text}");
        }
        assert_eq!(judge("// unsafe\nfn f() {}").unwrap(), Verdict::None);
    }

    #[test]
    fn others_may_not() {
        assert_eq!(line("fn f() {\n    unsafe { g() }\n}"), Some(2));
        assert_eq!(line("#[unsafe(no_mangle)]\nfn f() {}"), Some(1));
        assert_eq!(line("#![expect(unsafe_code)]\nunsafe fn f() {}"), Some(1));
        assert_eq!(line("// UNSAFETY:\n#![expect(unsafe_code)]\nunsafe fn f() {}"), Some(2));
        assert_eq!(line("// UNSAFETY: why\n\n#![expect(unsafe_code)]\nunsafe fn f() {}"), Some(3));
        assert_eq!(line("// UNSAFETY: why\n#![expect(unsafe_code)]\nfn f() {}"), Some(2));
    }
}
