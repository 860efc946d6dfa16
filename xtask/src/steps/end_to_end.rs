//! The command itself, once with each device.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::shell::{Workshop, which};

/// A run takes seconds; one that hangs is a failure, not a wait.
const PATIENCE: Duration = Duration::from_secs(300);

pub(super) fn run(shop: &mut Workshop) -> Result<()> {
    shop.run(&mut shop.cargo("build --release --locked"))?;
    for device in ["embedded", "qemu-storage-daemon"] {
        if device != "embedded" && which(device).is_none() {
            shop.omitted.add(format!("run --device {device}: it is not installed"));
            continue;
        }
        let program = shop.target.join("release/coco-dma");
        let mut command = shop.program(&program.to_string_lossy());
        command.args(["run", "--json", "--device", device]);
        let text = shop.output_within(&mut command, PATIENCE)?;
        judge(&text).with_context(|| format!("run --device {device}"))?;
        println!("   run --device {device}: the same bytes came through");
    }
    Ok(())
}

fn judge(text: &str) -> Result<()> {
    let report: Value = serde_json::from_str(text).context("not one JSON document")?;
    let key = |key| report.get(key).unwrap_or(&Value::Null);
    ensure!(key("ok") == true, "`ok` is {}", key("ok"));
    let (sent, came) = (key("sha256_in"), key("sha256_out"));
    ensure!(sent.as_str().is_some_and(|hash| hash.len() == 64), "sha256_in is {sent}");
    ensure!(sent == came, "sha256_in is {sent}, sha256_out is {came}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_equal_hashes_hold() {
        let hash = "0".repeat(64);
        let report = |ok: bool, sent: &str, came: &str| {
            judge(&format!(r#"{{"ok":{ok},"sha256_in":"{sent}","sha256_out":"{came}"}}"#))
        };
        assert!(report(true, &hash, &hash).is_ok());
        assert!(report(false, &hash, &hash).is_err());
        assert!(report(true, &hash, &"1".repeat(64)).is_err());
        assert!(report(true, "", "").is_err());
        assert!(judge("{}").is_err());
        assert!(judge("{} {}").is_err());
    }
}
