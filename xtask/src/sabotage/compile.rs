//! Whether every sabotage still compiles.

use std::process::Stdio;

use anyhow::{Result, ensure};

use super::Yard;
use super::markers::Mutant;

/// Compiles the core with each. At most one mutant of a file is in the tree at a time, so that one
/// does not hide what is wrong with another; where such a batch fails, each is tried alone.
pub(super) fn all(yard: &Yard<'_>, mutants: &[Mutant<'_>]) -> Result<()> {
    ensure!(check(yard)?.is_none(), "the core does not compile before any sabotage");
    let mut wrong = Vec::new();
    let batches = batches(mutants);
    for batch in &batches {
        if yard.with(batch, check)?.is_none() {
            continue;
        }
        for mutant in batch {
            if let Some(errors) = yard.with(&[mutant], check)? {
                println!("   {} does not compile:\n{errors}", mutant.sabotage.told());
                wrong.push(mutant.sabotage.name.as_str());
            }
        }
        ensure!(!wrong.is_empty(), "a batch does not compile, though each of it does alone");
    }
    ensure!(wrong.is_empty(), "these sabotages do not compile: {}", wrong.join(", "));
    println!("   {} sabotages compile, in {} batches", mutants.len(), batches.len());
    Ok(())
}

/// As few batches as may be in which each file is at most once.
fn batches<'a, 'm>(mutants: &'a [Mutant<'m>]) -> Vec<Vec<&'a Mutant<'m>>> {
    let mut batches: Vec<Vec<&Mutant<'_>>> = Vec::new();
    for mutant in mutants {
        match batches.iter_mut().find(|batch| batch.iter().all(|m| m.path != mutant.path)) {
            Some(batch) => batch.push(mutant),
            None => batches.push(vec![mutant]),
        }
    }
    batches
}

/// What the compiler has against the core in the yard.
fn check(yard: &Yard<'_>) -> Result<Option<String>> {
    let mut check = yard.cargo("check --quiet --locked --package coco-dma --all-features");
    let output = yard.shop.capture(check.stderr(Stdio::piped()), None)?;
    let errors = || String::from_utf8_lossy(&output.stderr).into_owned();
    Ok((!output.status.success()).then(errors))
}
