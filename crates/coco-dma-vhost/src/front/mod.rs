//! The vhost-user front end: one connection to one virtio-blk device in another process.
//!
//! A [`Front`] gives the device the machine's shared memory and nothing else, at the addresses
//! that the platform's DMA form has for it, and serves `virtio-drivers` as its `Transport`. As long
//! as it lives the device is told of every region that the machine shares or reclaims.
//! Two address spaces are in play and never one: descriptors carry DMA forms, and the rings are
//! named by front-end addresses. The latter are invented here too: a device is told nothing of
//! where anything lies in this process.

mod error;
mod events;
mod greeting;
mod line;
mod link;
mod transport;

use core::fmt;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VringConfigData};
use virtio_bindings::bindings::virtio_blk as blk;
use virtio_drivers::transport::DeviceStatus;

use crate::machine::{Peer, UserMachine};
pub use error::FrontError;
use events::{Events, descriptor};
pub(crate) use events::{Until, wait};
use greeting::{CONFIG, Greeting, PROTOCOL_FEATURES};
use line::Line;

/// Where the parts of a split queue lie, as the device sees them, and how long it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct QueueAt {
    pub(crate) size: u16,
    pub(crate) descriptors: u64,
    pub(crate) available: u64,
    pub(crate) used: u64,
}

/// One connection. Messages block, 5 seconds at most each.
pub struct Front<'m> {
    machine: &'m UserMachine,
    line: Arc<Line>,
    events: Events,
    offered: u64,
    accepted: u64,
    config: [u8; CONFIG],
    status: DeviceStatus,
    queue: bool,
    error: Option<FrontError>,
}

impl<'m> Front<'m> {
    /// Makes the acquaintance of the disk at the other end of `stream`. It is given the machine's
    /// shared memory when the driver accepts its features.
    ///
    /// # Errors
    ///
    /// Any [`FrontError`]. The connection is closed then.
    pub fn connect(stream: UnixStream, machine: &'m UserMachine) -> Result<Self, FrontError> {
        Self::new(Greeting::exchange(stream)?, machine)
    }

    /// The same for a device of any kind that offers less: it has no configuration, and is told of
    /// the pool alone and once, so that no region can be shared while it is connected.
    ///
    /// # Errors
    ///
    /// As for [`connect`](Self::connect).
    pub fn connect_once(stream: UnixStream, machine: &'m UserMachine) -> Result<Self, FrontError> {
        Self::new(Greeting::exchange_little(stream)?, machine)
    }

    fn new(greeting: Greeting, machine: &'m UserMachine) -> Result<Self, FrontError> {
        let Greeting { link, offered, region_limit, config } = greeting;
        let events =
            Events::new().map_err(|source| FrontError::Kernel { what: "events", source })?;
        let line = Arc::new(Line { link, region_limit });
        let (accepted, status, queue) = (0, DeviceStatus::empty(), false);
        Ok(Self { machine, line, events, offered, accepted, config, status, queue, error: None })
    }

    /// Accepts features of those offered and hands over the shared memory.
    pub(crate) fn accept(&mut self, features: u64) -> Result<(), FrontError> {
        // Protocol features are a matter between the two ends, not the driver's.
        self.accepted = (features & self.offered) | bit(PROTOCOL_FEATURES);
        let accepted = self.accepted;
        self.line.link.ask("SET_FEATURES", |device| device.set_features(accepted))?;
        self.machine.introduce(self.peer(), |windows| self.line.tell(windows))
    }

    fn peer(&self) -> Arc<dyn Peer> {
        Arc::<Line>::clone(&self.line)
    }

    /// Starts the queue. There is one on a connection.
    pub(crate) fn start_queue(&mut self, at: &QueueAt) -> Result<(), FrontError> {
        let place = |address| {
            let found = self
                .machine
                .windows(|windows| windows.iter().find_map(|window| window.front_of(address)));
            found.ok_or(FrontError::Queue { address })
        };
        let rings = VringConfigData {
            queue_max_size: at.size,
            queue_size: at.size,
            flags: 0,
            desc_table_addr: place(at.descriptors)?,
            used_ring_addr: place(at.used)?,
            avail_ring_addr: place(at.available)?,
            log_addr: None,
        };
        if self.queue {
            return Err(FrontError::Queue { address: at.descriptors });
        }
        let (link, events) = (&self.line.link, &self.events);
        link.ask("SET_VRING_NUM", |device| device.set_vring_num(0, at.size))?;
        link.ask("SET_VRING_ADDR", |device| device.set_vring_addr(0, &rings))?;
        link.ask("SET_VRING_BASE", |device| device.set_vring_base(0, 0))?;
        link.ask("SET_VRING_CALL", |device| device.set_vring_call(0, &events.call))?;
        link.ask("SET_VRING_ERR", |device| device.set_vring_err(0, &events.error))?;
        link.ask("SET_VRING_KICK", |device| device.set_vring_kick(0, &events.kick))?;
        link.ask("SET_VRING_ENABLE", |device| device.set_vring_enable(0, true))?;
        self.queue = true;
        Ok(())
    }

