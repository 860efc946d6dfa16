//! A virtio disk with many requests in flight, on the queue of `virtio-drivers`.
//!
//! Nothing here waits for a device without a limit. [`Disk::submit`] and [`Disk::next_done`]
//! never block; [`wait`] waits for completions of several disks at once, and for the death of
//! their device.

mod buffer;
mod chain;
mod error;
mod request;
mod wait;

use core::fmt;
use core::mem::ManuallyDrop;
use std::time::Duration;

use coco_dma::reason::Refuse;
use coco_dma_virtio::{Adaptor, Bound};
use virtio_bindings::bindings::{virtio_blk as blk, virtio_config::VIRTIO_F_VERSION_1};
use virtio_drivers::Hal;
use virtio_drivers::queue::VirtQueue;
use virtio_drivers::transport::{DeviceStatus, Transport};

use crate::device::DeviceProcess;
use crate::front::{Front, bit};
use crate::machine::UserMachine;
use crate::memory::SharedBuffer;
pub use buffer::Buffer;
use chain::Flight;
pub use error::DiskError;
pub use request::{Done, Op, Request, SECTOR, Status, Submitted};
pub(crate) use request::{FRAME, IDENTITY, slots};
pub(crate) use wait::lost;
pub use wait::{Line, wait};

/// Descriptors of a queue; a request takes three of them at most.
pub(crate) const QUEUE: usize = 256;
/// The most requests that a disk has in flight.
pub const MAX_DEPTH: usize = 64;
/// Bytes of a pool that a disk's queue takes, in whole pages: descriptors with the available
/// ring, and the used ring.
pub const QUEUE_BYTES: u64 = 3 * 4096;

/// How long a device may take to close its end when we have closed ours.
const FAREWELL: Duration = Duration::from_secs(2);

/// What a disk stands on: a machine, and for shorter a process.
#[derive(Debug)]
pub struct Footing<'a, 'p> {
    /// Its name, for messages.
    pub name: &'static str,
    /// The machine whose shared memory the device is given, and whose arena holds the headers.
    pub machine: &'a UserMachine,
    /// The device of the layer that maps for it, and for nobody else: it is revoked with the disk.
    pub adaptor: &'p Adaptor<'p>,
    /// The binding of the disk's `Hal` type to that adaptor.
    pub bound: &'p Bound<'p>,
    /// The process that serves it.
    pub process: &'p DeviceProcess,
    /// Which of its exports.
    pub export: usize,
}

/// A disk. Dropping it stops the device first, then ends whatever was in flight; memory that a
/// device might still be using is kept back, until its adaptor is revoked.
pub struct Disk<'a, 'p, H: Hal> {
    on: Footing<'a, 'p>,
    front: Front<'a>,
    queue: ManuallyDrop<VirtQueue<H, QUEUE>>,
    /// Headers and statuses that are free.
    frames: Vec<Buffer<'a>>,
    /// The same in shared memory, for requests whose data lies there.
    shared_frames: Vec<Buffer<'a>>,
    /// What is in flight, by token.
    flights: Vec<Option<Flight<'a>>>,
    in_flight: usize,
    unkicked: bool,
}

