//! Waiting for completions, with an eye on the device's life.

use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use virtio_drivers::Hal;

use super::{Disk, DiskError};
use crate::device::DeviceProcess;
use crate::front::{Front, FrontError, Until, wait as poll};

/// A disk of any `Hal`, for [`wait`].
pub trait Line {
    /// Its name.
    fn name(&self) -> &'static str;
    /// Its connection.
    fn front(&self) -> &Front<'_>;
    /// Its device process.
    fn process(&self) -> &DeviceProcess;
    /// Requests that the device has.
    fn in_flight(&self) -> usize;
    /// Whether one of them is done.
    fn has_done(&self) -> bool;
    /// Tells the device of what was submitted.
    fn kick(&mut self);
}

impl<H: Hal> Line for Disk<'_, '_, H> {
    fn name(&self) -> &'static str {
        self.on.name
    }

    fn front(&self) -> &Front<'_> {
        &self.front
    }

    fn process(&self) -> &DeviceProcess {
        self.on.process
    }

    fn in_flight(&self) -> usize {
        self.in_flight
    }

    fn has_done(&self) -> bool {
        self.queue.can_pop()
    }

    fn kick(&mut self) {
        Disk::kick(self);
    }
}

/// Kicks the devices and waits until one of the disks has a request that is done, for `patience`
/// at most. What is done is reported before any trouble is: a device may have finished its work
/// and died.
///
/// # Errors
///
/// [`DiskError::Lost`] when a device hung up or its process ended, [`DiskError::Protocol`] when
/// it declared its queue broken, [`DiskError::Timeout`].
pub fn wait(disks: &mut [&mut dyn Line], patience: Duration) -> Result<(), DiskError> {
    disks.iter_mut().for_each(|disk| disk.kick());
    // A look costs no system call, and with many requests in flight it is mostly enough.
    if disks.iter().any(|disk| disk.has_done()) {
        return Ok(());
    }
    let deadline = Instant::now() + patience;
    loop {
        // Heard first, then looked: what is done after this look calls again.
        disks.iter().for_each(|disk| disk.front().hear_call());
        if disks.iter().any(|disk| disk.has_done()) {
            return Ok(());
        }
        let signs: Vec<(BorrowedFd<'_>, Until)> = (disks.iter())
            .flat_map(|disk| {
                let [call, error, end] = disk.front().signs();
                [call, error, end, (disk.process().exit_fd(), Until::Readable)]
            })
            .collect();
        let left = deadline.saturating_duration_since(Instant::now());
        let seen = poll(&signs, left).map_err(DiskError::Wait)?;
        if disks.iter().any(|disk| disk.has_done()) {
            return Ok(());
        }
        for (disk, seen) in disks.iter().zip(seen.chunks(4)) {
            match seen {
                [_, _, end, exit] if *end || *exit => {
                    return Err(lost(disk.process(), disk.name()));
                }
                [_, true, _, _] => {
                    let (disk, what) = (disk.name(), "it declared its queue broken");
                    return Err(DiskError::Protocol { disk, what });
                }
                _ => {}
            }
        }
        if left.is_zero() {
            let late = disks.iter().max_by_key(|disk| disk.in_flight());
            let (disk, in_flight) =
                late.map_or(("no disk", 0), |disk| (disk.name(), disk.in_flight()));
            return Err(DiskError::Timeout { disk, in_flight, waited: patience });
        }
    }
}

/// Why the device of a disk is gone, in its own words where it left any.
pub(crate) fn lost(process: &DeviceProcess, disk: &'static str) -> DiskError {
    // A process that hung up may be about to end, or to say why not.
    let _ = poll(&[(process.exit_fd(), Until::Readable)], Duration::from_millis(300));
    let how = match (process.poll_exit(), process.last_words().pop()) {
        (Some(exit), _) => exit.to_string(),
        (None, Some(line)) => format!("closed the connection, its last words: {line}"),
        (None, None) => "closed the connection without a word".to_owned(),
    };
    DiskError::Lost { disk, pid: process.pid(), how }
}

/// The cause behind a connection that failed: the device's death, or what the connection says.
pub(super) fn blame(process: &DeviceProcess, disk: &'static str, source: FrontError) -> DiskError {
    match source {
        FrontError::Failed { .. } => match lost(process, disk) {
            lost if process.poll_exit().is_some() => lost,
            _ => DiskError::Front { disk, source },
        },
        _ => DiskError::Front { disk, source },
    }
}
