//! Two devices of the layer with a disk on each.
// UNSAFETY: `virtio-drivers` finds its memory through a type, not a value; see `bind`.
#![expect(unsafe_code)]

use std::time::Instant;

use coco_dma::device::Endpoint;
use coco_dma::plan::Limits;
use coco_dma_virtio::{Adaptor, Record};

use super::pipeline::Pipeline;
use super::{CopyError, CopyJob, CopyReport, DiskReport, Progress};
use crate::disk::{Disk, Footing};
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

/// Sets everything up, copies, and reports.
pub(super) fn run(
    layer: &Layer<'_>,
    job: &CopyJob<'_>,
    progress: &mut dyn FnMut(Progress),
) -> Result<CopyReport, CopyError> {
    let begun = Instant::now();
    // Three buffers a request, two allocations a queue.
    let count = 3 * job.shape.depth + 2;
    let records = || (0..count).map(|_| Record::new()).collect::<Vec<_>>();
    let (input_records, output_records) = (records(), records());
    let bind = |name| layer.dma().bind(Endpoint::new(name), Limits::NONE);
    let input_adaptor = &Adaptor::new(bind(INPUT)?, &input_records);
    let output_adaptor = &Adaptor::new(bind(OUTPUT)?, &output_records);
    // SAFETY: 1. only the disks below use the types; they are declared after the guards, so they
    // are dropped before them, on this thread. 2. The guards are locals, declared after the
    // adaptors.
    let input_bound = unsafe { InputHal::bind(&input_adaptor) }.map_err(CopyError::Busy)?;
    // SAFETY: as above.
    let output_bound = unsafe { OutputHal::bind(&output_adaptor) }.map_err(CopyError::Busy)?;

    let on = |name, adaptor, bound, export| {
        let (machine, process) = (layer.machine(), job.process);
        Footing { name, machine, adaptor, bound, process, export }
    };
    let depth = job.shape.depth;
    let mut input =
        Disk::<InputHal>::open(on(INPUT, input_adaptor, &input_bound, job.input), depth)?;
    let mut output =
        Disk::<OutputHal>::open(on(OUTPUT, output_adaptor, &output_bound, job.output), depth)?;
    check(job, input.front(), output.front())?;

    let mut pipeline = Pipeline::new(layer.machine().arena(), job)?;
    pipeline.run(&mut input, &mut output, progress)?;
    let device_mappings = job.process.mappings()?;
    let report = |adaptor: &Adaptor<'_>, front: &Front| DiskReport {
        maps: adaptor.device().counters(),
        adaptor: adaptor.counters(),
        region_limit: front.region_limit(),
    };
    Ok(CopyReport {
        bytes: job.bytes,
        requests: pipeline.requests(),
        waits_for_room: pipeline.waits_for_room(),
        input: report(input_adaptor, input.front()),
        output: report(output_adaptor, output.front()),
        sha256: pipeline.sha256(),
        device_mappings,
        slots_used: layer.pool().used(),
        elapsed: begun.elapsed(),
    })
}

/// What the devices say of themselves has to suit the image.
fn check(job: &CopyJob<'_>, input: &Front, output: &Front) -> Result<(), CopyError> {
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
