//! The report as a picture: nanoseconds a pair over the size of a mapping, both logarithmic.

use core::fmt::Write;

use crate::hand::Handle;
use crate::hand::Way;
use crate::row::Point;
use crate::row::Report;
use crate::row::Row;

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 520.0;
/// Room at the left, at the right (for the names), above and below.
const MARGIN: [f64; 4] = [70.0, 190.0, 50.0, 60.0];

/// One line of the plot.
struct Line {
    name: &'static str,
    colour: &'static str,
    dashes: &'static str,
    points: Vec<(f64, f64)>,
}

/// One thread, one mapping at a time, an empty pool: all sizes that the report has. A whole SVG
/// document.
pub fn svg(report: &Report) -> String {
    let lines = lines(report);
    let all = || lines.iter().flat_map(|line| &line.points);
    let (xs, ys) = (span(all().map(|point| point.0)), span(all().map(|point| point.1)));
    let [left, right, top, bottom] = MARGIN;
    let x = |value: f64| left + part(value, xs) * (WIDTH - left - right);
    let y = |value: f64| HEIGHT - bottom - part(value, ys) * (HEIGHT - top - bottom);

    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{HEIGHT}\" \
         viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"{left}\" y=\"24\" font-size=\"15\">Map and finish to the device: one thread, \
         depth 1, empty pool of 64 MiB</text>\n"
    );
    let (x0, x1, y0, y1) = (left, WIDTH - right, HEIGHT - bottom, top);
    for (value, name) in sizes(xs) {
        let at = x(value);
        let _ = writeln!(
            svg,
            "<line x1=\"{at:.1}\" y1=\"{y0}\" x2=\"{at:.1}\" y2=\"{y1}\" stroke=\"#eee\"/>\
             <text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{name}</text>",
            y0 + 18.0
        );
    }
    for (value, name) in times(ys) {
        let at = y(value);
        let _ = writeln!(
            svg,
            "<line x1=\"{x0}\" y1=\"{at:.1}\" x2=\"{x1}\" y2=\"{at:.1}\" stroke=\"#eee\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{name}</text>",
            x0 - 6.0,
            at + 4.0
        );
    }
    let _ = writeln!(svg, "<text x=\"{x0}\" y=\"{:.1}\">bytes</text>", HEIGHT - 16.0);
    for (index, line) in lines.iter().enumerate() {
        let Line { name, colour, dashes, points } = line;
        let mut path = String::new();
        for (size, ns) in points {
            let _ = write!(path, "{:.1},{:.1} ", x(*size), y(*ns));
        }
        let style = format!("stroke=\"{colour}\" stroke-width=\"2\" stroke-dasharray=\"{dashes}\"");
        let _ = writeln!(svg, "<polyline points=\"{}\" fill=\"none\" {style}/>", path.trim_end());
        for (size, ns) in points {
            let (x, y) = (x(*size), y(*ns));
            let _ =
                writeln!(svg, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"/>");
        }
        #[expect(clippy::cast_precision_loss, reason = "a handful of lines")]
        let at = top + 20.0 * index as f64;
        let (from, to) = (x1 + 12.0, x1 + 40.0);
        let _ = writeln!(
            svg,
            "<line x1=\"{from}\" y1=\"{at}\" x2=\"{to}\" y2=\"{at}\" {style}/>\
             <text x=\"{}\" y=\"{}\">{name}</text>",
            to + 6.0,
            at + 4.0
        );
    }
    svg.push_str("</svg>\n");
    svg
}

fn lines(report: &Report) -> Vec<Line> {
    let shown: Vec<&Row> = report
        .rows
        .iter()
        .filter(|row| row.point == Point { size: row.point.size, ..Point::START })
        .collect();
    let ways = [
        ("pool, exclusive", Way::Pool, Handle::Exclusive, "#1b7837", ""),
        ("pool, shared", Way::Pool, Handle::Shared, "#5aae61", "6 3"),
        ("whole, exclusive", Way::Whole, Handle::Exclusive, "#2166ac", ""),
        ("whole, shared", Way::Whole, Handle::Shared, "#67a9cf", "6 3"),
    ];
    let mut lines: Vec<Line> = ways
        .into_iter()
        .map(|(name, way, handle, colour, dashes)| {
            let rows = shown.iter().filter(|row| (row.way, row.handle) == (way, handle));
            Line { name, colour, dashes, points: points(rows, |row| Some(row.ns)) }
        })
        .collect();
    // Measured beside each way anew: the first one's.
    let one: Vec<&&Row> = match shown.first() {
        Some(first) => {
            let same = |row: &&&Row| (row.way, row.handle) == (first.way, first.handle);
            shown.iter().filter(same).collect()
        }
        None => Vec::new(),
    };
    let reference = points(one.iter().copied(), |row| row.reference_ns);
    let floor = points(one.iter().copied(), |row| Some(row.floor_ns));
    lines.push(Line { name: "reference", colour: "#b2182b", dashes: "", points: reference });
    lines.push(Line { name: "memcpy alone", colour: "#777", dashes: "2 3", points: floor });
    lines.retain(|line| !line.points.is_empty());
    lines
}

#[expect(clippy::cast_precision_loss, reason = "sizes have far less than 53 bits")]
fn points<'r>(
    rows: impl Iterator<Item = &'r &'r Row>,
    ns: impl Fn(&Row) -> Option<f64>,
) -> Vec<(f64, f64)> {
    let pair = |row: &&Row| Some((row.point.size as f64, ns(row)?));
    let mut points: Vec<(f64, f64)> = rows.filter_map(pair).filter(|(_, ns)| *ns > 0.0).collect();
    points.sort_by(|one, other| one.0.total_cmp(&other.0));
    points
}

/// The least and the greatest, a little apart.
fn span(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (mut low, mut high) = (f64::MAX, f64::MIN);
    for value in values {
        low = low.min(value);
        high = high.max(value);
    }
    if low > high { (1.0, 10.0) } else { (low / 1.3, high * 1.3) }
}

/// Where a value lies between two others, logarithmically.
fn part(value: f64, (low, high): (f64, f64)) -> f64 {
    (value / low).ln() / (high / low).ln()
}

fn sizes(span: (f64, f64)) -> Vec<(f64, String)> {
    let names = (4..=26).step_by(2).map(|shift: u32| {
        let bytes = 1u32 << shift;
        let name = match shift {
            0..10 => format!("{bytes}"),
            10..20 => format!("{} KiB", bytes >> 10),
            _ => format!("{} MiB", bytes >> 20),
        };
        (f64::from(bytes), name)
    });
    names.filter(|(value, _)| (span.0..=span.1).contains(value)).collect()
}

fn times(span: (f64, f64)) -> Vec<(f64, String)> {
    let names = (0..=8).map(|power: i32| {
        let name = match power {
            0..3 => format!("{} ns", 10u32.pow(power.unsigned_abs())),
            3..6 => format!("{} µs", 10u32.pow(power.unsigned_abs() - 3)),
            _ => format!("{} ms", 10u32.pow(power.unsigned_abs() - 6)),
        };
        (10f64.powi(power), name)
    });
    names.filter(|(value, _)| (span.0..=span.1).contains(value)).collect()
}
