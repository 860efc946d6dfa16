//! What left the guest: everything that the host could read is searched for the marker that fills
//! private memory.

use std::fs;
use std::ops::Range;

use anyhow::{Context, Result, ensure};

use super::disk;
use super::machine::{Boot, Report};

const PAGE: usize = 4096;

/// Searches the images, what the guest said, and all memory that is shared; and private memory,
/// as the control: there the marker has to be.
pub(super) fn judge(boot: &Boot<'_>, report: &Report) -> Result<String> {
    let memory = fs::read(boot.dump()).context("no dump of memory")?;
    let shared = shared(&report.text)?;
    let bytes: usize = shared.iter().map(Range::len).sum();
    ensure!(bytes >= 1 << 20, "only {bytes} bytes are shared: the pool is missing");
    for range in &shared {
        let part = memory.get(range.clone()).context("shared memory outside of memory")?;
        let hits = disk::count(part, &boot.marker);
        ensure!(hits == 0, "{hits} private markers in shared memory at {range:#x?}");
    }
    for image in [boot.image, &boot.second_image()] {
        let hits = disk::count(&fs::read(image)?, &boot.marker);
        ensure!(hits == 0, "{hits} private markers in an image");
    }
    let hits = disk::count(report.text.as_bytes(), &boot.marker);
    ensure!(hits == 0, "{hits} private markers on the serial port");
    let marked = memory.chunks(PAGE).filter(|page| page.starts_with(&boot.marker)).count();
    let least = memory.len() / PAGE * 9 / 10;
    ensure!(
        marked > least,
        "only {marked} private pages hold the marker: the search proves little"
    );
    Ok(format!("{} KiB shared without a marker, {marked} private pages with it", bytes >> 10))
}

/// What the guest said is shared.
fn shared(text: &str) -> Result<Vec<Range<usize>>> {
    let lines = text.lines().filter_map(|line| line.strip_prefix("shared "));
    lines
        .map(|line| {
            let (start, len) = line.split_once(' ').context("half a range")?;
            let (start, len): (usize, usize) = (start.parse()?, len.trim().parse()?);
            Ok(start..start + len)
        })
        .collect()
}
