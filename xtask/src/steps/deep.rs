//! Checks that take longer than a change should wait.

use anyhow::Result;

use super::tests::loom_with;
use crate::shell::{Workshop, which};

pub(super) fn properties(shop: &mut Workshop) -> Result<()> {
    let mut command =
        shop.cargo("test --release --workspace --all-features --locked -- --show-output");
    command.env("PROPTEST_CASES", "20000").env("INSTA_UPDATE", "no");
    shop.run_tests(&mut command).map(drop)
}

pub(super) fn loom(shop: &mut Workshop) -> Result<()> {
    loom_with(shop, 4)
}

/// The stable compiler brings the sanitizer's runtime along; only the flag is locked.
pub(super) fn asan(shop: &mut Workshop) -> Result<()> {
    const TARGET: &str = "x86_64-unknown-linux-gnu";
    if cfg!(not(all(target_arch = "x86_64", target_os = "linux", target_env = "gnu"))) {
        shop.omitted.add(format!("asan: only on {TARGET}"));
        return Ok(());
    }
    // Documentation tests are built by another program, with other flags.
    let mut command = shop.cargo("test --package coco-dma --package coco-dma-virtio --locked");
    command
        .args(["--all-features", "--lib", "--tests", "--target", TARGET, "--", "--show-output"])
        .env("RUSTC_BOOTSTRAP", "1")
        .env("RUSTFLAGS", "-Zsanitizer=address")
        .env("CARGO_TARGET_DIR", shop.target.join("asan"));
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
