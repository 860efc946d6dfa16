//! One window: requests of one kind, as many in flight as the point says.

use std::time::{Duration, Instant};

use coco_dma::state::Direction;
use rustix::time::{ClockId, clock_gettime};
use virtio_drivers::Hal;

use super::CostError;
use super::figures::{Point, Sample};
use crate::disk::{Buffer, Disk, DiskError, Done, Request, SECTOR, Status, Submitted, wait};

/// Buffers of one size that lie in one kind of memory.
pub(super) type Stock<'a> = Vec<Buffer<'a>>;

/// A disk with the name that messages give it.
pub(super) const DISK: &str = "disk without storage";

/// Keeps `point.depth` requests in flight for `length`, and takes all of them back; at least so
/// many are made. What is in `stock` at the beginning is there at the end.
pub(super) fn window<'a, H: Hal>(
    disk: &mut Disk<'a, '_, H>,
    stock: &mut Stock<'a>,
    point: Point,
    length: Duration,
    patience: Duration,
) -> Result<Sample, CostError> {
    let places = disk.front().sectors() / (point.size / SECTOR) as u64;
    let (mut begun, mut done) = (0_u64, 0_u64);
    let (clock, processor) = (Instant::now(), processor_time());
    loop {
        while let Some(Done { request, status }) = disk.next_done()? {
            if status != Status::Ok {
                return Err(DiskError::Io { disk: DISK, op: request.op, status }.into());
            }
            stock.extend(request.data);
            done += 1;
        }
        if begun == 0 || clock.elapsed() < length {
            while disk.in_flight() < point.depth
                && let Some(buffer) = stock.pop()
            {
                let sector = begun % places.max(1) * (point.size / SECTOR) as u64;
                let request = match point.direction {
                    Direction::FromDevice => Request::read(sector, buffer, point.size),
                    Direction::ToDevice | Direction::Both => {
                        Request::write(sector, buffer, point.size)
                    }
                };
                match disk.submit(request)? {
                    Submitted::Taken => begun += 1,
                    Submitted::NoRoom(request) => {
                        stock.extend(request.data);
                        return Err(CostError::NoRoom);
                    }
                }
            }
        }
        if disk.in_flight() == 0 {
            break;
        }
        wait(&mut [&mut *disk], patience)?;
    }
    let each = |time: Duration| {
        #[expect(clippy::cast_precision_loss, reason = "far below 2^53 in a window")]
        let requests = done.max(1) as f64;
        time.as_secs_f64() * 1e9 / requests
    };
    let cpu = processor_time().saturating_sub(processor);
    Ok(Sample { requests: done, ns: each(clock.elapsed()), cpu_ns: each(cpu) })
}

/// Processor time of this thread so far, system calls included.
fn processor_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}
