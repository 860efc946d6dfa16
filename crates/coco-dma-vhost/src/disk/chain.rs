//! Requests as `virtio-drivers` sees them: chains of slices.
// UNSAFETY: a queue keeps addresses of buffers beyond the call that it is given them in.
#![expect(unsafe_code)]

use core::mem::ManuallyDrop;
use core::ptr::NonNull;

use coco_dma::reason::Refuse;
use coco_dma_virtio::Adaptor;
use virtio_drivers::queue::VirtQueue;
use virtio_drivers::{Hal, Result};

use super::Buffer;
use super::QUEUE;
use super::request::{HEADER, Op, Request};

/// A request that the device has, with everything that it reads and writes. Nobody touches the
/// buffers until it is done: they are owned in here.
#[derive(Debug)]
pub(super) struct Flight<'a> {
    pub(super) request: Request<'a>,
    /// Header and status, in memory like the data's. Private ones bounce like the data: a device
    /// that writes a status twice, or a header at all, changes nothing that we look at. Of shared
    /// ones the status is copied once, and the header never read.
    pub(super) frame: Buffer<'a>,
}

/// No status that a device gives: what an unwritten one must not look like.
const NO_STATUS: u8 = 0xff;

impl<'a> Flight<'a> {
    pub(super) fn new(request: Request<'a>, mut frame: Buffer<'a>) -> Self {
        // A frame has room for both.
        let _ = frame.put(0, &request.op.header());
        let _ = frame.put(HEADER, &[NO_STATUS]);
        Self { request, frame }
    }

    /// What the device said.
    pub(super) fn status(&self) -> u8 {
        let [status] = self.frame.get(HEADER).unwrap_or([NO_STATUS]);
        status
    }

    /// How many bytes the device has to write for the request to be done.
    pub(super) fn writable(&self) -> usize {
        match self.request.op {
            Op::Read { .. } | Op::Identify => self.request.len + 1,
            Op::Write { .. } | Op::Flush => 1,
        }
    }

    /// Asks whether everything in the request could be mapped now.
    pub(super) fn ask(&self, adaptor: &Adaptor<'_>) -> core::result::Result<(), Refuse> {
        let (header, data, status) = self.parts();
        match data {
            Some(data) => adaptor.capacity_for(&[header, data, status]),
            None => adaptor.capacity_for(&[header, status]),
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

    /// Where header, data and status lie.
    fn parts(&self) -> (Piece, Option<Piece>, Piece) {
        let (header, rest) = cut(self.frame.raw(), HEADER);
        let (status, _) = cut(rest, 1);
        let data = self.request.data.as_ref().map(|data| cut(data.raw(), self.request.len).0);
        (header, data, status)
    }

    fn chain<R>(
        &mut self,
        run: impl for<'x> FnOnce(&'x [&'x [u8]], &'x mut [&'x mut [u8]]) -> R,
    ) -> R {
        let slice = |mut part: Piece| {
            // SAFETY: the parts are apart, and this value's own, borrowed alone through `self`.
            // Where they are shared memory, a device may be writing: the slices are only named.
            // Neither queue nor layer looks at bytes through them, since shared memory is mapped
            // where it lies.
            unsafe { part.as_mut() }
        };
        let (header, data, status) = self.parts();
        let (header, status) = (slice(header), slice(status));
        let data = data.map_or(&mut [][..], slice);
        match self.request.op {
            Op::Read { .. } | Op::Identify => run(&[header], &mut [data, status]),
            Op::Write { .. } => run(&[header, data], &mut [status]),
            Op::Flush => run(&[header], &mut [status]),
        }
    }
}

/// A part of a buffer.
type Piece = NonNull<[u8]>;

/// The first `at` bytes and the rest.
fn cut(bytes: Piece, at: usize) -> (Piece, Piece) {
    let at = at.min(bytes.len());
    // SAFETY: not past the end.
    let rest = unsafe { bytes.cast::<u8>().add(at) };
    let piece = NonNull::slice_from_raw_parts;
    (piece(bytes.cast(), at), piece(rest, bytes.len() - at))
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
