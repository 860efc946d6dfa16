//! Checks that take longer than a change should wait.

use std::process::Command;

use anyhow::Result;

use super::tests::{loom_with, shuttle_with};
use crate::shell::{Workshop, which};

pub(super) fn properties(shop: &mut Workshop) -> Result<()> {
    let mut command =
        shop.cargo("test --release --workspace --all-features --locked -- --show-output");
    command.env("PROPTEST_CASES", "20000").env("INSTA_UPDATE", "no");
    shop.run_tests(&mut command).map(drop)
}

pub(super) fn questions(shop: &mut Workshop) -> Result<()> {
    let mut command = shop.cargo("test --release -p coco-dma-cases --locked -- asked_and_done");
    shop.run_tests(command.env("QUESTIONS", "100000")).map(drop)
}

pub(super) fn loom(shop: &mut Workshop) -> Result<()> {
    loom_with(shop, 4)
}

pub(super) fn shuttle(shop: &mut Workshop) -> Result<()> {
    shuttle_with(shop, 10_000)
}

/// The only target whose sanitizers the toolchain brings along everywhere.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// The stable compiler brings the sanitizers' runtimes along; only the flag is locked. `None`, and
/// said so, on other machines.
fn sanitized(shop: &mut Workshop, line: &str, sanitizer: &str, flags: &str) -> Option<Command> {
    if cfg!(not(all(target_arch = "x86_64", target_os = "linux", target_env = "gnu"))) {
        shop.omitted.add(format!("the {sanitizer} sanitizer: only on {TARGET}"));
        return None;
    }
    let mut command = shop.cargo(line);
    command
        .args(["--target", TARGET])
        .env("RUSTC_BOOTSTRAP", "1")
        .env("RUSTFLAGS", format!("-Zsanitizer={sanitizer} {flags}"))
        .env("CARGO_TARGET_DIR", shop.target.join(sanitizer));
    Some(command)
}

pub(super) fn asan(shop: &mut Workshop) -> Result<()> {
    // Documentation tests are built by another program, with other flags.
    let line = "test --package coco-dma --package coco-dma-virtio --locked --all-features \
                --lib --tests";
    let Some(mut command) = sanitized(shop, line, "address", "") else { return Ok(()) };
    shop.run_tests(command.args(["--", "--show-output"])).map(drop)
}

/// Real threads on the pools. The standard library is as it was shipped, without the sanitizer:
/// the test keeps away from what would have to be seen in it.
pub(super) fn tsan(shop: &mut Workshop) -> Result<()> {
    let (line, flags) = (
        "test --package coco-dma --release --locked --test stress",
        "-Cunsafe-allow-abi-mismatch=sanitizer",
    );
    let Some(mut command) = sanitized(shop, line, "thread", flags) else { return Ok(()) };
    command.env("STRESS_ROUNDS", "100000").env("TSAN_OPTIONS", "halt_on_error=1");
    shop.run_tests(&mut command).map(drop)
}

pub(super) fn deny(shop: &mut Workshop) -> Result<()> {
    if !has(shop, "cargo-deny") {
        return Ok(());
    }
    shop.run(
        &mut shop.cargo("deny --workspace check --config .config/deny.toml bans licenses sources"),
    )
}

/// Whether a cargo command is here; if not, says how to get it.
pub(super) fn has(shop: &mut Workshop, program: &str) -> bool {
    let found = which(program).is_some();
    if !found {
        shop.omitted
            .add(format!("{program} is not here; get it: cargo install --locked {program}"));
    }
    found
}
