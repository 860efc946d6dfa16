//! Every row of the references has a case of its own, or a reason.

use std::collections::BTreeSet;

use coco_dma_cases::{Ids, Loaded, allowed_missing, built_in};

#[test]
fn every_row_has_a_case_or_a_reason() {
    let ids = Ids::built_in().unwrap();
    let coverage = ids.coverage(&Loaded::read(&built_in()).cases);
    let allowed: BTreeSet<String> = allowed_missing().unwrap().into_iter().collect();
    let missing: BTreeSet<String> = coverage.missing.iter().cloned().collect();
    println!(
        "{} rows: {} have a reason, {} are missing ({} allowed)",
        ids.all().len(),
        ids.no_case().len(),
        missing.len(),
        allowed.len()
    );
    let new: Vec<&String> = missing.difference(&allowed).collect();
    assert!(new.is_empty(), "neither a case, nor a reason, nor in missing.toml: {new:?}");
    let done: Vec<&String> = allowed.difference(&missing).collect();
    println!("in missing.toml, but not missing any more: {done:?}");
    assert!(coverage.unknown.is_empty(), "no reference has {:?}", coverage.unknown);
    assert!(coverage.both.is_empty(), "a case and a reason for having none: {:?}", coverage.both);
}

#[test]
fn the_list_is_whole() {
    let ids = Ids::built_in().unwrap();
    let of = |letter: &str| ids.all().iter().filter(|id| id.starts_with(letter)).count();
    let counts = ["M", "U", "S", "A", "F", "V", "B", "D"].map(of);
    assert_eq!(counts, [47, 5, 4, 25, 7, 7, 111, 21]);
    assert!(ids.no_case().iter().all(|(_, why)| why.len() > 10));
}
