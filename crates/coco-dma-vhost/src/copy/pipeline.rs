//! Reads that run ahead, a hash that goes in order, writes that follow.

use std::collections::{BTreeMap, VecDeque};

use sha2::{Digest, Sha256};
use virtio_drivers::Hal;

use super::{CopyError, CopyJob, Progress};
use crate::disk::{Buffer, Disk, DiskError, Done, Op, Request, SECTOR, Status, Submitted, wait};
use crate::memory::PrivateArena;

/// Where everything is, whichever process serves the disks.
pub(super) struct Pipeline<'a> {
    job: CopyJob,
    /// Buffers with nothing in them.
    free: Vec<Buffer<'a>>,
    /// What a lost device was to read.
    again: Vec<Request<'a>>,
    /// What was read ahead of its turn, by its place in the image.
    early: BTreeMap<u64, Request<'a>>,
    /// What is hashed and waits for room.
    to_write: VecDeque<Request<'a>>,
    /// Bytes of the image whose reading has begun, that are hashed, that are written.
    begun: u64,
    hashed: u64,
    written: u64,
    flushed: bool,
    hash: Sha256,
    requests: u64,
    completed: u64,
    waits_for_room: u64,
}

impl<'a> Pipeline<'a> {
    pub(super) fn new(arena: &'a PrivateArena, job: CopyJob) -> Result<Self, CopyError> {
        let free = (0..job.shape.depth)
            .map(|_| arena.take(job.shape.request).map(Buffer::Private))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            job,
            free,
            again: Vec::new(),
            early: BTreeMap::new(),
            to_write: VecDeque::new(),
            begun: 0,
            hashed: 0,
            written: 0,
            flushed: false,
            hash: Sha256::new(),
            requests: 0,
            completed: 0,
            waits_for_room: 0,
        })
    }

    pub(super) fn requests(&self) -> u64 {
        self.requests
    }

    /// Requests that were carried out.
    pub(super) fn completed(&self) -> u64 {
        self.completed
    }

    /// Takes back what a lost device left undone.
    pub(super) fn take_back(&mut self, undone: Vec<Request<'a>>) {
        for request in undone {
            match request.op {
                Op::Read { .. } => self.again.push(request),
                Op::Write { .. } => self.to_write.push_back(request),
                // Asked for again as long as none was answered.
                Op::Flush | Op::Identify => {}
            }
        }
    }

    pub(super) fn waits_for_room(&self) -> u64 {
        self.waits_for_room
    }

    pub(super) fn sha256(self) -> [u8; 32] {
        self.hash.finalize().into()
    }

    /// Copies what is left of the image and flushes, if that was not done.
    pub(super) fn run<I: Hal, O: Hal>(
        &mut self,
        input: &mut Disk<'a, '_, I>,
        output: &mut Disk<'a, '_, O>,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<(), CopyError> {
        let bytes = self.job.bytes;
        while self.written < bytes {
            // From the end of the pipe to its start: what frees room comes first.
            while let Some(done) = output.next_done()? {
                let request = well_done(done, "output disk")?;
                self.completed += 1;
                self.written += len(&request);
                self.free.extend(request.data);
                progress(Progress { written: self.written, bytes });
            }
            while let Some(done) = input.next_done()? {
                let request = well_done(done, "input disk")?;
                self.completed += 1;
                self.early.insert(place(request.op), request);
            }
            self.hash_what_is_next();
            self.write(output)?;
            self.read(input)?;
            if self.written < bytes {
                if input.in_flight() + output.in_flight() == 0 {
                    return Err(CopyError::NoRoom { request: self.job.shape.request });
                }
                wait(&mut [&mut *input, &mut *output], self.job.patience)?;
            }
        }
        if !self.flushed {
            self.flush(input, output)?;
            self.flushed = true;
        }
        Ok(())
    }

    fn hash_what_is_next(&mut self) {
        while let Some(request) = self.early.remove(&self.hashed) {
            let Request { data: Some(Buffer::Private(data)), len, .. } = request else { continue };
            self.hash.update(data.bytes().get(..len).unwrap_or_default());
            let sector = self.hashed / SECTOR as u64;
            self.hashed += len as u64;
            self.to_write.push_back(Request::write(sector, data, len));
        }
    }

    fn write<O: Hal>(&mut self, output: &mut Disk<'a, '_, O>) -> Result<(), CopyError> {
        while let Some(request) = self.to_write.pop_front() {
            match output.submit(request)? {
                Submitted::Taken => self.requests += 1,
                Submitted::NoRoom(request) => {
                    self.waits_for_room += 1;
                    self.to_write.push_front(request);
                    break;
                }
            }
        }
        Ok(())
    }

    fn read<I: Hal>(&mut self, input: &mut Disk<'a, '_, I>) -> Result<(), CopyError> {
        while let Some(request) = self.again.pop() {
            match input.submit(request)? {
                Submitted::Taken => self.requests += 1,
                Submitted::NoRoom(request) => {
                    self.waits_for_room += 1;
                    self.again.push(request);
                    return Ok(());
                }
            }
        }
        while self.begun < self.job.bytes {
            let Some(buffer) = self.free.pop() else { break };
            let left = usize::try_from(self.job.bytes - self.begun).unwrap_or(usize::MAX);
            let len = left.min(self.job.shape.request);
            let sector = self.begun / SECTOR as u64;
            match input.submit(Request::read(sector, buffer, len))? {
                Submitted::Taken => {
                    self.begun += len as u64;
                    self.requests += 1;
                }
                Submitted::NoRoom(request) => {
                    self.waits_for_room += 1;
                    self.free.extend(request.data);
                    break;
                }
            }
        }
        Ok(())
    }

    /// What was written is not safe before the device says so.
    fn flush<I: Hal, O: Hal>(
        &mut self,
        input: &mut Disk<'a, '_, I>,
        output: &mut Disk<'a, '_, O>,
    ) -> Result<(), CopyError> {
        if !output.front().can_flush() {
            // A disk without a cache: what it has taken is stored.
            return Ok(());
        }
        let Submitted::Taken = output.submit(Request::flush())? else {
            return Err(CopyError::NoRoom { request: self.job.shape.request });
        };
        self.requests += 1;
        loop {
            wait(&mut [&mut *input, &mut *output], self.job.patience)?;
            if let Some(done) = output.next_done()? {
                well_done(done, "output disk")?;
                self.completed += 1;
                return Ok(());
            }
            if input.next_done()?.is_some() {
                // It has nothing of ours: `next_done` says so.
                continue;
            }
        }
    }
}

fn well_done<'a>(done: Done<'a>, disk: &'static str) -> Result<Request<'a>, DiskError> {
    match done.status {
        Status::Ok => Ok(done.request),
        status => Err(DiskError::Io { disk, op: done.request.op, status }),
    }
}

fn len(request: &Request<'_>) -> u64 {
    request.len as u64
}

/// Where in the image a request begins, in bytes.
fn place(op: Op) -> u64 {
    match op {
        Op::Read { sector } | Op::Write { sector } => sector.saturating_mul(SECTOR as u64),
        Op::Flush | Op::Identify => 0,
    }
}