    /// Stops the queue: when this returns well, the device has stopped using it. Blocks for 2
    /// seconds at most.
    pub(crate) fn stop_queue(&mut self) -> Result<(), FrontError> {
        if core::mem::take(&mut self.queue) {
            let stop = |device: &mut Frontend| device.get_vring_base(0).map(|_| ());
            self.line.link.ask_within(Duration::from_secs(2), "GET_VRING_BASE", stop)?;
        }
        Ok(())
    }

    /// Ends the conversation and waits until the device has closed its side too, which it does
    /// when it is done with our memory. False where it did not within `patience`.
    pub(crate) fn hang_up(&self, patience: Duration) -> bool {
        self.line.link.say_goodbye();
        let deadline = Instant::now() + patience;
        loop {
            // A connection that we shut down ourselves looks hung up and says nothing.
            if self.line.link.is_cut_off() {
                return false;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            match wait(&[(self.socket(), Until::HungUp)], left) {
                Ok(hung) if hung.contains(&true) => return !self.line.link.is_cut_off(),
                Ok(_) if left.is_zero() => return false,
                Ok(_) => {}
                Err(_) => return false,
            }
        }
    }

    /// The first error of a `Transport` call since the last time this was asked.
    ///
    /// # Errors
    ///
    /// That error.
    pub fn check(&mut self) -> Result<(), FrontError> {
        self.error.take().map_or(Ok(()), Err)
    }

    /// The disk's size in sectors of 512 bytes, as the device says.
    #[must_use]
    pub fn sectors(&self) -> u64 {
        let (bytes, _) = self.config.split_at(8);
        bytes.try_into().map_or(0, u64::from_le_bytes)
    }

    /// Whether the device takes no writes.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.offered & bit(blk::VIRTIO_BLK_F_RO) != 0
    }

    /// Whether the device has a cache that flushes.
    #[must_use]
    pub fn can_flush(&self) -> bool {
        self.offered & bit(blk::VIRTIO_BLK_F_FLUSH) != 0
    }

    /// The features that both sides agreed on.
    #[must_use]
    pub fn features(&self) -> u64 {
        self.accepted
    }

    /// How many memory regions the device takes.
    #[must_use]
    pub fn region_limit(&self) -> u64 {
        self.line.region_limit
    }

    /// Tells the device to look into the available ring.
    pub(crate) fn kick(&self) {
        // Full means that the device was told often enough and has not looked yet.
        let _ = self.events.kick.write(1);
    }

    /// Takes note that the device called.
    pub(crate) fn hear_call(&self) {
        let _ = self.events.call.read();
    }

    /// What to wait for: the call, the queue's error, the end of the connection.
    pub(crate) fn signs(&self) -> [(BorrowedFd<'_>, Until); 3] {
        [
            (descriptor(&self.events.call), Until::Readable),
            (descriptor(&self.events.error), Until::Readable),
            (self.socket(), Until::HungUp),
        ]
    }

    fn socket(&self) -> BorrowedFd<'_> {
        self.line.link.socket()
    }

    fn latch(&mut self, result: Result<(), FrontError>) {
        if let Err(error) = result {
            self.error.get_or_insert(error);
        }
    }
}

impl Drop for Front<'_> {
    fn drop(&mut self) {
        self.machine.forget(&self.peer());
    }
}

pub(crate) const fn bit(number: u32) -> u64 {
    1 << number
}

impl fmt::Debug for Front<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Front")
            .field("offered", &format_args!("{:#x}", self.offered))
            .field("accepted", &format_args!("{:#x}", self.accepted))
            .field("sectors", &self.sectors())
            .field("status", &self.status)
            .field("error", &self.error)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
