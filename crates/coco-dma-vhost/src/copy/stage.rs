//! Two devices of the layer with a disk on each, for as long as a process lives.
// UNSAFETY: `virtio-drivers` finds its memory through a type, not a value; see `bind`.
#![expect(unsafe_code)]

use std::time::Instant;

use coco_dma::device::Endpoint;
use coco_dma::plan::Limits;
use coco_dma_virtio::{Adaptor, Record};

use super::pipeline::Pipeline;
use super::{CopyError, CopyJob, CopyReport, DiskReport, Progress};
use crate::device::{DeviceProcess, Keeper};
use crate::disk::{Disk, DiskError, Footing, Line, lost};
use crate::front::Front;
use crate::machine::Layer;

coco_dma_virtio::hal! {
    /// The input disk's way to memory.
    struct InputHal;
}

coco_dma_virtio::hal! {
    /// The output disk's way to memory.
    struct OutputHal;
}

const INPUT: &str = "input disk";
const OUTPUT: &str = "output disk";

/// What is known when everything is done, with both disks connected.
struct End {
    device_mappings: Vec<String>,
    slots_used: usize,
}

/// Copies with one process after the other, as long as each gets somewhere.
pub(super) fn run(
    layer: &Layer<'_>,
    keeper: &mut Keeper<'_>,
    job: &CopyJob,
    progress: &mut dyn FnMut(Progress),
) -> Result<CopyReport, CopyError> {
    let begun = Instant::now();
    let mut pipeline = Pipeline::new(layer.machine().arena(), *job)?;
    let mut disks = [DiskReport::default(); 2];
    let end = loop {
        let completed = pipeline.completed();
        let process = keeper.process()?;
        let ended = session(layer, process, job, &mut pipeline, &mut disks, progress);
        if pipeline.completed() > completed {
            keeper.did_something();
        }
        match ended {
            Ok(end) => break end,
            Err(error) if error.is_loss() => keeper.replace(&error)?,
            Err(error) => return Err(error),
        }
    };
    let [input, output] = disks;
    Ok(CopyReport {
        bytes: job.bytes,
        requests: pipeline.requests(),
        waits_for_room: pipeline.waits_for_room(),
        input,
        output,
        sha256: pipeline.sha256(),
        device_mappings: end.device_mappings,
        slots_used: end.slots_used,
        elapsed: begun.elapsed(),
    })
}

/// What one process gets done: two devices of the layer, made for it and revoked with it.
fn session<'a>(
    layer: &Layer<'a>,
    process: &DeviceProcess,
    job: &CopyJob,
    pipeline: &mut Pipeline<'a>,
    disks: &mut [DiskReport; 2],
    progress: &mut dyn FnMut(Progress),
) -> Result<End, CopyError> {
    // Three buffers a request, two allocations a queue; and as many more, for quick finding.
    let count = 2 * (3 * job.shape.depth + 2);
    let records = || (0..count).map(|_| Record::new()).collect::<Vec<_>>();
    let (input_records, output_records) = (records(), records());
    let bind = |name| layer.dma().bind(Endpoint::new(name), Limits::NONE);
    let adaptors: [&Adaptor<'_>; 2] = [
        &Adaptor::new(bind(INPUT)?, &input_records),
        &Adaptor::new(bind(OUTPUT)?, &output_records),
    ];
    let ended = serve(layer, process, job, adaptors, pipeline, disks, progress);
    // A disk that was closed in good order has left nothing mapped. Of a device that did not let
    // go, only its death takes memory back.
    let held = adaptors.iter().any(|adaptor| adaptor.live() > 0);
    let dead = held && process.kill().is_ok();
    for (adaptor, report) in adaptors.into_iter().zip(disks) {
        if dead {
            // SAFETY: the process has ended, and the disks on it are gone. What they left mapped
            // is not copied back.
            unsafe { adaptor.revoke() };
        }
        let (all, now) = (&mut report.maps, adaptor.device().counters());
        all.direct += now.direct;
        all.bounced += now.bounced;
        all.refused += now.refused;
        all.finished += now.finished;
        all.lost += now.lost;
        let (all, now) = (&mut report.adaptor, adaptor.counters());
        all.failed_shares += now.failed_shares;
        all.unknown_unshares += now.unknown_unshares;
        all.lost += now.lost;
    }
    ended
}

/// Opens the disks and lets the pipeline run on them. After a loss the process has ended, and the
/// pipeline has back what it left undone.
fn serve<'a>(
    layer: &Layer<'a>,
    process: &DeviceProcess,
    job: &CopyJob,
    [input_adaptor, output_adaptor]: [&Adaptor<'_>; 2],
    pipeline: &mut Pipeline<'a>,
    disks: &mut [DiskReport; 2],
    progress: &mut dyn FnMut(Progress),
) -> Result<End, CopyError> {
    // SAFETY: 1. only the disks below use the types; they are declared after the guards, so they
    // are dropped before them, on this thread. 2. The guards are locals, and the adaptors outlive
    // this function.
    let input_bound = unsafe { InputHal::bind(&input_adaptor) }.map_err(CopyError::Busy)?;
    // SAFETY: as above.
    let output_bound = unsafe { OutputHal::bind(&output_adaptor) }.map_err(CopyError::Busy)?;

    let on = |name, adaptor, bound, export| {
        let machine = layer.machine();
        Footing { name, machine, adaptor, bound, process, export }
    };
    let depth = job.shape.depth;
    // Dead before the disks are dropped, so that nobody waits for its answers.
    let kill = |error: &DiskError| {
        if error.is_loss() {
            let _ = process.kill();
        }
    };
    let mut input =
        Disk::<InputHal>::open(on(INPUT, input_adaptor, &input_bound, job.input), depth)
            .inspect_err(kill)?;
    let mut output =
        Disk::<OutputHal>::open(on(OUTPUT, output_adaptor, &output_bound, job.output), depth)
            .inspect_err(kill)?;
    check(job, input.front(), output.front())?;
    let limits = [&input, &output as &dyn Line].map(|disk| disk.front().region_limit());
    disks.iter_mut().zip(limits).for_each(|(report, limit)| report.region_limit = limit);

    let ended = pipeline.run(&mut input, &mut output, progress).and_then(|()| {
        let device_mappings = process.mappings()?;
        if device_mappings.is_empty() {
            // It has our pool mapped as long as it lives.
            return Err(lost(process, OUTPUT).into());
        }
        Ok(End { device_mappings, slots_used: layer.pool().used() })
    });
    if ended.as_ref().is_err_and(CopyError::is_loss) {
        process.kill()?;
        pipeline.take_back(input.lose().unwrap_or_default());
        pipeline.take_back(output.lose().unwrap_or_default());
    }
    ended
}

/// What the devices say of themselves has to suit the image.
fn check(job: &CopyJob, input: &Front<'_>, output: &Front<'_>) -> Result<(), CopyError> {
    let wanted = job.bytes / 512;
    if input.sectors() != wanted {
        return Err(CopyError::Capacity { disk: INPUT, sectors: input.sectors(), wanted });
    }
    if output.sectors() < wanted {
        return Err(CopyError::Capacity { disk: OUTPUT, sectors: output.sectors(), wanted });
    }
    if output.is_read_only() {
        return Err(CopyError::ReadOnly);
    }
    Ok(())
}
