//! The stories of `explain`, as people read them: each kept as a snapshot, and every reason that can
//! be had stands in one.

#![allow(clippy::panic, clippy::unwrap_used, reason = "a test: a panic is how it fails")]

mod common;

use coco_dma::reason::{Bounce, Direct, Refuse};
use common::run;

const TABLE: &str = include_str!("data/stories.table");

/// What no story can show, and why.
const UNREACHABLE: [(&str, &str); 1] =
    [("refuse (pinned-out)", "a granule takes more maps in place than a case has steps")];

/// A snapshot's name, and its stories.
fn groups() -> Vec<(&'static str, Vec<&'static str>)> {
    let mut groups: Vec<(&str, Vec<&str>)> = Vec::new();
    for line in TABLE.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        match (line.strip_prefix("= "), groups.last_mut()) {
            (Some(name), _) => groups.push((name, Vec::new())),
            (None, Some((_, stories))) => stories.push(line),
            (None, None) => panic!("a story before the first name: {line}"),
        }
    }
    groups
}

/// The stories of a group, each under its command.
fn told(stories: &[&str]) -> String {
    let mut text = String::new();
    for line in stories {
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../cases/");
        let words = line.split(' ').map(|word| word.replacen("cases/", root, 1));
        let args: Vec<String> = ["explain".to_owned()].into_iter().chain(words).collect();
        let ran = run(&args);
        assert_eq!(ran.status, Some(0), "{line}: {}{}", ran.stdout, ran.stderr);
        text += &format!("$ coco-dma explain {line}\n{}\n", ran.stdout);
    }
    text
}

#[test]
fn the_stories_are_as_they_were() {
    for (name, stories) in groups() {
        insta::with_settings!({ prepend_module_to_snapshot => false, omit_expression => true }, {
            insta::assert_snapshot!(name, told(&stories));
        });
    }
}

#[test]
fn every_reason_that_can_be_had_is_told() {
    let all: String = groups().iter().map(|(_, stories)| told(stories)).collect();
    let direct = Direct::ALL.iter().map(|reason| format!("direct ({reason})"));
    let bounce = Bounce::ALL.iter().map(|reason| format!("bounce ({reason})"));
    let refuse = Refuse::ALL.iter().map(|reason| format!("refuse ({reason})"));
    let mut wrong = Vec::new();
    for told in direct.chain(bounce).chain(refuse) {
        let unreachable = UNREACHABLE.iter().any(|(slug, _)| *slug == told);
        if all.contains(&told) == unreachable {
            wrong.push(told);
        }
    }
    assert!(wrong.is_empty(), "not told, or told against the list: {}", wrong.join(", "));
}

/// One line a step, each with its rule; a refusal ends with the way out.
#[test]
fn a_story_is_numbered_and_ends_with_the_way_out() {
    for (_, stories) in groups() {
        for line in
            stories.iter().filter(|line| !line.contains("--case") && !line.contains("--matrix"))
        {
            let story = told(&[line]);
            let steps: Vec<&str> = story.lines().filter(|line| line.starts_with("  ")).collect();
            assert!(!steps.is_empty(), "{story}");
            for (place, step) in steps.iter().enumerate() {
                let number = format!("{:3}. ", place + 1);
                assert!(step.starts_with(&number), "{story}");
            }
            let refused = story.lines().nth(1).is_some_and(|head| head.starts_with("refuse ("));
            let way_out = steps.last().is_some_and(|last| last.contains("; way out: "));
            assert_eq!(refused, way_out, "{story}");
        }
    }
}
