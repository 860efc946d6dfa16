//! The test suites.

use std::path::Path;

use anyhow::{Result, bail, ensure};

use crate::shell::Workshop;

/// Everything that `cargo test` finds. Output of tests that pass is read for omissions.
pub(super) fn all(shop: &mut Workshop) -> Result<()> {
    let mut command = shop.cargo("test --workspace --all-features --locked -- --show-output");
    // A snapshot that differs is a failure, never a new snapshot.
    let passed = shop.run_tests(command.env("INSTA_UPDATE", "no"))?;
    ensure!(passed > 0, "not a single test ran");
    println!("   {passed} tests passed");
    Ok(())
}

/// The decision at every point, and a million steps on pools, which take an optimised build.
pub(super) fn exhaustive(shop: &mut Workshop) -> Result<()> {
    let test =
        "test --release --locked -p coco-dma --test exhaustive --test churn -- --show-output";
    let passed = shop.run_tests(&mut shop.cargo(test))?;
    ensure!(passed > 1, "not a single test ran");
    Ok(())
}

/// The examples that README and documentation show, each to its end.
pub(super) fn examples(shop: &mut Workshop) -> Result<()> {
    for (package, example) in
        [("coco-dma", "kernel"), ("coco-dma", "firmware"), ("coco-dma-sim", "hosted")]
    {
        let run = format!("run --quiet --locked --all-features -p {package} --example {example}");
        shop.run(&mut shop.cargo(&run))?;
    }
    Ok(())
}

pub(super) fn loom(shop: &mut Workshop) -> Result<()> {
    loom_with(shop, 3)
}

/// Models are compiled in parallel, whatever the profile says for what is shipped.
const IN_PARALLEL: [&str; 2] = ["--config", "profile.release.package.coco-dma.codegen-units=16"];

/// The models: in the libraries of the core and of the adaptor, tests with `loom` in their path; and
/// all of the core's `tests/loom*.rs`.
pub(super) fn loom_with(shop: &mut Workshop, preemptions: u8) -> Result<()> {
    let core = shop.root.join("crates/coco-dma");
    let mut files = Vec::new();
    for file in std::fs::read_dir(core.join("tests")).into_iter().flatten() {
        let path = file?.path();
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with("loom") && path.extension() == Some("rs".as_ref()) {
            files.extend(["--test".to_owned(), name]);
        }
    }
    let mut passed = 0;
    let libraries = ["--package", "coco-dma-virtio", "--lib"].map(str::to_owned).to_vec();
    for (targets, filter) in [(libraries, "loom"), (files, "")] {
        if targets.is_empty() {
            continue;
        }
        let mut command = shop.cargo("test --package coco-dma --release --locked");
        command
            .args(IN_PARALLEL)
            .args(targets)
            .args(["--", "--show-output", filter])
            .env("RUSTFLAGS", "--cfg loom")
            .env("LOOM_MAX_PREEMPTIONS", preemptions.to_string())
            .env("CARGO_TARGET_DIR", shop.target.join("loom"));
        passed += shop.run_tests(&mut command)?;
    }
    if passed == 0 && uses_atomics(&core)? {
        bail!("the core has atomics and no loom model: name the models `loom_...`");
    }
    println!("   {passed} models passed");
    Ok(())
}

pub(super) fn shuttle(shop: &mut Workshop) -> Result<()> {
    shuttle_with(shop, 1000)
}

/// What is too large for loom: tests of the core with `shuttle` in their name, with so many
/// schedules of each kind.
pub(super) fn shuttle_with(shop: &mut Workshop, schedules: u32) -> Result<()> {
    let mut command = shop.cargo("test --package coco-dma --release --locked --lib");
    command
        .args(IN_PARALLEL)
        .args(["--", "--show-output", "shuttle"])
        .env("RUSTFLAGS", "--cfg shuttle")
        .env("SHUTTLE_SCHEDULES", schedules.to_string())
        .env("CARGO_TARGET_DIR", shop.target.join("shuttle"));
    let passed = shop.run_tests(&mut command)?;
    ensure!(passed > 0, "not a single test ran");
    Ok(())
}

fn uses_atomics(core: &Path) -> Result<bool> {
    for file in crate::source::rust_files(&core.join("src"))? {
        let trees = crate::source::tokens(&crate::source::read(&file)?)?;
        if crate::source::find_word(&trees, "atomic").is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}
