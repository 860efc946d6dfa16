//! A split ring of one request, written by hand, in coherent memory.
// UNSAFETY: the device writes this memory when it likes, so it is reached by volatile copies.
#![expect(unsafe_code)]

use core::ops::Range;
use core::sync::atomic::{Ordering, fence};
use std::time::{Duration, Instant};

use coco_dma::coherent::RawCoherent;
use coco_dma::device::Device;
use virtio_bindings::bindings::virtio_blk as blk;

use super::AttackError;
use super::shots::DATA;
use super::wait_for_signs;
use crate::device::DeviceProcess;
use crate::disk::lost;
use crate::front::{Front, QueueAt};
use crate::machine::UserMachine;

/// Descriptors of the ring; a request takes three.
const SIZE: u16 = 16;
const AVAILABLE: usize = 0x200;
const USED: usize = 0x400;
const HEADER: usize = 0x800;
const STATUS: usize = 0x900;
/// The buffer of a good request, a page of its own.
const BUFFER: usize = 0x1000;
const BYTES: usize = BUFFER + DATA as usize;

const NEXT: u16 = 1;
const WRITE: u16 = 2;

/// What the status holds before the device writes it.
pub(super) const NO_STATUS: u8 = 0xEE;

/// What the device did with the request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Answer {
    /// Completed it, with this status.
    Done(u8),
    /// Closed the connection.
    HungUp,
    /// Declared the queue broken.
    Broken,
    /// Nothing at all.
    Nothing,
}

/// The ring, with room for one request.
pub(super) struct Ring {
    memory: RawCoherent,
}

impl Ring {
    pub(super) fn new(device: &Device<'_>) -> Result<Self, AttackError> {
        Ok(Self { memory: device.alloc_raw(BYTES, coco_dma::state::Context::Blocking)? })
    }

    /// Gives the memory back. The device has to be done with it: one that is not would write into
    /// what is somebody else's by then.
    pub(super) fn end(self, device: &Device<'_>) {
        // SAFETY: the caller saw to it that the device has stopped, and the pointer ends with
        // `self`. The memory is this device's, so that none comes back.
        let _ = unsafe { device.free_raw(self.memory) };
    }

    fn address(&self, offset: usize) -> u64 {
        self.memory.addr().raw().wrapping_add(offset as u64)
    }

    /// Where its parts lie, as the device sees them.
    pub(super) fn place(&self) -> QueueAt {
        QueueAt {
            size: SIZE,
            descriptors: self.address(0),
            available: self.address(AVAILABLE),
            used: self.address(USED),
        }
    }

    /// The address of a good buffer of 4096 bytes.
    pub(super) fn data(&self) -> u64 {
        self.address(BUFFER)
    }

    /// Which bytes of the region the request may change.
    pub(super) fn bytes(&self, machine: &UserMachine) -> Range<u64> {
        let base = machine.shared().first().map_or(0, |placed| placed.dma.raw());
        let start = self.address(0).wrapping_sub(base);
        start..start.wrapping_add(BYTES as u64)
    }

    /// Makes one request available, whose buffer is `address`.
    pub(super) fn load(&mut self, address: u64, len: u32, device_writes: bool) {
        let kind = if device_writes { blk::VIRTIO_BLK_T_IN } else { blk::VIRTIO_BLK_T_OUT };
        self.put(HEADER, &kind.to_le_bytes());
        self.put(STATUS, &[NO_STATUS]);
        let flags = if device_writes { NEXT | WRITE } else { NEXT };
        self.describe(0, self.address(HEADER), 16, NEXT, 1);
        self.describe(1, address, len, flags, 2);
        self.describe(2, self.address(STATUS), 1, WRITE, 0);
        // The ring's first entry is descriptor 0 already. All of it before the index.
        fence(Ordering::SeqCst);
        self.put(AVAILABLE + 2, &1_u16.to_le_bytes());
        fence(Ordering::SeqCst);
    }

    fn describe(&mut self, number: usize, address: u64, len: u32, flags: u16, next: u16) {
        let at = number * 16;
        self.put(at, &address.to_le_bytes());
        self.put(at + 8, &len.to_le_bytes());
        self.put(at + 12, &flags.to_le_bytes());
        self.put(at + 14, &next.to_le_bytes());
    }

    /// Waits for what becomes of the request.
    pub(super) fn await_answer(
        &self,
        front: &Front<'_>,
        process: &DeviceProcess,
        patience: Duration,
    ) -> Result<Answer, AttackError> {
        let deadline = Instant::now() + patience;
        loop {
            front.hear_call();
            if [self.get(USED + 2), self.get(USED + 3)] != [0, 0] {
                fence(Ordering::SeqCst);
                return Ok(Answer::Done(self.get(STATUS)));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            match wait_for_signs(front, process, left)? {
                // A device that dies refuses nothing.
                [_, _, _, true] => return Err(lost(process, super::NAME).into()),
                // A call without a completion is none: it does not prolong the wait.
                [true, ..] if !left.is_zero() => {}
                [_, _, true, _] => return Ok(Answer::HungUp),
                [_, true, ..] => return Ok(Answer::Broken),
                _ if left.is_zero() => return Ok(Answer::Nothing),
                _ => {}
            }
        }
    }

    fn put(&mut self, offset: usize, bytes: &[u8]) {
        let memory = self.memory.bytes();
        for (place, byte) in (offset..memory.len()).zip(bytes) {
            // SAFETY: `place` lies in the allocation.
            let at = unsafe { memory.cast::<u8>().add(place) };
            // SAFETY: writable memory of ours, bytewise, so that alignment is no matter.
            unsafe { at.write_volatile(*byte) };
        }
    }

    fn get(&self, offset: usize) -> u8 {
        let memory = self.memory.bytes();
        if offset >= memory.len() {
            return 0;
        }
        // SAFETY: the offset lies in the allocation.
        let at = unsafe { memory.cast::<u8>().add(offset) };
        // SAFETY: readable memory of ours; a racing device leaves some byte.
        unsafe { at.read_volatile() }
    }
}
