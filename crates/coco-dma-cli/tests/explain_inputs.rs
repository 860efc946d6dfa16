//! `explain` takes what a case says of machine, pools, devices and the question: every key of the
//! schema page has its option, or a reason why no decision depends on it.

#![allow(clippy::panic, clippy::unwrap_used, reason = "a test: a panic is how it fails")]

mod common;

use common::run;

const SCHEMA: &str = include_str!("../../../docs/cases.md");

/// Keys that an option says under another name.
const OTHERWISE: [(&str, &str); 9] = [
    ("ledger", "--memory"),
    ("label", "--pool"),
    ("purpose", "--pool"),
    ("restricted", "--pool"),
    ("bus-ranges", "--bus-range"),
    ("pools", "--pool"),
    ("state", "--memory"),
    ("attrs", "--attr"),
    ("at", "--phys"),
];

/// Keys about what is done, and not about what is decided.
const NO_INPUT: [&str; 15] = [
    "name",
    "ram",
    "seed",
    "quarantine-limit",
    "plan-only",
    "origin",
    "open",
    "quota",
    "quota-bytes",
    // Of lists, which are no single decision.
    "max-segments",
    // Which address a domain gives, and what is asked of it later.
    "iommu-window",
    "iommu-query",
    "bound",
    // Explained by deciding the allocation first.
    "converted",
    // Pages that are in several runs are found when they are taken.
    "longest-run",
];

/// The names between backquotes in a text, which are keys or their values.
fn quoted(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// The keys of a table of the schema page.
fn keys(heading: &str) -> Vec<&'static str> {
    let rest = SCHEMA.split(heading).nth(1).unwrap();
    let rows = rest.lines().skip_while(|line| !line.starts_with("|---"));
    rows.skip(1)
        .take_while(|line| line.starts_with('|'))
        .flat_map(|line| quoted(line.split('|').nth(1).unwrap()))
        .collect()
}

#[test]
fn every_input_of_a_case_has_its_option() {
    let help = run(&["explain", "--help"]).stdout;
    let decide = SCHEMA.lines().find(|line| line.starts_with("| `decide`")).unwrap();
    let takes = decide.split('|').nth(2).unwrap();
    let kinds = ["device", "map", "unmap", "sync", "alloc", "attach", "free", "mmap"];
    let asked = quoted(takes).into_iter().filter(|word| !kinds.contains(word));
    let mut all: Vec<&str> = asked.collect();
    for heading in ["### `[machine]`", "### `[[pool]]`", "### `[[device]]`"] {
        let found = keys(heading);
        assert!(found.len() > 5, "{heading}: {found:?}");
        all.extend(found);
    }
    for key in all.into_iter().filter(|key| !NO_INPUT.contains(key)) {
        let option = OTHERWISE.iter().find(|(known, _)| *known == key);
        let option = option.map_or_else(|| format!("--{key}"), |(_, option)| (*option).to_owned());
        assert!(
            help.contains(&format!("{option} ")) || help.contains(&format!("{option}\n")),
            "{option}"
        );
    }
}

/// The states of memory that `decide` takes, and memory in no single run.
#[test]
fn every_state_of_memory_has_its_word() {
    let text = SCHEMA.split("- `decide` takes `state`").nth(1).unwrap();
    let states = quoted(text.split(')').next().unwrap().split('(').nth(1).unwrap());
    assert!(states.len() > 9, "{states:?}");
    for state in states.into_iter().chain(["unlocated"]) {
        let platform = match state {
            "encrypted" | "plain" => "sme",
            "ordinary" => "open",
            _ => "tdx",
        };
        let args = ["explain", "--platform", platform, "--size", "4096", "--phys", "0x80000000"];
        let ran = run(&[&args[..], &["--memory", state]].concat());
        assert_eq!(ran.status, Some(0), "{state}: {}", ran.stderr);
    }
}