impl<'a, 'p, H: Hal> Disk<'a, 'p, H> {
    /// Connects to the device and starts its queue, for up to `depth` requests in flight (at most
    /// [`MAX_DEPTH`]). Blocks, for seconds at most.
    ///
    /// # Errors
    ///
    /// [`DiskError::Device`], [`DiskError::Front`], [`DiskError::Lost`], [`DiskError::Queue`]
    /// without room for the queue, [`DiskError::Memory`] without room for headers.
    pub fn open(on: Footing<'a, 'p>, depth: usize) -> Result<Self, DiskError> {
        let depth = depth.clamp(1, MAX_DEPTH);
        let arena = on.machine.arena();
        let take = |_| arena.take(FRAME).map(Buffer::Private);
        let frames = (0..depth).map(take).collect::<Result<Vec<_>, _>>()?;
        let stream = on.process.connect(on.export)?;
        let blame = |source| wait::blame(on.process, on.name, source);
        let mut front = Front::connect(stream, on.machine).map_err(blame)?;
        let mut status = DeviceStatus::ACKNOWLEDGE | DeviceStatus::DRIVER;
        front.set_status(status);
        // No EVENT_IDX and no INDIRECT: see `kick`; and an indirect table is one more bounce.
        let wanted = [blk::VIRTIO_BLK_F_RO, blk::VIRTIO_BLK_F_BLK_SIZE, blk::VIRTIO_BLK_F_FLUSH];
        let wanted = wanted.into_iter().fold(bit(VIRTIO_F_VERSION_1), |all, one| all | bit(one));
        front.write_driver_features(wanted);
        front.check().map_err(blame)?;
        status |= DeviceStatus::FEATURES_OK;
        front.set_status(status);
        let queue = VirtQueue::new(&mut front, 0, false, false)
            .map_err(|reason| DiskError::Queue { disk: on.name, reason })?;
        let flights = (0..QUEUE).map(|_| None).collect();
        let queue = ManuallyDrop::new(queue);
        let (shared_frames, in_flight, unkicked) = (Vec::new(), 0, false);
        let mut disk =
            Self { on, front, queue, frames, shared_frames, flights, in_flight, unkicked };
        // From here on dropping it stops the device before the queue's memory goes.
        let started = disk.front.check();
        started.map_err(|source| wait::blame(disk.on.process, disk.on.name, source))?;
        disk.front.set_status(status | DeviceStatus::DRIVER_OK);
        Ok(disk)
    }

