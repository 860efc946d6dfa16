//! What `run --bench` says at its end.

use coco_dma::state::Direction;
use coco_dma_vhost::cost::CostJob;
use coco_dma_vhost::cost::CostReport;
use coco_dma_vhost::cost::CostRow;
use coco_dma_vhost::machine::Layer;
use comfy_table::CellAlignment;
use comfy_table::Table;
use comfy_table::presets::UTF8_FULL_CONDENSED;
use serde::Serialize;

use super::report::Device;
use crate::args::RunArgs;
use crate::number::Size;

/// The report. Its keys are the JSON document's; those of `run` that a measurement has no answer
/// to are empty or null.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// Every request was carried out, and each way was what it is called.
    ok: bool,
    device: String,
    identity: String,
    platform: &'static str,
    bytes: u64,
    restarts: u32,
    sha256_in: Option<String>,
    sha256_out: Option<String>,
    requests: u64,
    windows: usize,
    window_seconds: f64,
    bounced: usize,
    direct: usize,
    refused: usize,
    pool_size: u64,
    slots: usize,
    slots_high_water: usize,
    region_limit: u64,
    quarantined: u64,
    private_memory: String,
    separation: String,
    device_mappings: Vec<String>,
    attacks: [(); 0],
    rows: Vec<Row>,
}

#[derive(Debug, Serialize)]
struct Row {
    size: usize,
    depth: usize,
    direction: &'static str,
    way: &'static str,
    ns: f64,
    cpu_ns: f64,
    iops: f64,
    ratio: f64,
    cpu_ratio: f64,
    requests: u64,
}

impl Report {
    pub(super) fn new(
        args: &RunArgs,
        device: &Device,
        layer: &Layer<'_>,
        job: &CostJob,
        measured: CostReport,
    ) -> Self {
        let arena = layer.machine().arena();
        let why = arena.why_not_secret().map(|why| format!(" ({why})")).unwrap_or_default();
        Self {
            ok: true,
            device: device.kind.to_string(),
            identity: measured.identity,
            platform: args.platform.name(),
            bytes: measured.bytes,
            restarts: device.restarts,
            sha256_in: None,
            sha256_out: None,
            requests: measured.requests,
            windows: job.windows,
            window_seconds: job.window.as_secs_f64(),
            bounced: measured.maps.bounced,
            direct: measured.maps.direct,
            refused: measured.maps.refused,
            pool_size: args.pool_size,
            slots: layer.pool().capacity(),
            slots_high_water: layer.pool().high_water(),
            region_limit: measured.region_limit,
            quarantined: layer.dma().ledger().quarantined(),
            private_memory: format!("{}{why}", arena.kind()),
            separation: device.separation.map_or_else(String::new, |how| how.to_string()),
            device_mappings: measured.device_mappings,
            attacks: [],
            rows: measured.rows.iter().map(Row::of).collect(),
        }
    }

    /// For people.
    pub(super) fn table(&self) -> String {
        let mut rows = Table::new();
        rows.load_style(UTF8_FULL_CONDENSED).set_header([
            "request",
            "in flight",
            "device",
            "bounced",
            "direct",
            "ratio",
            "CPU bounced",
            "CPU direct",
            "ratio",
        ]);
        rows.column_iter_mut().for_each(|column| column.set_cell_alignment(CellAlignment::Right));
        let time = |ns: f64| format!("{:.1} us", ns / 1000.0);
        let all = |row: &Row| format!("{} ({:.0}/s)", time(row.ns), row.iops);
        for pair in self.rows.chunks_exact(2) {
            let [bounced, direct] = pair else { continue };
            rows.add_row([
                Size(bounced.size as u64).to_string(),
                bounced.depth.to_string(),
                if bounced.direction == "to" { "reads it" } else { "writes it" }.to_owned(),
                all(bounced),
                all(direct),
                format!("{:.2}", bounced.ratio),
                time(bounced.cpu_ns),
                time(direct.cpu_ns),
                format!("{:.2}", bounced.cpu_ratio),
            ]);
        }
        let Self { device, identity, requests, windows, bounced, direct, .. } = self;
        format!(
            "{device} ('{identity}') without storage, {requests} requests, {windows} windows of \
             {} ms each way, in turn\n{rows}\n\
             bounced: buffer, header and status in private memory, through the pool; direct: all \
             three in shared memory,\nused where they lie, over the same queue. A time is that \
             from one completion to the next (lower quartile), the\ndevice process and the \
             wake-ups of both included, in either way; CPU is this process's own. A ratio is \
             bounced by\ndirect (median of pairs of windows). Checked: {bounced} maps bounced in \
             the one way and {direct} direct in the other,\nthree a request; slots held by the \
             one and none by the other; what the device wrote arrived in both.\n\
             separation: {}\nprivate memory: {}\ndevice has mapped: {}",
            self.window_seconds * 1000.0,
            self.separation,
            self.private_memory,
            self.device_mappings.join("\n                   "),
        )
    }
}

impl Row {
    fn of(row: &CostRow) -> Self {
        Self {
            size: row.size,
            depth: row.depth,
            // The words of `explain`.
            direction: match row.direction {
                Direction::ToDevice => "to",
                Direction::FromDevice => "from",
                Direction::Both => "both",
            },
            way: row.way.name(),
            ns: row.ns,
            cpu_ns: row.cpu_ns,
            iops: row.iops,
            ratio: row.ratio,
            cpu_ratio: row.cpu_ratio,
            requests: row.requests,
        }
    }
}
