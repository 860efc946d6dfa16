//! A device of the layer with one disk, and buffers in both kinds of memory, for as long as a
//! process lives.
// UNSAFETY: a region is shared and cut into buffers; `virtio-drivers` finds its memory through a
// type, not a value.
#![expect(unsafe_code)]

use core::ptr::NonNull;

use coco_dma::addr::PhysRange;
use coco_dma::device::{CountersNow, Endpoint};
use coco_dma::plan::Limits;
use coco_dma::platform::Platform;
use coco_dma::state::{CacheMode, Context, State};
use coco_dma_virtio::{Adaptor, Record};

use super::control::{Control, MAPS, check};
use super::figures::{Point, Sample, rows};
use super::window::{DISK, Stock, window};
use super::{ARENA, CostError, CostJob, CostReport, CostRow, LARGEST, MOST, REGION, SIZES, Way};
use crate::device::{DeviceProcess, Keeper};
use crate::disk::{Buffer, Disk, DiskError, FRAME, Footing, SECTOR, lost};
use crate::machine::Layer;
use crate::memory::SharedBuffer;

coco_dma_virtio::hal! {
    /// The disk's way to memory.
    struct CostHal;
}

/// What is known so far, whichever process served.
#[derive(Default)]
struct Found {
    rows: Vec<CostRow>,
    maps: CountersNow,
    identity: String,
    region_limit: u64,
    device_mappings: Vec<String>,
}

/// Measures with one process after the other, as long as each gets somewhere.
pub(super) fn run(
    layer: &Layer<'_>,
    keeper: &mut Keeper<'_>,
    job: &CostJob,
    progress: &mut dyn FnMut(f64),
) -> Result<CostReport, CostError> {
    let region = layer.machine().region(0).ok_or(CostError::Region)?;
    let spoken_for = !layer.growth().is_empty();
    if spoken_for || region.len() < REGION as u64 || layer.machine().arena().len() < ARENA {
        return Err(CostError::Region);
    }
    // SAFETY: the region is nobody's but this measurement's: no pool of this layer grows, and what is cut out of it below is dropped before it is reclaimed.
    unsafe { layer.dma().share(region) }.map_err(CostError::Share)?;
    let mut found = Found::default();
    let ended = loop {
        let known = found.rows.len();
        let process = keeper.process()?;
        let ended = session(layer, region, process, job, &mut found, progress);
        if found.rows.len() > known {
            keeper.did_something();
        }
        match ended {
            Err(error) if error.is_loss() => {
                if let Err(error) = keeper.replace(&error) {
                    break Err(error.into());
                }
            }
            other => break other,
        }
    };
    // SAFETY: as above: the buffers are gone. What a device still has pinned is refused and stays
    // shared, as everything does when the process ends.
    let _ = unsafe { layer.dma().reclaim(region) };
    ended?;
    let Found { rows, maps, identity, region_limit, device_mappings } = found;
    let requests = rows.iter().map(|row| row.requests).sum();
    let bytes = rows.iter().map(|row| row.requests * row.size as u64).sum();
    Ok(CostReport { rows, requests, bytes, maps, identity, region_limit, device_mappings })
}

/// What one process gets done: one device of the layer, made for it and revoked with it.
fn session(
    layer: &Layer<'_>,
    region: PhysRange,
    process: &DeviceProcess,
    job: &CostJob,
    found: &mut Found,
    progress: &mut dyn FnMut(f64),
) -> Result<(), CostError> {
    // With two allocations of the queue, and as many more, for quick finding.
    let records: Vec<Record> = (0..2 * (MAPS * MOST + 2)).map(|_| Record::new()).collect();
    let device = layer.dma().bind(Endpoint::new(DISK), Limits::NONE)?;
    let adaptor: &Adaptor<'_> = &Adaptor::new(device, &records);
    let ended = serve(layer, region, process, job, adaptor, found, progress);
    if ended.as_ref().is_err_and(CostError::is_loss) || adaptor.live() > 0 {
        // Of a device that did not let go, only its death takes memory back.
        process.kill()?;
        // SAFETY: the process has ended, and the disk on it is gone. What it left mapped is not
        // copied back.
        unsafe { adaptor.revoke() };
    }
    let (all, now) = (&mut found.maps, adaptor.device().counters());
    all.direct += now.direct;
    all.bounced += now.bounced;
    all.refused += now.refused;
    all.finished += now.finished;
    all.lost += now.lost;
    ended
}

/// Opens the disk and measures what is not known yet.
fn serve<'a>(
    layer: &Layer<'a>,
    region: PhysRange,
    process: &DeviceProcess,
    job: &CostJob,
    adaptor: &Adaptor<'_>,
    found: &mut Found,
    progress: &mut dyn FnMut(f64),
) -> Result<(), CostError> {
    // SAFETY: 1. only the disk below uses the type; it is declared after the guard, so it is
    // dropped before it, on this thread. 2. The guard is a local, and the adaptor outlives this
    // function.
    let bound = &unsafe { CostHal::bind(&adaptor) }.map_err(CostError::Busy)?;
    let (machine, export) = (layer.machine(), job.export);
    let on = Footing { name: DISK, machine, adaptor, bound, process, export };
    // Dead before the disk is dropped, so that nobody waits for its answers.
    let kill = |error: &DiskError| {
        if error.is_loss() {
            let _ = process.kill();
        }
    };
    let mut disk = Disk::<CostHal>::open(on, MOST).inspect_err(kill)?;
    let sectors = disk.front().sectors();
    if sectors < (LARGEST / SECTOR) as u64 || disk.front().is_read_only() {
        return Err(CostError::Unfit { sectors });
    }
    found.region_limit = disk.front().region_limit();
    let ended = measure(layer, region, process, job, &mut disk, adaptor, found, progress);
    if ended.as_ref().is_err_and(CostError::is_loss) {
        let _ = process.kill();
    }
    ended
}

