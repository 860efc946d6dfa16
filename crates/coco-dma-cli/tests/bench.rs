//! `coco-dma bench`, as a user sees it. How long something takes is not looked at: windows are cut
//! down to next to nothing.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test: a panic is how it fails"
)]

mod common;

use std::sync::Mutex;
use std::sync::PoisonError;

use coco_dma_bench::OFFERED;
use common::run;
use serde_json::Value;

/// Runs pin threads to processors, and would stand in each other's way.
static ALONE: Mutex<()> = Mutex::new(());

const CHEAP: [&str; 4] = ["--windows", "1", "--window", "20"];

/// The document of a cheap run.
fn bench(args: &[&str]) -> Value {
    let mut all = vec!["bench", "--json"];
    all.extend(args.iter().chain(&CHEAP));
    let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let ran = run(&all);
    drop(alone);
    assert_eq!(ran.status, Some(0), "{}", ran.stderr);
    serde_json::from_str(&ran.stdout).unwrap()
}

fn rows(document: &Value) -> &Vec<Value> {
    document["rows"].as_array().unwrap()
}

#[test]
fn the_quick_menu_holds_what_everybody_looks_at() {
    // Pools that are full take their time to fill, without optimisation.
    let document = bench(&["--quick", "--occupancy", "0"]);
    for row in rows(&document) {
        for number in [
            "size",
            "threads",
            "depth",
            "occupancy",
            "ns",
            "floor_ns",
            "reference_ns",
            "ratio",
            "pool_size",
            "min_align_mask",
        ] {
            assert!(row[number].is_number(), "{number}: {row}");
        }
        assert!(row["sync"].is_boolean(), "{row}");
        for word in ["direction", "order", "handle", "way"] {
            assert!(row[word].is_string(), "{word}: {row}");
        }
        assert!(row["ns"].as_f64().unwrap() > 0.0, "{row}");
        let ratio = row["reference_ns"].as_f64().unwrap() / row["ns"].as_f64().unwrap();
        assert!((ratio - row["ratio"].as_f64().unwrap()).abs() < 1e-6, "{row}");
    }
    let offered = serde_json::to_value(OFFERED).unwrap();
    for way in offered.as_array().unwrap() {
        for size in [64, 4096, 65_536] {
            let found = rows(&document).iter().any(|row| {
                row["way"] == way[0]
                    && row["handle"] == way[1]
                    && row["size"] == size
                    && row["threads"] == 1
                    && row["depth"] == 1
                    && row["occupancy"] == 0
                    && row["direction"] == "to"
                    && row["sync"] == true
            });
            assert!(found, "{way} {size}");
        }
    }
}

#[test]
fn filters_filter_and_may_be_lists() {
    let document = bench(&["--quick", "--size", "64,3000", "--depth", "2", "--occupancy", "10%"]);
    let mut points: Vec<_> = rows(&document)
        .iter()
        .map(|row| ["size", "threads", "depth", "occupancy"].map(|key| row[key].as_u64().unwrap()))
        .collect();
    points.dedup();
    assert_eq!(points, [[64, 1, 2, 10], [3000, 1, 2, 10]]);
    assert_eq!(document["fragmentation"].as_array().unwrap().len(), 0);
}

#[test]
fn what_does_not_fit_is_left_out_and_said() {
    let document = bench(&["--size", "64MiB", "--depth", "2"]);
    assert_eq!(rows(&document).len(), 0);
    assert!(document["left_out"][0].as_str().unwrap().contains("no room"));
}

#[test]
fn a_mapping_that_the_reference_refuses_has_no_ratio() {
    let document = bench(&["--quick", "--size", "4MiB"]);
    for row in rows(&document) {
        assert!(row["ns"].as_f64().unwrap() > 0.0 && row["reference_ns"].is_null(), "{row}");
    }
    assert!(!rows(&document).is_empty());
}

#[test]
fn a_table_for_people_and_a_plot() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("plot.svg");
    let mut args = vec!["bench", "--quick", "--size", "64,4096", "--svg", file.to_str().unwrap()];
    args.extend(CHEAP);
    let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let ran = run(&args);
    drop(alone);
    assert_eq!(ran.status, Some(0), "{}", ran.stderr);
    for word in ["reference", "floor", "whole, shared", "pool, exclusive", "4 KiB"] {
        assert!(ran.stdout.contains(word), "{word}: {}", ran.stdout);
    }
    let plot = std::fs::read_to_string(file).unwrap();
    assert!(plot.starts_with("<svg ") && plot.trim_end().ends_with("</svg>"));
    assert!(plot.contains("<polyline"), "{plot}");
}

#[test]
fn wrong_usage_is_one_sentence() {
    for (args, words) in [
        (vec!["--threads", "3"], "--threads"),
        (vec!["--threads", "0"], "one thread or two"),
        (vec!["--size", "0"], "--size"),
        (vec!["--size", "4KB"], "4KB"),
        (vec!["--size", "64,65MiB"], "65MiB"),
        (vec!["--depth", "0"], "--depth"),
        (vec!["--occupancy", "100"], "percent"),
        (vec!["--sise", "64"], "--size"),
        (vec!["--svg", "/nowhere/at/all.svg"], "--svg"),
        (vec!["--svg"], "needs a value"),
        (vec!["fast"], "fast"),
    ] {
        let mut all = vec!["bench", "--json"];
        all.extend(&args);
        let ran = run(&all);
        assert_eq!(ran.status, Some(2), "{args:?}: {}", ran.stderr);
        assert!(ran.stdout.is_empty(), "{args:?}");
        assert_eq!(ran.stderr.trim().lines().count(), 1, "{}", ran.stderr);
        assert!(ran.stderr.contains(words), "{args:?}: {}", ran.stderr);
    }
}
