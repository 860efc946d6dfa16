//! Descriptors that are known by number only.

// UNSAFETY: a number becomes an owned descriptor by our word alone that nobody else owns it.
#![expect(unsafe_code)]

use std::collections::BTreeSet;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use vhost_user_backend::VhostUserDaemon;
use vmm_sys_util::event::{
    EventConsumer, EventFlag, EventNotifier, new_event_consumer_and_notifier,
};

use super::backend::Device;

/// The descriptors that this process was started with, each to be taken once.
#[derive(Debug)]
pub(super) struct Inherited(BTreeSet<RawFd>);

impl Inherited {
    /// Those of `fds` that are open; to be called once, before anything is opened.
    pub(super) fn new(fds: &[RawFd]) -> Self {
        let open = |fd: &&RawFd| {
            // SAFETY: F_GETFD reads a flag and touches no memory; a wrong number gives EBADF.
            **fd > 2 && unsafe { libc::fcntl(**fd, libc::F_GETFD) } >= 0
        };
        Self(fds.iter().filter(open).copied().collect())
    }

    /// Takes one.
    pub(super) fn take(&mut self, fd: RawFd) -> Result<OwnedFd, String> {
        if !self.0.remove(&fd) {
            return Err(format!("descriptor {fd} was not handed down, or is named twice"));
        }
        // SAFETY: it was open when the process began, before anything here could own it, nothing
        // closed it since, and each is taken once.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }
}

/// The event that ends a connection's worker, whose reading end the `vhost-user-backend` crate
/// takes as a number and never closes: one descriptor lost a connection. Closed here.
#[derive(Debug)]
pub(super) struct ExitEvent(AtomicI32);

impl ExitEvent {
    pub(super) fn new() -> Self {
        Self(AtomicI32::new(-1))
    }

    /// Makes the event, for a worker that is about to start. Only one at a time.
    pub(super) fn make(&self) -> Option<(EventConsumer, EventNotifier)> {
        use std::os::fd::AsRawFd;
        let flags = EventFlag::NONBLOCK | EventFlag::CLOEXEC;
        let (consumer, notifier) = new_event_consumer_and_notifier(flags).ok()?;
        self.0.store(consumer.as_raw_fd(), Ordering::Release);
        Some((consumer, notifier))
    }

    /// Ends the worker by dropping its daemon, then closes the reading end.
    pub(super) fn close_after(&self, daemon: VhostUserDaemon<Arc<Device>>) {
        // Joins the worker, which polled the descriptor.
        drop(daemon);
        let fd = self.0.swap(-1, Ordering::AcqRel);
        if fd >= 0 {
            // SAFETY: the crate turned its `EventConsumer` into this number and forgot it; the
            // worker that polled it has ended with the daemon; the swap gives it out once.
            drop(unsafe { OwnedFd::from_raw_fd(fd) });
        }
    }
}
