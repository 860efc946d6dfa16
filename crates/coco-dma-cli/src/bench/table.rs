//! The report for people.

use coco_dma_bench::Aim;
use coco_dma_bench::Cores;
use coco_dma_bench::Handle;
use coco_dma_bench::Measure;
use coco_dma_bench::Order;
use coco_dma_bench::Placement;
use coco_dma_bench::Report;
use coco_dma_bench::Row;
use coco_dma_bench::Rules;
use coco_dma_bench::Way;
use coco_dma_bench::Work;
use coco_dma_bench::word;
use comfy_table::CellAlignment;
use comfy_table::Table;
use comfy_table::presets::NOTHING;

use crate::number::Size;

const HEADER: [&str; 13] = [
    "work",
    "size",
    "depth",
    "full",
    "bytes",
    "way",
    "ns",
    "floor",
    "above",
    "reference",
    "ratio",
    "p99",
    "must / aim",
];

/// The whole report.
pub(super) fn told(report: &Report) -> String {
    let mut text = String::new();
    match &report.cores {
        Some(cores) => text += &format!("Two cores: {}\n", distance(cores)),
        None => text += "One core: nothing with two threads is measured\n",
    }
    text += &format!(
        "Nanoseconds a pair of map and finish, a thread: lower quartile of {} windows of {:.0} µs.\n\
         floor: the same copies alone. above: what is paid beside them. reference: the allocator \
         that\nfollows Linux's. ratio: reference to ours, median of the rounds. p99: of single \
         maps, reference / ours.\n\n",
        report.windows, report.window_us
    );
    let mut table = empty(&HEADER);
    for row in &report.rows {
        table.add_row(cells(row));
    }
    align(&mut table, &[1, 2, 3, 6, 7, 8, 9, 10, 11]);
    text += &trimmed(&table);
    if !report.fragmentation.is_empty() {
        text += "\n\nHow full of small mappings a pool of 64 MiB may be until a large one finds no \
                 room:\n\n";
        let mut table = empty(&["size", "way", "ours", "reference", "must / aim"]);
        for row in &report.fragmentation {
            table.add_row(vec![
                Size(row.size as u64).to_string(),
                way(row.way, row.handle),
                format!("{} %", row.occupancy),
                format!("{} %", row.reference_occupancy),
                row.aim.as_ref().map(asked).unwrap_or_default(),
            ]);
        }
        align(&mut table, &[0, 2, 3]);
        text += &trimmed(&table);
    }
    text += "\n";
    if report.rows.iter().any(|row| row.quiet_rounds == 0) {
        text += "\n*: the machine was never quiet, and disturbed windows count too.\n";
    }
    for line in &report.left_out {
        text += &format!("\nleft out: {line}");
    }
    text.trim_end().to_owned()
}

fn cells(row: &Row) -> Vec<String> {
    let point = &row.point;
    let work = match point.work {
        Work::Own if point.threads == 2 => "2 threads",
        Work::Own => "1 thread",
        Work::Handoff => "map 1, finish 2",
        Work::Device => "active device",
        Work::Failing => "must fail",
    };
    let placement = row.cores.map(|cores| match cores.placement {
        Placement::Near => format!(", near ({:.0} ns)", cores.ping_pong_ns),
        Placement::Far => format!(", far ({:.0} ns)", cores.ping_pong_ns),
    });
    let order = if point.order == Order::Random { " random" } else { "" };
    let mut bytes = word(point.direction).to_owned();
    if !point.sync {
        bytes = "none".to_owned();
    } else if point.rules == Rules::Ours {
        bytes += ", our rules";
    }
    if point.min_align_mask != 0 {
        bytes += &format!(", mask {:#x}", point.min_align_mask);
    }
    let pool = if point.pool_size == 64 << 20 {
        String::new()
    } else {
        format!(" of {}", Size(point.pool_size as u64))
    };
    let p99 = match (row.reference_latency, row.latency) {
        (Some(theirs), Some(ours)) => format!("{} / {}", ns(theirs.p99), ns(ours.p99)),
        (None, Some(ours)) => ns(ours.p99),
        _ => String::new(),
    };
    let busy = if row.quiet_rounds == 0 { "*" } else { "" };
    let aims: Vec<String> = row.aims.iter().map(asked).collect();
    vec![
        format!("{work}{}", placement.unwrap_or_default()),
        Size(point.size as u64).to_string(),
        format!("{}{order}", point.depth),
        format!("{} %{pool}", point.occupancy),
        bytes,
        way(row.way, row.handle),
        format!("{}{busy}", ns(row.ns)),
        ns(row.floor_ns),
        ns(row.ns - row.floor_ns),
        row.reference_ns.map_or_else(|| "refuses".to_owned(), ns),
        row.ratio_median.map(|ratio| format!("{ratio:.1}x")).unwrap_or_default(),
        p99,
        aims.join("; "),
    ]
}

fn asked(aim: &Aim) -> String {
    let Aim { must, aim, of } = aim;
    match of {
        Measure::Ratio => format!("{must}x / {aim}x"),
        Measure::P99Ratio => format!("p99 {must}x / {aim}x"),
        Measure::AboveFloor => format!("above {must} / {aim} ns"),
        Measure::Occupancy => format!("{must} % / {aim} %"),
    }
}

fn way(way: Way, handle: Handle) -> String {
    let way = match way {
        Way::Pool => "pool",
        Way::Whole => "whole",
    };
    let handle = match handle {
        Handle::Exclusive => "exclusive",
        Handle::Shared => "shared",
    };
    format!("{way}, {handle}")
}

fn distance(cores: &Cores) -> String {
    let what = match cores.placement {
        Placement::Near => "near",
        Placement::Far => "far",
    };
    format!("a cache line goes there and back in {:.0} ns ({what})", cores.ping_pong_ns)
}

/// Nanoseconds: a digit behind the point where it says something.
fn ns(value: f64) -> String {
    if value.abs() < 100.0 { format!("{value:.1}") } else { format!("{value:.0}") }
}

fn empty(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(header.iter().copied());
    table
}

fn align(table: &mut Table, right: &[usize]) {
    for index in right {
        if let Some(column) = table.column_mut(*index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
}

fn trimmed(table: &Table) -> String {
    let lines: Vec<_> = table.lines().map(|line| line.trim_end().to_owned()).collect();
    lines.join("\n")
}
