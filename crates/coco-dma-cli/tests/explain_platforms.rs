//! `coco-dma platforms` from outside. Written from the documents alone.

#![allow(
    clippy::panic,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests: a panic is how a test fails"
)]

mod common;

use common::run;
use serde_json::Value;

const PLATFORMS: [&str; 11] =
    ["open", "sme", "sev", "snp", "snp-vtom", "tdx", "cca", "pkvm", "hyperv", "s390", "pef"];

#[test]
fn a_row_each() {
    let ran = run(&["platforms", "--json"]);
    assert_eq!(ran.status, Some(0), "{}", ran.stderr);
    let document: Value = serde_json::from_str(&ran.stdout).expect("one JSON document");
    let rows = document["platforms"].as_array().expect("`platforms` is a list");
    assert_eq!(rows.len(), PLATFORMS.len(), "a row each");
    for name in PLATFORMS {
        let found: Vec<&Value> = rows
            .iter()
            .filter(|row| {
                row.as_object().is_some_and(|row| row.values().any(|v| v.as_str() == Some(name)))
            })
            .collect();
        assert_eq!(found.len(), 1, "one row with the name {name}");
        // Name, address forms, conversion protocol, failure.
        let keys = found[0].as_object().map_or(0, serde_json::Map::len);
        assert!(keys >= 4, "{name}: forms, protocol and failure expected: {}", found[0]);
    }
}

#[test]
fn a_table_for_people() {
    let ran = run(&["platforms"]);
    assert_eq!(ran.status, Some(0), "{}", ran.stderr);
    for name in PLATFORMS {
        assert!(ran.stdout.contains(name), "no {name} in\n{}", ran.stdout);
    }
    assert!(!ran.stdout.contains('\u{1b}'), "escape codes in a pipe");
}
