//! The device as `vhost-user-backend` wants it: features, configuration, and a worker that takes
//! requests off the ring.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vhost::vhost_user::message::VhostUserProtocolFeatures as Protocol;
use vhost_user_backend::{ShutdownHandle, VhostUserBackend, VringRwLock, VringT};
use virtio_bindings::bindings::virtio_blk::{
    VIRTIO_BLK_F_BLK_SIZE, VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_F_RO, VIRTIO_BLK_F_SEG_MAX,
};
use virtio_bindings::bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::bindings::virtio_ring::{
    VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC,
};
use virtio_queue::{Error as QueueError, QueueOwnedT};
use vm_memory::{GuestAddressSpace, GuestMemoryAtomic, GuestMemoryMmap};
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::event::{EventConsumer, EventNotifier};

use super::descriptors::ExitEvent;
use super::disk::Disk;
use super::request::{Refusal, Request};
use super::say;

/// The bit with which a vhost-user device offers protocol features.
const PROTOCOL_FEATURES: u32 = 30;
/// The longest ring.
const MAX_QUEUE: usize = 1024;
/// Requests that are served before memory may change and completions are told.
const BATCH: usize = 16;
/// Bytes of `struct virtio_blk_config` that are offered, up to `num_queues`.
const CONFIG: usize = 36;

/// One disk on one connection.
pub(super) struct Device {
    disk: Arc<Disk>,
    memory: GuestMemoryAtomic<GuestMemoryMmap>,
    /// Held while shared memory is used, so that a region that was taken away is not.
    working: Mutex<()>,
    /// How many wait for `working` to change the memory; the worker lets them go first.
    waiting: AtomicUsize,
    closing: AtomicBool,
    hang_up: Mutex<Option<ShutdownHandle>>,
    pub(super) exit: ExitEvent,
}

impl Device {
    pub(super) fn new(disk: Arc<Disk>, memory: GuestMemoryAtomic<GuestMemoryMmap>) -> Self {
        Self {
            disk,
            memory,
            working: Mutex::new(()),
            waiting: AtomicUsize::new(0),
            closing: AtomicBool::new(false),
            hang_up: Mutex::new(None),
            exit: ExitEvent::new(),
        }
    }

    /// Hands over what closes the connection; closes it if that was wanted already.
    pub(super) fn attach(&self, hang_up: Option<ShutdownHandle>) {
        let mut held = self.hang_up.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_closing() {
            hang_up.iter().for_each(ShutdownHandle::shutdown);
        }
        *held = hang_up;
    }

    /// Closes the connection and lets the worker come to an end, whatever the ring holds.
    pub(super) fn close(&self) {
        let held = self.hang_up.lock().unwrap_or_else(PoisonError::into_inner);
        self.closing.store(true, Ordering::Release);
        held.iter().for_each(ShutdownHandle::shutdown);
    }

    fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    fn work(&self) -> MutexGuard<'_, ()> {
        self.working.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until no request is being served; the ones after it see the present memory.
    fn settle(&self) {
        self.waiting.fetch_add(1, Ordering::AcqRel);
        drop(self.work());
        self.waiting.fetch_sub(1, Ordering::AcqRel);
    }

    /// Serves until the ring is empty. A front end can keep it busy for ever, but only as long as
    /// its connection is open.
    fn serve_ring(&self, vring: &VringRwLock) -> Result<(), Refusal> {
        loop {
            let done = {
                let _work = self.work();
                vring.disable_notification().map_err(ring)?;
                let mut served = 0;
                while served < BATCH && self.serve_one(vring)? {
                    served += 1;
                }
                if served > 0 && vring.needs_notification().map_err(ring)? {
                    vring.signal_used_queue().map_err(ring)?;
                }
                served < BATCH && !vring.enable_notification().map_err(ring)?
            };
            if done || self.is_closing() {
                return Ok(());
            }
            while self.waiting.load(Ordering::Acquire) > 0 {
                std::thread::yield_now();
            }
        }
    }

