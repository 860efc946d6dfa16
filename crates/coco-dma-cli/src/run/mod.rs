//! `coco-dma run`: the main job.

use std::process::ExitCode;

use crate::args::RunArgs;
use crate::failure::Failure;
use crate::words::lookup;

/// Which device to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DeviceChoice {
    Auto,
    QemuStorageDaemon,
    Embedded,
}

pub(crate) fn device(text: &str) -> Result<DeviceChoice, String> {
    let words = [
        ("auto", DeviceChoice::Auto),
        ("qemu-storage-daemon", DeviceChoice::QemuStorageDaemon),
        ("embedded", DeviceChoice::Embedded),
    ];
    lookup("device", text, &words)
}

/// Serves as the embedded device, where that is what this process was started for.
pub(crate) fn embedded_device() -> Option<ExitCode> {
    None
}

pub(crate) fn run(args: &RunArgs) -> Result<(), Failure> {
    Err(Failure::Missing(format!("run is not built yet ({args:?})")))
}
