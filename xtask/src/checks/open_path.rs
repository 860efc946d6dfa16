//! House rule `open-pays-nothing`: with `Regime::Open` a map is a mask check and an addition.
//!
//! The example `open_path` of the core exports that map under a fixed name; the compiler's own
//! assembly says what it costs.

use anyhow::{Context, Result, bail};

use super::asm;
use crate::shell::Workshop;
use crate::source::read;

const SYMBOL: &str = "coco_dma_open_map";
/// About a dozen instructions, and room for what another compiler arranges differently.
const LIMIT: usize = 16;

/// The step `open-path`.
pub(crate) fn step(shop: &mut Workshop) -> Result<()> {
    if cfg!(not(target_arch = "x86_64")) {
        shop.omitted
            .add("open-path: it reads x86-64 assembly, this machine has another".to_owned());
        return Ok(());
    }
    let listing = shop.target.join("open_path.s");
    shop.run(
        shop.cargo("rustc --package coco-dma --release --locked --example open_path --")
            .arg(format!("--emit=asm={},link", listing.display()))
            // One unit, as nothing else orders the functions for us; Intel's order of operands.
            .args(["-Ccodegen-units=1", "-Cllvm-args=--x86-asm-syntax=intel"]),
    )?;
    let path = asm::fall_through(&read(&listing)?, SYMBOL)
        .with_context(|| format!("in the assembly of {SYMBOL}"))?;
    println!("   a map on an open machine: {} instructions", path.len());
    for instruction in &path {
        println!("      {instruction}");
    }
    let objections: Vec<_> = path.iter().filter_map(|line| asm::objection(line)).collect();
    for objection in &objections {
        println!("   {objection}");
    }
    if !objections.is_empty() || path.len() > LIMIT {
        bail!(
            "a map on an open machine has {} instructions ({LIMIT} at most) and does {} things it \
             may not",
            path.len(),
            objections.len()
        );
    }
    Ok(())
}
