//! Requests as `virtio-drivers` sees them: chains of slices.
// UNSAFETY: a queue keeps addresses of buffers beyond the call that it is given them in.
#![expect(unsafe_code)]

use core::mem::ManuallyDrop;
use core::slice;

use coco_dma::reason::Refuse;
use coco_dma_virtio::Adaptor;
use virtio_drivers::queue::VirtQueue;
use virtio_drivers::{Hal, Result};

use super::QUEUE;
use super::request::{HEADER, Op, Request};
use crate::memory::ArenaBuffer;

/// Room for a header and a status.
pub(super) type Frame<'a> = ArenaBuffer<'a>;

/// A request that the device has, with everything that it reads and writes. Nobody touches the
/// buffers until it is done: they are owned in here.
#[derive(Debug)]
pub(super) struct Flight<'a> {
    pub(super) request: Request<'a>,
    /// Header and status. They are private memory and bounce like the data: a device that
    /// writes a status twice, or a header at all, changes nothing that we look at.
    pub(super) frame: ArenaBuffer<'a>,
}

/// No status that a device gives: what an unwritten one must not look like.
const NO_STATUS: u8 = 0xff;

impl<'a> Flight<'a> {
    pub(super) fn new(request: Request<'a>, mut frame: ArenaBuffer<'a>) -> Self {
        let content = request.op.header().into_iter().chain([NO_STATUS]);
        frame.bytes_mut().iter_mut().zip(content).for_each(|(to, from)| *to = from);
        Self { request, frame }
    }

    /// What the device said.
    pub(super) fn status(&self) -> u8 {
        self.frame.bytes().get(HEADER).copied().unwrap_or(NO_STATUS)
    }

    /// How many bytes the device has to write for the request to be done.
    pub(super) fn writable(&self) -> usize {
        match self.request.op {
            Op::Read { .. } => self.request.len + 1,
            Op::Write { .. } | Op::Flush => 1,
        }
    }

    /// Asks whether everything in the request could be mapped now.
    pub(super) fn ask(&self, adaptor: &Adaptor<'_>) -> core::result::Result<(), Refuse> {
        // Where a buffer begins makes no difference to the room that it takes.
        let (header, status) = (self.frame.raw(HEADER), self.frame.raw(1));
        match &self.request.data {
            Some(data) => adaptor.room_for(&[header, data.raw(self.request.len), status]),
            None => adaptor.room_for(&[header, status]),
        }
    }

    /// Puts the request on the queue; answers with its token.
    pub(super) fn add<H: Hal>(&mut self, queue: &mut VirtQueue<H, QUEUE>) -> Result<u16> {
        // SAFETY: the buffers belong to this value, which its disk keeps, untouched, until
        // `pop` succeeded with the token or the device was stopped.
        self.chain(|inputs, outputs| unsafe { queue.add(inputs, outputs) })
    }

    /// Takes the request back when the device is done with it; answers with the number of bytes
    /// that the device says it wrote.
    pub(super) fn pop<H: Hal>(
        &mut self,
        queue: &mut VirtQueue<H, QUEUE>,
        token: u16,
    ) -> Result<u32> {
        // SAFETY: `chain` makes the same slices as when the request was added with this token.
        self.chain(|inputs, outputs| unsafe { queue.pop_used(token, inputs, outputs) })
    }

    fn chain<R>(
        &mut self,
        run: impl for<'x> FnOnce(&'x [&'x [u8]], &'x mut [&'x mut [u8]]) -> R,
    ) -> R {
        let frame = self.frame.bytes_mut();
        let (header, rest) = frame.split_at_mut(HEADER.min(frame.len()));
        let (status, _) = rest.split_at_mut(1.min(rest.len()));
        let data = match &mut self.request.data {
            Some(data) => {
                let bytes = data.raw(self.request.len);
                // SAFETY: the bytes are the buffer's own, borrowed alone through `self`.
                unsafe { slice::from_raw_parts_mut(bytes.cast().as_ptr(), bytes.len()) }
            }
            None => &mut [],
        };
        match self.request.op {
            Op::Read { .. } => run(&[header], &mut [data, status]),
            Op::Write { .. } => run(&[header, data], &mut [status]),
            Op::Flush => run(&[header], &mut [status]),
        }
    }
}

/// The end of a queue. If the device has stopped, its memory is freed and what the device still
/// had is unmapped: the device of the layer is revoked. Else all of it stays taken, until whoever
/// knows better revokes that device.
pub(super) fn end<H: Hal>(
    queue: &mut ManuallyDrop<VirtQueue<H, QUEUE>>,
    adaptor: &Adaptor<'_>,
    stopped: bool,
) {
    if stopped {
        // SAFETY: called once, by the disk's `Drop`, which touches the queue no more.
        unsafe { ManuallyDrop::drop(queue) };
        // SAFETY: the device uses nothing of it any more, and the adaptor is this disk's alone. No
        // byte is copied, so that it does not matter whose the private buffers are now.
        unsafe { adaptor.revoke() };
    }
}
