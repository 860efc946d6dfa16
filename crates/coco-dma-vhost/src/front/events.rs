//! The event descriptors of a queue, and waiting for several at once.
// UNSAFETY: the event type of the vhost crates knows its descriptor by number only.
#![expect(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use vmm_sys_util::eventfd::EventFd;

/// The three events of one queue.
#[derive(Debug)]
pub(super) struct Events {
    /// Ours: there is something in the available ring.
    pub(super) kick: EventFd,
    /// The device's: there is something in the used ring.
    pub(super) call: EventFd,
    /// The device's: the queue is broken.
    pub(super) error: EventFd,
}

impl Events {
    pub(super) fn new() -> io::Result<Self> {
        let event = || EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC);
        Ok(Self { kick: event()?, call: event()?, error: event()? })
    }
}

/// The descriptor of an event.
pub(super) fn descriptor(event: &EventFd) -> BorrowedFd<'_> {
    // SAFETY: the event owns the descriptor and outlives the borrow.
    unsafe { BorrowedFd::borrow_raw(event.as_raw_fd()) }
}

/// What to wait for on a descriptor.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Until {
    /// There is something to read (of an event or process descriptor: it has happened).
    Readable,
    /// The other side has hung up. Whatever else it sends is left alone.
    HungUp,
}

/// Waits until one of `fds` is as wanted, `patience` at most, and says of each whether it is.
/// May return early with none.
pub(crate) fn wait(fds: &[(BorrowedFd<'_>, Until)], patience: Duration) -> io::Result<Vec<bool>> {
    let mut polled: Vec<PollFd<'_>> = (fds.iter())
        .map(|(fd, until)| {
            let wanted = match until {
                Until::Readable => PollFlags::IN,
                Until::HungUp => PollFlags::RDHUP,
            };
            PollFd::from_borrowed_fd(*fd, wanted)
        })
        .collect();
    // Rounded up, so that the last part of a millisecond is not spent spinning.
    let patience = (patience + Duration::from_millis(1)).min(Duration::from_secs(3600));
    let patience = Timespec::try_from(patience).map_err(io::Error::other)?;
    match rustix::event::poll(&mut polled, Some(&patience)) {
        Ok(_) => Ok(polled.iter().map(|fd| !fd.revents().is_empty()).collect()),
        Err(rustix::io::Errno::INTR) => Ok(vec![false; fds.len()]),
        Err(error) => Err(error.into()),
    }
}