#[expect(clippy::too_many_arguments, reason = "one call, with everything there is")]
fn measure<'a>(
    layer: &Layer<'a>,
    region: PhysRange,
    process: &DeviceProcess,
    job: &CostJob,
    disk: &mut Disk<'a, '_, CostHal>,
    adaptor: &Adaptor<'_>,
    found: &mut Found,
    progress: &mut dyn FnMut(f64),
) -> Result<(), CostError> {
    let mut memory = Cutter::new(layer, region)?;
    disk.lend_frames(memory.cut(FRAME).into_iter());
    let control = Control { layer, adaptor, patience: job.patience };
    let mut stocks = Vec::new();
    for size in SIZES {
        let arena = layer.machine().arena();
        let private = (0..MOST).map(|_| arena.take(size).map(Buffer::Private));
        let mut stock: [(Way, Stock<'a>); 2] = [
            (Way::Bounced, private.collect::<Result<_, _>>()?),
            (Way::Direct, memory.cut(size).into_iter().map(Buffer::Shared).collect()),
        ];
        for (way, stock) in &mut stock {
            found.identity = control.run(disk, stock, *way, size)?;
        }
        stocks.push((size, stock));
    }
    let all = Point::all().count();
    for (number, point) in Point::all().enumerate().skip(found.rows.len() / 2) {
        let stock = stocks.iter_mut().find(|(size, _)| *size == point.size);
        let (_, stock) = stock.ok_or(CostError::NoRoom)?;
        let mut pairs = Vec::new();
        for round in 0..job.windows.max(1) {
            pairs.push(pair(disk, adaptor, stock, point, job, round)?);
        }
        found.rows.extend(rows(point, &pairs));
        #[expect(clippy::cast_precision_loss, reason = "eight points")]
        progress((number + 1) as f64 / all as f64);
    }
    found.device_mappings = process.mappings()?;
    if found.device_mappings.is_empty() {
        // It has our memory mapped as long as it lives.
        return Err(lost(process, DISK).into());
    }
    Ok(())
}

/// A window of each way; each goes first in every second round.
fn pair<'a>(
    disk: &mut Disk<'a, '_, CostHal>,
    adaptor: &Adaptor<'_>,
    stocks: &mut [(Way, Stock<'a>); 2],
    point: Point,
    job: &CostJob,
    round: usize,
) -> Result<[Sample; 2], CostError> {
    let mut one = |(way, stock): &mut (Way, Stock<'a>)| {
        window(disk, stock, point, job.window / 4, job.patience)?;
        let before = adaptor.device().counters();
        let sample = window(disk, stock, point, job.window, job.patience)?;
        check(*way, sample.requests, &before, &adaptor.device().counters())?;
        Ok::<_, CostError>(sample)
    };
    let [bounced, direct] = stocks;
    if round.is_multiple_of(2) {
        let first = one(bounced)?;
        Ok([first, one(direct)?])
    } else {
        let first = one(direct)?;
        Ok([one(bounced)?, first])
    }
}

/// Cuts the shared region into buffers, each byte once.
struct Cutter<'a> {
    left: NonNull<[u8]>,
    machine: core::marker::PhantomData<&'a ()>,
}

impl<'a> Cutter<'a> {
    /// Called once while buffers of an earlier one live: those of the process before are dropped.
    fn new(layer: &Layer<'a>, region: PhysRange) -> Result<Self, CostError> {
        // SAFETY: the region is shared, and the view is not used after it is reclaimed.
        let view = unsafe {
            layer.machine().map_cpu(region, State::SHARED, CacheMode::WriteBack, Context::Blocking)
        };
        let start = view.map_err(|_| CostError::Region)?.start;
        let left = NonNull::slice_from_raw_parts(start, REGION);
        Ok(Self { left, machine: core::marker::PhantomData })
    }

    /// As many buffers of `size` bytes as are in flight at most.
    fn cut(&mut self, size: usize) -> Vec<SharedBuffer<'a>> {
        let start = self.left.cast::<u8>();
        let len = (size * MOST).min(self.left.len());
        // SAFETY: not past the end of the region.
        let rest = unsafe { start.add(len) };
        self.left = NonNull::slice_from_raw_parts(rest, self.left.len() - len);
        let piece = |number: usize| {
            // SAFETY: `number` pieces lie in `len` bytes.
            let at = unsafe { start.add(number * size) };
            // SAFETY: shared memory of the machine, mapped as long as it lives, and cut out of
            // what was left: nobody else has these bytes, since the region is this measurement's.
            unsafe { SharedBuffer::new(NonNull::slice_from_raw_parts(at, size)) }
        };
        (0..len / size).map(piece).collect()
    }
}
