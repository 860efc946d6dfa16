//! The other forms of an answer: over all platforms, and as a case.

#![allow(
    clippy::panic,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test: a panic is how it fails"
)]

mod common;

use std::fs;

use common::run;
use serde_json::Value;

const PLATFORMS: [&str; 11] =
    ["open", "sme", "sev", "snp", "snp-vtom", "tdx", "cca", "pkvm", "hyperv", "s390", "pef"];

/// Questions of every operation, some of them with long reasons and long addresses.
const QUESTIONS: [&str; 10] = [
    "--phys 0x80000000 --size 4096 --pool guest-shared@0x90000000 --pool guest-private@0xa0000000",
    "--phys 0x80000000 --size 4096 --attr cc-shared",
    "--phys 0x80000000 --size 4096 --memory mixed",
    "--phys 0xfffffffff000 --size 4096 --memory shared --boundary 64KiB",
    "--operation mmap --size 4096",
    "--operation mmap --phys 0x80000000 --size 4096 --memory mmio",
    "--operation alloc --size 4096 --context atomic",
    "--operation attach --phys 0x80000000 --size 4096 --mask 30",
    "--operation unmap --revoked --phys 0x80000000 --size 4096 --pool guest-shared@0x90000000",
    "--operation sync --phys 0x80000000 --size 4096 --memory shared --coherent no",
];

fn words<'a>(more: &[&'a str], question: &'a str) -> Vec<&'a str> {
    ["explain"].into_iter().chain(more.iter().copied()).chain(question.split(' ')).collect()
}

#[test]
fn the_matrix_is_one_question_over_all_platforms_in_80_columns() {
    for question in QUESTIONS {
        for form in ["--matrix", "--matrix=text", "--matrix=markdown"] {
            let ran = run(&words(&[form], question));
            assert_eq!(ran.status, Some(0), "{form} {question}: {}", ran.stderr);
            for line in ran.stdout.lines() {
                assert!(line.chars().count() <= 80, "{form} {question}: {line}");
                assert_eq!(line.starts_with("| "), form.ends_with("markdown"), "{line}");
            }
            let row = |name: &str| -> Vec<String> {
                let rows = ran.stdout.lines().map(|line| line.trim_matches(['|', ' ']));
                let row = rows.into_iter().find(|row| row.split(' ').next() == Some(name)).unwrap();
                let cells = row.split("  ").flat_map(|part| part.split('|')).map(str::trim);
                cells.filter(|cell| !cell.is_empty()).map(str::to_owned).collect()
            };
            for name in PLATFORMS {
                row(name);
            }
            for name in ["open", "sme", "sev", "s390", "pef"] {
                assert_eq!(row(name).last().unwrap(), "-", "{form} {question}: {}", ran.stdout);
            }
        }
    }
}

#[test]
fn a_cell_of_the_matrix_is_the_answer_there() {
    for question in QUESTIONS {
        let ran = run(&words(&["--matrix", "--json"], question));
        let matrix: Value = serde_json::from_str(&ran.stdout).unwrap();
        for row in matrix["matrix"].as_array().unwrap() {
            let platform = row["platform"].as_str().unwrap();
            for trust in ["untrusted", "accepted"] {
                let one =
                    run(&words(&["--json", "--platform", platform, "--trust", trust], question));
                let cell = &row[trust];
                assert_eq!(one.status == Some(0), !cell.is_null(), "{platform} {trust} {question}");
                if let Ok(one) = serde_json::from_str::<Value>(&one.stdout) {
                    for key in ["outcome", "reason", "dma_addr", "pool"] {
                        assert_eq!(one[key], cell[key], "{platform} {trust} {question}");
                    }
                }
            }
        }
    }
}

#[test]
fn a_question_as_a_case_holds_until_its_answer_is_another() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("emitted.toml");
    let path = file.to_str().unwrap();
    let mut stories = 0;
    let table = include_str!("data/stories.table").lines();
    let table = table.filter(|line| line.starts_with("--platform"));
    for question in table.chain(QUESTIONS) {
        let ran = run(&words(&["--emit-case"], question));
        assert_eq!(ran.status, Some(0), "{question}: {}", ran.stderr);
        fs::write(&file, &ran.stdout).unwrap();
        let checked = run(&["check", path]);
        assert_eq!(checked.status, Some(0), "{question}: {}{}", checked.stdout, ran.stdout);
        // The case is what was asked: its story has the steps of the answer.
        let told = run(&["explain", "--json", "--case", path]);
        let story: Value = serde_json::from_str(&told.stdout).unwrap();
        let answer = run(&words(&["--json"], question));
        let answer: Value = serde_json::from_str(&answer.stdout).unwrap();
        assert_eq!(story["cases"][0]["story"][0]["steps"], answer["steps"], "{question}");
        for step in answer["steps"].as_array().unwrap() {
            assert!(!step["source"].as_str().unwrap().is_empty(), "{step}");
        }
        // And it can fail.
        let outcome = answer["outcome"].as_str().unwrap();
        let other = if outcome == "refuse" { "direct" } else { "refuse" };
        let expected = ran.stdout.split("[step.expect]").next().unwrap();
        fs::write(&file, format!("{expected}[step.expect]\noutcome = \"{other}\"\n")).unwrap();
        let checked = run(&["check", path]);
        assert_eq!(checked.status, Some(1), "{question}: {}", checked.stdout);
        stories += 1;
    }
    assert!(stories > 60, "{stories}");
}

/// What a case says about itself is told with its story.
#[test]
fn the_story_of_a_case_says_where_it_comes_from() {
    let case = concat!(env!("CARGO_MANIFEST_DIR"), "/../../cases/map/m47.toml");
    let ran = run(&["explain", "--json", "--case", case]);
    let document: Value = serde_json::from_str(&ran.stdout).unwrap();
    let case = &document["cases"][0];
    assert_eq!(case["id"], "M47");
    for key in ["source", "linux", "why"] {
        assert!(case[key].as_str().unwrap().len() > 8, "{key}: {case}");
    }
}
