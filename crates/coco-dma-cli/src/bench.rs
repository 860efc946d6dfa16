//! `coco-dma bench`: what maps cost, beside the memcpy floor and the reference. It measures and
//! judges nothing.

mod table;

use std::fs;
use std::io::IsTerminal;
use std::path::Path;
use std::time::Duration;

use coco_dma_bench::Choice;
use coco_dma_bench::Pace;
use indicatif::ProgressBar;
use indicatif::ProgressStyle;

use crate::args::BenchArgs;
use crate::failure::Failure;
use crate::number;
use crate::output;

/// The most mappings that a thread keeps: what a pool of 64 MiB has slots.
const DEEPEST: usize = 32_768;
/// The longest mapping: the whole of a pool of 64 MiB.
const LONGEST: usize = 64 << 20;

pub(crate) fn bench(args: &BenchArgs) -> Result<(), Failure> {
    if let Some(file) = &args.svg {
        // Now, not after a minute of measuring.
        write(file, "")?;
    }
    let choice = Choice {
        quick: args.quick,
        threads: args.threads.clone(),
        sizes: args.size.clone(),
        depths: args.depth.clone(),
        occupancies: args.occupancy.clone(),
    };
    let pace = Pace {
        windows: args.windows.unwrap_or(if args.quick { 15 } else { 21 }),
        window: Duration::from_micros(args.window),
        calls: match args.windows {
            Some(few) => 100 * few,
            None if args.quick => 2_000,
            None => 10_000,
        },
    };
    let shown = std::io::stderr().is_terminal();
    let bar = if shown { ProgressBar::new(0) } else { ProgressBar::hidden() };
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} {msg}") {
        bar.set_style(style);
    }
    let report = coco_dma_bench::bench(&choice, pace, |done, all, point| {
        bar.set_length(all as u64);
        bar.set_position(done as u64);
        bar.set_message(point.to_string());
    });
    bar.finish_and_clear();
    let report = report
        .map_err(|error| Failure::Missing(format!("the bench could not set itself up: {error}")))?;
    if let Some(file) = &args.svg {
        write(file, &coco_dma_bench::svg(&report))?;
    }
    if args.json { output::json(&report) } else { output::lines(&table::told(&report)) }
}

fn write(file: &Path, text: &str) -> Result<(), Failure> {
    fs::write(file, text).map_err(|error| {
        Failure::Usage(format!("--svg: '{}' cannot be written: {error}", file.display()))
    })
}

/// 1 or 2.
pub(crate) fn threads(text: &str) -> Result<usize, String> {
    one_of(text, 1..=2, "one thread or two")
}

/// The length of a mapping.
pub(crate) fn size(text: &str) -> Result<usize, String> {
    within(number::size(text)?, text, 1..=LONGEST, "from 1 byte to the pool's 64MiB")
}

/// Mappings at once.
pub(crate) fn depth(text: &str) -> Result<usize, String> {
    one_of(text, 1..=DEEPEST, "from 1 to the pool's 32768 slots")
}

/// Percent of the pool.
pub(crate) fn occupancy(text: &str) -> Result<usize, String> {
    one_of(text.strip_suffix('%').unwrap_or(text), 0..=99, "percent, from 0 to 99")
}

/// Windows.
pub(crate) fn windows(text: &str) -> Result<usize, String> {
    one_of(text, 1..=1000, "from 1 to 1000")
}

/// Microseconds.
pub(crate) fn window(text: &str) -> Result<u64, String> {
    one_of(text, 1..=1_000_000, "microseconds, from 1 to a second").map(|micros| micros as u64)
}

fn one_of(
    text: &str,
    range: core::ops::RangeInclusive<usize>,
    what: &str,
) -> Result<usize, String> {
    within(number::number(text)?, text, range, what)
}

fn within(
    number: u64,
    text: &str,
    range: core::ops::RangeInclusive<usize>,
    what: &str,
) -> Result<usize, String> {
    let number = usize::try_from(number).ok().filter(|number| range.contains(number));
    number.ok_or_else(|| format!("'{text}' is out of range: {what}"))
}