    /// Its connection: what the device offers and says of itself.
    #[must_use]
    pub fn front(&self) -> &Front<'a> {
        &self.front
    }

    /// Gives it shared memory for the headers and statuses of requests whose data lies in shared
    /// memory, [`FRAME`] bytes each: so many of them can be in flight.
    pub(crate) fn lend_frames(&mut self, frames: impl Iterator<Item = SharedBuffer<'a>>) {
        self.shared_frames.extend(frames.map(Buffer::Shared));
    }

    /// Requests that the device has.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Puts a request on the queue. Never blocks; the device is told at the next [`wait`] or
    /// [`kick`](Self::kick).
    ///
    /// # Errors
    ///
    /// [`DiskError::Request`] for one that does not fit, [`DiskError::Refused`] where the layer
    /// would never map it.
    pub fn submit(&mut self, request: Request<'a>) -> Result<Submitted<'a>, DiskError> {
        self.check(&request)?;
        let Some(frame) = self.frames_of(&request).pop() else {
            return Ok(Submitted::NoRoom(request));
        };
        let mut flight = Flight::new(request, frame);
        // `share` cannot fail, so ask first.
        match flight.ask(self.on.adaptor) {
            Ok(()) => {}
            // None of these is for good: somebody else ends maps, or grows a pool.
            Err(
                Refuse::PoolFull
                | Refuse::PoolClosed
                | Refuse::Quota
                | Refuse::PinnedOut
                | Refuse::Busy,
            ) => {
                return Ok(Submitted::NoRoom(self.take_apart(flight)));
            }
            Err(reason) => return Err(DiskError::Refused { disk: self.on.name, reason }),
        }
        let failed_shares = self.on.adaptor.counters().failed_shares;
        let token = match flight.add(&mut self.queue) {
            Ok(token) => token,
            Err(virtio_drivers::Error::QueueFull) => {
                return Ok(Submitted::NoRoom(self.take_apart(flight)));
            }
            Err(reason) => return Err(DiskError::Queue { disk: self.on.name, reason }),
        };
        // Tokens are numbers of our own descriptors, never the device's.
        if let Some(place) = self.flights.get_mut(usize::from(token)) {
            *place = Some(flight);
        }
        self.in_flight += 1;
        self.unkicked = true;
        if self.on.adaptor.counters().failed_shares != failed_shares {
            return Err(DiskError::Stray { disk: self.on.name });
        }
        Ok(Submitted::Taken)
    }

    /// Takes back the next request that the device is done with. Never blocks.
    ///
    /// # Errors
    ///
    /// [`DiskError::Protocol`] when what the device says cannot be.
    pub fn next_done(&mut self) -> Result<Option<Done<'a>>, DiskError> {
        let Some(token) = self.queue.peek_used() else { return Ok(None) };
        let flight = self.flights.get_mut(usize::from(token)).and_then(Option::take);
        let Some(mut flight) = flight else {
            return Err(self.nonsense("it completed a request that it does not have"));
        };
        let written = match flight.pop(&mut self.queue, token) {
            Ok(written) => written,
            Err(_) => {
                // The entry changed under our eyes: the request is still the device's.
                if let Some(place) = self.flights.get_mut(usize::from(token)) {
                    *place = Some(flight);
                }
                return Err(self.nonsense("it changed a completion after the fact"));
            }
        };
        self.in_flight = self.in_flight.saturating_sub(1);
        let (writable, status) = (flight.writable(), Status::from(flight.status()));
        let request = self.take_apart(flight);
        match usize::try_from(written) {
            Ok(written) if written > writable => {
                Err(self.nonsense("it wrote more than it was given room for"))
            }
            // The status is the last byte: who did not write all has not written it either.
            Ok(written) if written < writable && status == Status::Ok => {
                Err(self.nonsense("it reports success for a request that it did not finish"))
            }
            _ => Ok(Some(Done { request, status })),
        }
    }

    /// Tells the device of what was submitted since the last time.
    pub fn kick(&mut self) {
        // Always, whatever the device says of wanting to be told: asking it takes a full fence
        // that `virtio-drivers` does not have, and a kick that is missing stops everything.
        if core::mem::take(&mut self.unkicked) {
            self.front.kick(0);
        }
    }

    /// Takes back what a dead device left undone, so that another one may do it. Nothing of it has
    /// changed: a read's buffer is as it was submitted. `None` where the process has not ended
    /// ([`DeviceProcess::kill`]): it may be doing any of it still, and the disk is only dropped.
    pub fn lose(mut self) -> Option<Vec<Request<'a>>> {
        self.on.process.poll_exit()?;
        let flights = core::mem::take(&mut self.flights);
        let undone = flights.into_iter().flatten().map(|flight| self.take_apart(flight)).collect();
        // Ends the maps of the buffers before anybody else touches them.
        drop(self);
        Some(undone)
    }

    /// Stops the device; false where it may go on using memory.
    fn stop(&mut self) -> bool {
        // A dead one has stopped.
        let ended = |disk: &Self| disk.on.process.poll_exit().is_some();
        if ended(self) {
            return true;
        }
        // An acknowledged stop, then the device's own end of the connection: both kinds of
        // device close it when they are done with our memory.
        let _ = self.front.stop_queues();
        self.front.hang_up(FAREWELL) || ended(self)
    }

    fn check(&self, request: &Request<'a>) -> Result<(), DiskError> {
        let Request { op, data, len } = request;
        let (len, sectors) = (*len, self.front.sectors());
        let room = data.as_ref().map_or(0, |data| data.len());
        let count = u64::try_from(len / SECTOR).unwrap_or(u64::MAX);
        let fits = match op {
            Op::Flush => len == 0,
            Op::Identify => len == IDENTITY,
            Op::Read { sector } | Op::Write { sector } => {
                let end = sector.checked_add(count);
                len > 0 && len.is_multiple_of(SECTOR) && end.is_some_and(|end| end <= sectors)
            }
        };
        if fits && len <= room {
            return Ok(());
        }
        Err(DiskError::Request { disk: self.on.name, op: *op, len, sectors })
    }

    fn take_apart(&mut self, flight: Flight<'a>) -> Request<'a> {
        let Flight { request, frame } = flight;
        self.frames_of(&request).push(frame);
        request
    }

    /// Headers and statuses that are free, for such a request: they lie where its data does.
    fn frames_of(&mut self, request: &Request<'a>) -> &mut Vec<Buffer<'a>> {
        match request.data {
            Some(Buffer::Shared(_)) => &mut self.shared_frames,
            Some(Buffer::Private(_)) | None => &mut self.frames,
        }
    }

    fn nonsense(&self, what: &'static str) -> DiskError {
        DiskError::Protocol { disk: self.on.name, what }
    }
}

impl<H: Hal> Drop for Disk<'_, '_, H> {
    fn drop(&mut self) {
        let stopped = self.stop();
        chain::end(&mut self.queue, self.on.adaptor, stopped);
    }
}

impl<H: Hal> fmt::Debug for Disk<'_, '_, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Disk")
            .field("name", &self.on.name)
            .field("front", &self.front)
            .field("in_flight", &self.in_flight)
            .finish_non_exhaustive()
    }
}
