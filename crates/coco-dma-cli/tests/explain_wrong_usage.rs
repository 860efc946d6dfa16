//! Wrong usage of the command: status 2, one clear sentence with the nearest valid word, nothing on standard output.
//! Written from the documents alone.

#![allow(
    clippy::panic,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests: a panic is how a test fails"
)]

mod common;

use std::fs;

use common::{in_parallel, report, rows, run};

#[test]
fn one_clear_sentence() {
    let rows = rows(include_str!("data/explain_wrong_usage.table"), 3);
    let failures = in_parallel(&rows, |(line, columns)| {
        let [command, words, source] = columns.as_slice() else {
            panic!("broken table, line {line}");
        };
        let plain: Vec<&str> = command.split_whitespace().collect();
        let mut json = plain.clone();
        json.push("--json");
        for args in [plain, json] {
            let ran = run(&args);
            let mut wrong = Vec::new();
            if ran.status != Some(2) {
                wrong.push(format!("status {:?}, not 2", ran.status));
            }
            if !ran.stdout.is_empty() {
                wrong.push(format!("on stdout: `{}`", ran.stdout.trim()));
            }
            let lines = ran.stderr.lines().filter(|l| !l.trim().is_empty()).count();
            if lines != 1 {
                wrong.push(format!("{lines} lines on stderr, not one"));
            }
            for word in words.split(',').map(str::trim).filter(|w| !w.is_empty()) {
                if !holds_word(&ran.stderr, word) {
                    wrong.push(format!("no `{word}` on stderr"));
                }
            }
            if ran.stderr.contains("panicked") {
                wrong.push("a panic".to_owned());
            }
            if !wrong.is_empty() {
                return Some(format!(
                    "line {line}: {}\n    {}\n    stderr   {}\n    because  {source}",
                    args.join(" "),
                    wrong.join("; "),
                    ran.stderr.trim()
                ));
            }
        }
        None
    });
    report("cases of tests/data/explain_wrong_usage.table", rows.len(), &failures);
}

/// Whether the text holds the word by itself: `tdx` is not in `tdxx`.
fn holds_word(text: &str, word: &str) -> bool {
    let inside = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
    text.match_indices(word).any(|(at, _)| {
        !inside(text[..at].chars().next_back()) && !inside(text[at + word.len()..].chars().next())
    })
}

/// Images that are none: missing, a directory, empty, of an odd size.
#[test]
fn bad_images() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing.img");
    let empty = folder.path().join("empty.img");
    let odd = folder.path().join("odd.img");
    let output = folder.path().join("out.img");
    fs::write(&empty, b"").unwrap();
    fs::write(&odd, vec![7_u8; 4096 + 100]).unwrap();
    let mut failures = Vec::new();
    for (what, image) in [
        ("missing", missing.as_path()),
        ("a directory", folder.path()),
        ("empty", empty.as_path()),
        ("odd size", odd.as_path()),
        ("a file in a file", &odd.join("inside.img")),
    ] {
        let image = image.to_str().unwrap();
        let ran = run(&[
            "run",
            "--json",
            "--device",
            "embedded",
            "--image",
            image,
            "--output",
            output.to_str().unwrap(),
        ]);
        if ran.status != Some(2)
            || !ran.stdout.is_empty()
            || !ran.stderr.contains(image)
            || ran.stderr.contains("panicked")
        {
            failures.push(format!(
                "{what}: {image}\n    status {:?} (2 expected), stdout `{}`, stderr `{}` (one sentence with the path expected)",
                ran.status,
                ran.stdout.trim(),
                ran.stderr.trim()
            ));
        }
        if output.exists() {
            failures.push(format!("{what}: left an output file behind"));
            fs::remove_file(&output).unwrap();
        }
    }
    report("bad images", 5, &failures);
}

/// A pool too small for one request.
#[test]
fn pool_too_small() {
    for size in ["0", "1", "512"] {
        let ran = run(&["run", "--json", "--device", "embedded", "--pool-size", size]);
        assert_eq!(ran.status, Some(2), "--pool-size {size}: {}", ran.stderr);
        assert!(ran.stdout.is_empty(), "--pool-size {size}: {}", ran.stdout);
        assert!(!ran.stderr.trim().is_empty(), "--pool-size {size}: no sentence");
    }
}

/// `--help` on every command has an example.
#[test]
fn help_has_an_example() {
    for command in [None, Some("run"), Some("explain"), Some("platforms")] {
        let mut args: Vec<&str> = command.into_iter().collect();
        args.push("--help");
        let ran = run(&args);
        assert_eq!(ran.status, Some(0), "{args:?}: {}", ran.stderr);
        assert!(
            ran.stdout.to_lowercase().contains("example"),
            "{args:?}: no example in\n{}",
            ran.stdout
        );
        let call = format!("coco-dma {}", command.unwrap_or_default());
        assert!(ran.stdout.contains(&call), "{args:?}: no `{call}` in\n{}", ran.stdout);
    }
}

/// The options of cli.md stand in the help of `explain`, by name.
#[test]
fn help_of_explain_names_the_options() {
    let ran = run(&["explain", "--help"]);
    assert_eq!(ran.status, Some(0), "{}", ran.stderr);
    let mut missing = Vec::new();
    for option in [
        "--platform",
        "--trust",
        "--mask",
        "--bus-limit",
        "--bus-range",
        "--boundary",
        "--min-align-mask",
        "--phys",
        "--size",
        "--memory",
        "--attr",
        "--direction",
        "--pool",
        "--force-bounce",
        "--external-facing",
        "--iommu",
        "--c-bit",
        "--ipa-bits",
        "--gpaw",
        "--vtom",
        "--granule",
        "--coherent",
        "--context",
        "--operation",
        "--json",
    ] {
        if !ran.stdout.contains(option) {
            missing.push(option);
        }
    }
    assert!(missing.is_empty(), "not in the help: {missing:?}");
}
