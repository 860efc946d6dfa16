//! What the crates need of the machine: no std, no alloc, no way to panic.

use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::shell::Workshop;

pub(super) fn run(shop: &mut Workshop) -> Result<()> {
    for feature in features(shop)? {
        let mut build = shop.cargo("build --package coco-dma --no-default-features --locked");
        if !feature.is_empty() {
            build.args(["--features", &feature]);
        }
        shop.run(&mut build)?;
    }
    if cfg!(not(all(target_arch = "x86_64", target_os = "linux"))) {
        shop.omitted.add("gate: its start code is for Linux on x86-64".to_owned());
        return Ok(());
    }
    let target = shop.target.join("gate");
    let build = |bin: &str| -> Command {
        let mut build = shop.cargo("build --release --locked --manifest-path gate/Cargo.toml");
        build.args(["--bin", bin]).env("CARGO_TARGET_DIR", &target);
        build
    };
    shop.run(&mut build("smoke"))
        .context("the no_std gate does not link: `duplicate lang item` means that std came in")?;
    shop.run(&mut shop.program(&target.join("release/smoke").to_string_lossy()))?;
    shop.run(&mut build("panic-free")).context(
        "the panic-free gate does not link: undefined `coco_dma_can_panic` means that plan or the \
         raw map can panic",
    )?;
    Ok(())
}

/// No feature at all, then each of the core's by itself.
fn features(shop: &Workshop) -> Result<Vec<String>> {
    let metadata = shop.metadata()?;
    let packages = metadata.get("packages").and_then(Value::as_array);
    let core = packages
        .into_iter()
        .flatten()
        .find(|package| package.get("name").and_then(Value::as_str) == Some("coco-dma"));
    let table = core.and_then(|core| core.get("features")).and_then(Value::as_object);
    let names = table.context("cargo metadata without the core's features")?.keys();
    let named = names.filter(|name| *name != "default").cloned();
    Ok([String::new()].into_iter().chain(named).collect())
}
