//! What a pair of map and finish costs in instructions, beside the reference: a gate that no noise
//! touches. Two runs of different length are counted by callgrind, so that start-up cancels.

use std::process::Stdio;

use anyhow::{Context, Result, bail};

use crate::shell::{Workshop, which};

/// The sizes that are counted, in bytes.
const SIZES: [u64; 2] = [64, 256 << 10];
/// The lengths of the two runs, in pairs.
const RUNS: [u64; 2] = [1_000, 3_000];

/// The most instructions of a way at a size, without the copies. Slots alone: a tenth and a
/// twenty-fifth of what Linux's own swiotlb.c was counted at (2150 and 5399; the reference, which
/// keeps leaner records of long runs, needs as many at 64 bytes and half at 256 KiB). The others are
/// what they need now, and a little more: so that nobody makes them dearer unseen. A way that the
/// core does not offer is not judged.
const GATES: [(&str, u64, f64); 5] = [
    ("pool-exclusive", 64, 215.0),
    ("pool-exclusive", 256 << 10, 216.0),
    ("pool-shared", 64, 225.0),
    ("whole-exclusive", 64, 425.0),
    ("whole-shared", 64, 455.0),
];

/// The step `instructions`.
pub(crate) fn step(shop: &mut Workshop) -> Result<()> {
    if which("valgrind").is_none() {
        shop.omitted.add("valgrind (valgrind): instructions of a map are not counted".to_owned());
        return Ok(());
    }
    shop.run(&mut shop.cargo("build --release --locked -p coco-dma-bench --example pairs"))?;
    let program = shop.target.join("release/examples/pairs").display().to_string();
    let offered = shop.output(shop.program(&program).arg("--list"))?;
    let mut failed = Vec::new();
    for size in SIZES {
        let reference = pair(shop, &program, "reference", size)?;
        println!("   {size} bytes: the reference {reference:.0} instructions a pair");
        for way in offered.lines() {
            let all = pair(shop, &program, way, size)?;
            // The whole way copies; what the copies cost is counted apart.
            let copies =
                if way.starts_with("whole") { pair(shop, &program, "copy", size)? } else { 0.0 };
            let ours = all - copies;
            let ratio = reference / ours;
            let gate = GATES.iter().find(|(name, at, _)| (*name, *at) == (way, size));
            let most = gate.map(|gate| format!(", at most {}", gate.2)).unwrap_or_default();
            println!("   {size} bytes: {way} {ours:.0}{most}; {ratio:.1}x fewer");
            if gate.is_some_and(|(.., most)| ours > *most) {
                failed.push(format!("{way} at {size} bytes: {ours:.0}{most}"));
            }
        }
    }
    for (way, size, _) in GATES {
        if !offered.lines().any(|line| line == way) {
            println!("   {way} at {size} bytes is not offered yet, and not judged");
        }
    }
    if !failed.is_empty() {
        bail!("too many instructions: {}", failed.join("; "));
    }
    Ok(())
}

/// Instructions of one pair.
#[expect(clippy::cast_precision_loss, reason = "counts of far less than 53 bits")]
fn pair(shop: &Workshop, program: &str, what: &str, size: u64) -> Result<f64> {
    let [short, long] = RUNS;
    let least = count(shop, program, what, size, short)?;
    let most = count(shop, program, what, size, long)?;
    let more = most.checked_sub(least).context("a longer run has more instructions")?;
    Ok(more as f64 / (long - short) as f64)
}

/// Instructions of one run.
fn count(shop: &Workshop, program: &str, what: &str, size: u64, pairs: u64) -> Result<u64> {
    let mut command = shop.program("valgrind");
    command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null", program, what]);
    command.args([size.to_string(), pairs.to_string()]).stderr(Stdio::piped());
    let output = shop.capture(&mut command, None)?;
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    if !output.status.success() {
        bail!("`pairs {what} {size} {pairs}` under callgrind ended with {}: {told}", output.status);
    }
    collected(&told).with_context(|| format!("callgrind told no count:\n{told}"))
}

/// The count in what callgrind says at its end.
fn collected(told: &str) -> Option<u64> {
    let line = told.lines().find_map(|line| line.split_once("Collected :"))?;
    line.1.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_is_found() {
        let told = "==12== \n==12== Events    : Ir\n==12== Collected : 3036147\n==12== \n";
        assert_eq!(collected(told), Some(3_036_147));
        assert_eq!(collected("==12== Events    : Ir"), None);
    }
}
