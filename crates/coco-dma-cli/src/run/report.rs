//! What `run` says at its end.

use coco_dma_vhost::attack::Attack;
use coco_dma_vhost::copy::CopyReport;
use coco_dma_vhost::copy::Shape;
use coco_dma_vhost::device::Kind;
use coco_dma_vhost::device::Separation;
use coco_dma_vhost::machine::Layer;
use comfy_table::Table;
use comfy_table::presets::UTF8_FULL_CONDENSED;
use serde::Serialize;

use super::image::hex;
use super::is_breach;
use crate::args::RunArgs;
use crate::failure::Failure;
use crate::number::Count;
use crate::number::Size;

/// The hashes that were read from files.
#[derive(Debug)]
pub(super) struct Sums {
    pub(super) input: String,
    pub(super) output: String,
}

/// Which device served, and how it went.
#[derive(Debug)]
pub(super) struct Device {
    pub(super) kind: Kind,
    pub(super) separation: Option<Separation>,
    /// Processes that were lost and replaced.
    pub(super) restarts: u32,
}

/// The report. Its keys are the JSON document's.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    ok: bool,
    device: String,
    platform: &'static str,
    bytes: u64,
    seconds: f64,
    restarts: u32,
    sha256_in: String,
    sha256_through: String,
    sha256_out: String,
    requests: u64,
    queue_depth: usize,
    bounced: usize,
    direct: usize,
    refused: usize,
    waits_for_room: u64,
    pool_size: u64,
    slots: usize,
    slots_used: usize,
    slots_high_water: usize,
    region_limit: u64,
    quarantined: u64,
    private_memory: String,
    separation: String,
    device_mappings: Vec<String>,
    attacks: Vec<AttackRow>,
}

#[derive(Debug, Serialize)]
struct AttackRow {
    name: &'static str,
    refused: bool,
    intact: bool,
    how: String,
}

impl Report {
    pub(super) fn new(
        args: &RunArgs,
        device: &Device,
        layer: &Layer<'_>,
        shape: Shape,
        copied: &CopyReport,
        attacks: Vec<Attack>,
        sums: Sums,
    ) -> Self {
        let through = hex(&copied.sha256);
        let held = sums.input == sums.output && sums.input == through;
        let arena = layer.machine().arena();
        let why = arena.why_not_secret().map(|why| format!(" ({why})")).unwrap_or_default();
        let ok = held && !attacks.iter().any(is_breach) && copied.refused() == 0;
        Self {
            ok,
            device: device.kind.to_string(),
            platform: args.platform.name(),
            bytes: copied.bytes,
            seconds: copied.elapsed.as_secs_f64(),
            restarts: device.restarts,
            sha256_in: sums.input,
            sha256_through: through,
            sha256_out: sums.output,
            requests: copied.requests,
            queue_depth: shape.depth,
            bounced: copied.bounced(),
            direct: copied.direct(),
            refused: copied.refused(),
            waits_for_room: copied.waits_for_room,
            pool_size: args.pool_size,
            slots: layer.pool().capacity(),
            slots_used: copied.slots_used,
            slots_high_water: layer.pool().high_water(),
            region_limit: copied.input.region_limit,
            quarantined: layer.dma().ledger().quarantined(),
            private_memory: format!("{}{why}", arena.kind()),
            separation: device.separation.map_or_else(String::new, |how| how.to_string()),
            device_mappings: copied.device_mappings.clone(),
            attacks: attacks
                .into_iter()
                .map(|Attack { name, refused, intact, how }| AttackRow {
                    name,
                    refused,
                    intact,
                    how,
                })
                .collect(),
        }
    }

    /// For people.
    pub(super) fn table(&self) -> String {
        let verdict = if self.ok { "it held" } else { "IT DID NOT HOLD" };
        let mut facts = Table::new();
        facts.load_style(UTF8_FULL_CONDENSED);
        let seconds = self.seconds;
        for (what, value) in [
            ("device", format!("{}, {}", self.device, self.separation)),
            ("restarts", format!("{} of the device's process, after losing it", self.restarts)),
            ("platform", format!("{} (played: see README)", self.platform)),
            ("private memory", self.private_memory.clone()),
            (
                "copied",
                format!(
                    "{} in {seconds:.2} s, {}",
                    Size(self.bytes),
                    Count(self.requests, "request")
                ),
            ),
            (
                "maps",
                format!(
                    "{} bounced, {} direct, {} refused",
                    self.bounced, self.direct, self.refused
                ),
            ),
            (
                "pool",
                format!(
                    "{}, {} slots: {} in use at the end, {} at most",
                    Size(self.pool_size),
                    self.slots,
                    self.slots_used,
                    self.slots_high_water
                ),
            ),
            ("sha256 of the image", self.sha256_in.clone()),
            ("sha256 on the way", self.sha256_through.clone()),
            ("sha256 of the output", self.sha256_out.clone()),
            ("device has mapped", self.device_mappings.join("\n")),
        ] {
            facts.add_row([what.to_owned(), value]);
        }
        let mut attacks = Table::new();
        attacks.load_style(UTF8_FULL_CONDENSED).set_header(["attack", "refused", "intact", "how"]);
        for row in &self.attacks {
            let yes = |yes: bool| if yes { "yes" } else { "NO" };
            attacks.add_row([row.name, yes(row.refused), yes(row.intact), &row.how]);
        }
        format!("{verdict}\n{facts}\n{attacks}")
    }

    /// Whether it held.
    pub(super) fn verdict(&self) -> Result<(), Failure> {
        if self.sha256_in != self.sha256_through || self.sha256_in != self.sha256_out {
            return Err(Failure::NotHeld(
                "the three hashes are not equal: bytes were lost or changed".to_owned(),
            ));
        }
        if let Some(row) = self.attacks.iter().find(|row| !row.refused || !row.intact) {
            return Err(Failure::NotHeld(format!(
                "the attack '{}' was not withstood: the device {}",
                row.name, row.how
            )));
        }
        if self.refused > 0 {
            return Err(Failure::NotHeld(format!("{} maps were refused", self.refused)));
        }
        Ok(())
    }
}
