//! `coco-dma check` and `explain --case`, as a user sees them.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test: a panic is how it fails"
)]

mod common;

use common::run;
use serde_json::Value;

/// A file of this name and text in a folder of its own.
fn file(folder: &tempfile::TempDir, name: &str, text: &str) -> String {
    let path = folder.path().join(name);
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

const CASE: &str = r#"name = "mine"
title = "A case of my own"
source = "own"
machine = { platform = "open" }
device = [{ name = "nic" }]
memory = [{ name = "buffer", at = 0x4000_0000, size = 64 }]
[[step]]
op = "map"
device = "nic"
memory = "buffer"
as = "m"
expect = { outcome = "direct" }
[[step]]
op = "finish"
map = "m"
"#;

#[test]
fn the_cases_of_the_repository_hold() {
    let ran = run(&["check", "--json"]);
    assert_eq!(ran.status, Some(0), "{}", ran.stderr);
    let report = json(&ran.stdout);
    assert_eq!(report["failed"], 0);
    let cases = report["cases"].as_array().unwrap();
    assert_eq!(report["passed"], cases.len());
    assert!(cases.len() > 50);
    assert!(cases.iter().all(|case| case["ok"] == true && case["name"].is_string()));
    assert!(cases.iter().all(|case| case["expected"] == case["got"]));
    let ran = run(&["check", "--filter", "M5", "--jobs", "2"]);
    assert_eq!((ran.status, ran.stdout.trim()), (Some(0), "9 cases hold"), "{}", ran.stderr);
    let ran = run(&["check", "--compare", "linux-7.3"]);
    assert_eq!(ran.status, Some(0));
    assert!(ran.stdout.contains("Linux 7.3 does something else in"), "{}", ran.stdout);
}

#[test]
fn a_case_that_does_not_hold_is_status_1_and_explained() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(&folder, "mine.toml", &CASE.replace("\"direct\"", "\"bounce\""));
    let ran = run(&["check", &path]);
    assert_eq!(ran.status, Some(1));
    assert!(ran.stdout.contains("mine does not hold"), "{}", ran.stdout);
    assert!(ran.stdout.contains("mine.toml:7:1"), "{}", ran.stdout);
    assert!(ran.stdout.contains("expected: map: bounce"), "{}", ran.stdout);
    assert!(ran.stdout.contains("got:      direct (in-reach)"), "{}", ran.stdout);
    assert!(ran.stdout.contains("mine does not hold on the path fast"), "{}", ran.stdout);
    let ran = run(&["check", &path, "--path", "slow", "--json"]);
    let report = json(&ran.stdout);
    assert_eq!((&report["cases"][0]["path"], ran.status), (&"slow".into(), Some(1)));
    assert_eq!(report["cases"][0]["paths"], Value::Array(Vec::new()), "it is mapped in place");
    let good = file(&folder, "good.toml", &CASE.replace("mine", "good"));
    let ran = run(&["check", &good, &path, "--json"]);
    assert_eq!(ran.status, Some(1));
    let report = json(&ran.stdout);
    assert_eq!((&report["passed"], &report["failed"]), (&1.into(), &1.into()));
    let ran = run(&["check", &folder.path().display().to_string()]);
    assert_eq!(ran.status, Some(1));
    assert!(ran.stdout.ends_with("1 case holds, 1 not\n"), "{}", ran.stdout);
}

#[test]
fn what_cannot_be_read_is_status_2_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let wrong = |text: &str, said: &str| {
        let path = file(&folder, "mine.toml", text);
        let ran = run(&["check", &path, "--json"]);
        assert_eq!((ran.status, ran.stdout.as_str()), (Some(2), ""), "{}", ran.stderr);
        assert!(ran.stderr.contains(said), "{}", ran.stderr);
        let ran = run(&["explain", "--case", &path]);
        assert_eq!((ran.status, ran.stdout.as_str()), (Some(2), ""), "{}", ran.stderr);
        assert!(ran.stderr.contains(said), "{}", ran.stderr);
    };
    wrong(&CASE.replace("title", "titel"), "mine.toml:2:1: ");
    wrong(&CASE.replace("\"open\"", "\"opne\""), "mine.toml:4:24: unknown platform 'opne'");
    wrong("= 7", "mine.toml:1:1: no TOML");
    wrong("", "mine.toml:1:1: the case needs 'name'");
    let missing = folder.path().join("none.toml").display().to_string();
    for (args, said) in [
        (vec!["check", missing.as_str()], "none.toml: "),
        (vec!["check", "--filter", "no such case"], "--filter: no case's name holds"),
        (vec!["check", "--jobs", "0"], "at least one"),
        (vec!["check", "--jobs", "x"], "--jobs"),
        (vec!["check", "--compare", "linux-7.2"], "did you mean 'linux-7.3'?"),
        (vec!["check", "--path", "quick"], "known: all, fast, bitmap, slow, handle"),
        (vec!["check", "/dev/null"], "this is no file"),
        (vec!["explain", "--case", "x", "--phys", "0"], "--case does not go with --phys"),
        (vec!["explain", "--size", "1"], "--phys"),
    ] {
        let ran = run(&args);
        assert_eq!(ran.status, Some(2), "{args:?}: {}", ran.stderr);
        assert!(ran.stderr.contains(said), "{args:?}: {}", ran.stderr);
    }
    let empty = tempfile::tempdir().unwrap();
    let ran = run(&["check", &empty.path().display().to_string()]);
    assert_eq!(ran.status, Some(2), "{}", ran.stderr);
}

#[test]
fn the_story_of_a_case_names_its_rules() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(&folder, "mine.toml", CASE);
    let ran = run(&["explain", "--case", &path]);
    assert_eq!(ran.status, Some(0), "{}", ran.stderr);
    let lines: Vec<&str> = ran.stdout.lines().collect();
    assert_eq!(lines[0], "mine: A case of my own");
    assert_eq!(
        lines[1],
        "  1. map 64 bytes of buffer for nic (both): direct (in-reach), address 0x40000000"
    );
    assert!(
        lines[2].starts_with("       range            0x40000000..=0x4000003f"),
        "{}",
        lines[2]
    );
    let ran = run(&["explain", "--case", &path, "--json"]);
    let story = json(&ran.stdout);
    assert_eq!(story["cases"][0]["story"][0]["steps"][0]["rule"], "range");
}
