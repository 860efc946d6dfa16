//! The floors of the house: who may import whom.
//!
//! [`table`] is the rule, as data; [`modules`] holds the core's modules to it, [`crates`] the
//! workspace's crates. [`decisions`] keeps questions about platform and trust below `plan`.

mod crates;
mod decisions;
mod modules;
mod table;

use std::path::Path;

use anyhow::{Result, bail};

use crate::shell::Workshop;
use crate::source;

/// The step `floors`.
pub(crate) fn step(shop: &mut Workshop) -> Result<()> {
    let core = shop.root.join("crates/coco-dma/src");
    let mut errors = modules::check(&|path: &Path| source::read(&core.join(path)).ok())?;
    for error in &mut errors {
        error.insert_str(0, "crates/coco-dma/src/");
    }
    errors.extend(crates::check(&shop.metadata()?)?);
    if errors.is_empty() {
        println!(
            "   every import goes down, every crate depends on what the table lets it, and only plan \
             decides by platform and trust"
        );
        return Ok(());
    }
    for error in &errors {
        println!("   {error}");
    }
    bail!("{} against the floors (xtask/src/floors)", errors.len());
}
