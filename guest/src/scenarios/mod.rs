//! What the command line can ask for: `scenario=io device=nvme mode=bounced`, and so on. Each
//! ends with a line of the report, or says what did not hold.

mod attack;
mod direct;
mod io;
mod trouble;
mod views;

use crate::Failure;
use crate::layer::GuestDevice;
use crate::layer::Layer;
use crate::platform::GUEST;
use crate::report::LISTENER;
use crate::report::Row;
use crate::rt::start::Boot;

/// Runs what was asked for.
pub fn run(layer: &Layer, boot: &Boot) -> Result<(), Failure> {
    match boot.option("scenario").unwrap_or("io") {
        "io" => io::run(layer, boot),
        "touch" => views::touch(layer, boot),
        "wide" => views::wide(layer, boot),
        "leak" => views::leak(layer, boot),
        "exhaust" => trouble::exhaust(layer, boot),
        "error" => trouble::disk_error(layer, boot),
        "unplug" => trouble::unplug(layer, boot),
        "refuse" => trouble::refuse(layer, boot),
        other => Err(Failure::from(alloc::format!("there is no scenario `{other}`"))),
    }
}

/// The row that every scenario ends with: what it is, and what the layer counted.
fn row(layer: &Layer, boot: &Boot, device: &GuestDevice) -> Row {
    layer.collect_faults();
    let counters = device.counters();
    let row = Row::default()
        .with("scenario", boot.option("scenario").unwrap_or("io"))
        .with("device", boot.option("device").unwrap_or("-"))
        .with("mode", boot.option("mode").unwrap_or("-"))
        .with("iommu", GUEST.iommu.borrow().name())
        .with("direct", counters.direct)
        .with("bounced", counters.bounced)
        .with("refused", counters.refused)
        .with("live", counters.live())
        .with("conversions", LISTENER.conversions.get())
        .with("faults", LISTENER.faults.get());
    match device.domain() {
        None => row.with("behind", "passthrough"),
        Some(domain) => row
            .with("behind", "translated")
            .with("mapped", domain.mapped())
            .with("lost", domain.lost()),
    }
}
