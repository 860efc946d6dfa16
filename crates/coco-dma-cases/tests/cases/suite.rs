//! Every case of the folder holds.

use std::time::{Duration, Instant};

use coco_dma_cases::{Heed, Loaded, Outcome, Path, built_in, run_all};

#[test]
fn every_case_holds() {
    let loaded = Loaded::read(&built_in());
    let wrong: Vec<String> = loaded.wrong.iter().map(ToString::to_string).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(!loaded.cases.is_empty());
    let start = Instant::now();
    let outcomes = run_all(&loaded.cases, 8, Heed::All, &Path::ALL);
    let failed: Vec<String> = outcomes
        .iter()
        .filter(|outcome| !outcome.ok)
        .map(|o| {
            let Outcome { name, path, place, expected, got, .. } = o;
            format!("{name} on {path:?} at {place}:\n  expected {expected}\n  got {got}")
        })
        .collect();
    assert!(failed.is_empty(), "{} cases failed:\n{}", failed.len(), failed.join("\n"));
    // A path that no bounce takes is judged by nobody.
    for path in Path::ALL {
        let taken = outcomes.iter().filter(|outcome| outcome.paths.contains(&path)).count();
        assert!(taken >= 100, "{taken} cases take the path {}", path.name());
    }
    // Four runs of a case, where there was one in 30 s.
    assert!(start.elapsed() < Duration::from_secs(120), "{:?}", start.elapsed());
}

#[test]
fn a_case_comes_to_the_same_each_time() {
    let loaded = Loaded::read(&built_in());
    for case in loaded.cases.iter().take(40) {
        let story = |_| {
            let outcome = coco_dma_cases::run(case);
            outcome.story.into_iter().map(|told| (told.step, told.outcome)).collect::<Vec<_>>()
        };
        assert_eq!(story(1), story(2), "{}", case.name);
    }
}