    /// Serves one request; false when there is none.
    fn serve_one(&self, vring: &VringRwLock) -> Result<bool, Refusal> {
        let memory = self.memory.memory();
        let chain = {
            let mut state = vring.get_mut();
            match state.get_queue_mut().iter(memory.clone()) {
                Ok(mut chains) => chains.next(),
                // Stopped a moment ago.
                Err(QueueError::QueueNotReady) => None,
                Err(error) => return Err(ring(error)),
            }
        };
        let Some(chain) = chain else { return Ok(false) };
        let head = chain.head_index();
        let written = Request::parse(chain, &memory)?.execute(&self.disk, &memory)?;
        vring.add_used(head, written).map_err(ring)?;
        Ok(true)
    }

    fn config(&self) -> [u8; CONFIG] {
        let mut config = [0; CONFIG];
        let mut put = |at: usize, value: &[u8]| {
            if let Some(field) = config.get_mut(at..at + value.len()) {
                field.copy_from_slice(value);
            }
        };
        put(0, &self.disk.sectors().to_le_bytes());
        // seg_max: header and status take two descriptors of the shortest usual ring.
        put(12, &126_u32.to_le_bytes());
        put(20, &512_u32.to_le_bytes()); // blk_size
        put(34, &1_u16.to_le_bytes()); // num_queues
        config
    }
}

fn ring(error: impl std::fmt::Display) -> Refusal {
    Refusal::Ring(error.to_string())
}

impl VhostUserBackend for Device {
    type Bitmap = ();
    type Vring = VringRwLock;

    fn num_queues(&self) -> usize {
        1
    }

    fn max_queue_size(&self) -> usize {
        MAX_QUEUE
    }

    fn features(&self) -> u64 {
        let read_only = (!self.disk.is_writable()).then_some(VIRTIO_BLK_F_RO);
        [
            VIRTIO_F_VERSION_1,
            VIRTIO_RING_F_EVENT_IDX,
            VIRTIO_RING_F_INDIRECT_DESC,
            VIRTIO_BLK_F_SEG_MAX,
            VIRTIO_BLK_F_BLK_SIZE,
            VIRTIO_BLK_F_FLUSH,
            PROTOCOL_FEATURES,
        ]
        .into_iter()
        .chain(read_only)
        .fold(0, |features, bit| features | 1 << bit)
    }

    fn protocol_features(&self) -> Protocol {
        Protocol::MQ | Protocol::CONFIG | Protocol::REPLY_ACK | Protocol::CONFIGURE_MEM_SLOTS
    }

    fn set_event_idx(&self, _enabled: bool) {
        // The ring itself was told by the caller.
    }

    fn get_config(&self, offset: u32, size: u32) -> Vec<u8> {
        // Bytes past the end read as zeros; an absurd size is answered with an error, by way of
        // an answer of another length.
        let (Ok(offset), Ok(size)) = (usize::try_from(offset), usize::try_from(size)) else {
            return Vec::new();
        };
        let config = self.config().into_iter().chain(std::iter::repeat(0));
        config.skip(offset.min(CONFIG)).take(size.min(4096)).collect()
    }

    fn update_memory(&self, _memory: GuestMemoryAtomic<GuestMemoryMmap>) -> io::Result<()> {
        // The new table is in place. The answer to the front end means that nothing uses the old
        // one any more.
        self.settle();
        Ok(())
    }

    fn stop_vring(&self, _queue: u32) -> io::Result<()> {
        self.settle();
        Ok(())
    }

    fn exit_event(&self, _thread: usize) -> Option<(EventConsumer, EventNotifier)> {
        self.exit.make()
    }

    fn handle_event(
        &self,
        event: u16,
        _set: EventSet,
        vrings: &[VringRwLock],
        _thread: usize,
    ) -> io::Result<()> {
        let Some(vring) = vrings.get(usize::from(event)) else { return Ok(()) };
        if self.is_closing() {
            return Ok(());
        }
        if let Err(refusal) = self.serve_ring(vring) {
            // An error returned from here would end the worker silently and leave the front end
            // waiting.
            say(refusal);
            self.close();
        }
        Ok(())
    }
}
