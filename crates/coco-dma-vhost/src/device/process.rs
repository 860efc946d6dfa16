//! A running device process and everything that may be asked of it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::Child;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::listener::{Door, left, wait};
use super::spawn::{SpawnError, Started, spawn};
use super::words::Words;
use super::{DeviceError, Exit, Launch, Separation, launch, maps};

/// How long a new process may take from its fork to the execution of its program, which is
/// milliseconds on an idle machine.
const START: Duration = Duration::from_secs(10);
/// How long a device may take to answer a new connection, its own start included.
const ANSWER: Duration = Duration::from_secs(10);
/// How long it may take to end when asked to (it may have data to write back).
const END: Duration = Duration::from_secs(3);
/// How long the kernel may take to end it when killed.
const KILL: Duration = Duration::from_secs(5);

/// A process that serves virtio-blk devices over vhost-user; a direct child of this process.
///
/// It ends with this value, and with our process, however that ends. Nothing of it is left then:
/// no process, no socket, no file.
#[derive(Debug)]
pub struct DeviceProcess {
    child: Mutex<Child>,
    pid: u32,
    /// Becomes readable when the process has ended.
    ended: OwnedFd,
    doors: Vec<Door>,
    words: Words,
    separation: Separation,
}

impl DeviceProcess {
    /// Starts the process. Blocks until it has been executed, which is before it is ready
    /// ([`connect`](Self::connect) waits for that): for 10 seconds at most, and for 5 more to
    /// kill one that was not.
    ///
    /// # Errors
    ///
    /// Nothing to serve, an image that cannot be opened or is none, a program that is missing or
    /// cannot be executed, no place for a socket; [`DeviceError::Stuck`] where the process was
    /// stopped, or waits for the disk of its program, before it executes it.
    pub fn start(launch: &Launch) -> Result<Self, DeviceError> {
        if launch.exports.is_empty() {
            return Err(DeviceError::NoExport);
        }
        let mut doors = (launch.exports.iter())
            .map(|_| Door::open().map_err(|source| DeviceError::Listener { source }))
            .collect::<Result<Vec<_>, _>>()?;
        let prepared = launch::prepare(launch, &doors)?;
        let launch::Prepared { command, program, separation, images } = prepared;
        let started = spawn(command, START);
        // The process has its own descriptors of them now.
        drop(images);
        let Started { child, ended, words } = started.map_err(|error| match error {
            SpawnError::Refused(source) => DeviceError::Spawn { program, source },
            SpawnError::Stuck { pid } => DeviceError::Stuck { program, pid, waited: START },
        })?;
        doors.iter_mut().for_each(Door::hand_over);
        let pid = child.id();
        Ok(Self { child: Mutex::new(child), pid, ended, doors, words, separation })
    }

    /// Opens a fresh connection to an export, counted from 0, that the device has accepted and
    /// answers. Blocks for 10 seconds at most. The stream blocks and has no timeout.
    ///
    /// # Errors
    ///
    /// [`DeviceError::Died`] with the process's last words, [`DeviceError::Unanswered`] when it
    /// still serves an earlier connection of this export.
    pub fn connect(&self, export: usize) -> Result<UnixStream, DeviceError> {
        self.connect_within(export, ANSWER)
    }

    /// [`connect`](Self::connect) with a patience of one's own.
    ///
    /// # Errors
    ///
    /// As `connect`.
    pub fn connect_within(
        &self,
        export: usize,
        patience: Duration,
    ) -> Result<UnixStream, DeviceError> {
        let count = self.doors.len();
        let door = self.doors.get(export).ok_or(DeviceError::NoSuchExport { export, count })?;
        let pid = self.pid;
        match door.connect(&self.ended, Instant::now() + patience) {
            Ok(Some(stream)) => Ok(stream),
            Ok(None) => Err(DeviceError::Unanswered { export, pid, waited: patience }),
            Err(source) => {
                // A process that just closed its sockets is about to be gone: wait for the reason.
                let _ = wait(&[self.ended.as_fd()], Duration::from_millis(500));
                match self.poll_exit() {
                    Some(exit) => Err(DeviceError::Died { pid, exit }),
                    None => Err(DeviceError::Connect { export, pid, source }),
                }
            }
        }
    }

    /// The process id. It stays this process's, even when it has ended, as long as `self` lives.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// What keeps the process away from memory that was not shared with it.
    #[must_use]
    pub fn separation(&self) -> Separation {
        self.separation
    }

    /// What the process has mapped of memory that others can share: the lines of
    /// `/proc/PID/maps` that are no private mappings of its own (program, libraries, heap) and
    /// no kernel rings. This is what it sees of our memory. Empty when it has ended.
    ///
    /// # Errors
    ///
    /// [`DeviceError::Mappings`] when `/proc` does not say.
    pub fn mappings(&self) -> Result<Vec<String>, DeviceError> {
        let uid = match self.separation {
            Separation::OtherUid { uid } => Some(uid),
            _ => None,
        };
        let read = maps::read(self.pid, uid);
        // Looked at after reading: until it is reaped, which is here, the number is its own.
        if self.poll_exit().is_some() {
            return Ok(Vec::new());
        }
        match read {
            Ok(text) => Ok(maps::shared(&text)),
            Err(source) => Err(DeviceError::Mappings { pid: self.pid, source }),
        }
    }

    /// A descriptor that becomes readable when the process has ended, for `poll` and the like.
    #[must_use]
    pub fn exit_fd(&self) -> BorrowedFd<'_> {
        self.ended.as_fd()
    }

    /// How the process ended, if it has. Does not wait for that (but, once it has, up to half a
    /// second for its last words).
    pub fn poll_exit(&self) -> Option<Exit> {
        let status = {
            let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
            child.try_wait().ok().flatten()?
        };
        Some(Exit { status, line: self.words.last() })
    }

    /// What it has written to standard error so far: the last 64 lines, oldest first, cut to 512
    /// bytes each, without control characters. Both kinds of device say why they refuse a
    /// descriptor before they close the connection, so after a hang-up the reason is the last.
    #[must_use]
    pub fn last_words(&self) -> Vec<String> {
        self.words.lines()
    }

    /// Ends the process: asks it to, and kills it after 3 seconds. Close connections first, so
    /// that it need not wait for them.
    ///
    /// # Errors
    ///
    /// [`DeviceError::Unstoppable`] when not even being killed ended it.
    pub fn stop(self) -> Result<Exit, DeviceError> {
        self.end(&[(Signal::TERM, END), (Signal::KILL, KILL)])
    }

    /// Kills the process and waits until it has ended, for 5 seconds at most. What it was doing
    /// to images and shared memory is done or never will be, when this returns well.
    ///
    /// # Errors
    ///
    /// [`DeviceError::Unstoppable`].
    pub fn kill(&self) -> Result<Exit, DeviceError> {
        self.end(&[(Signal::KILL, KILL)])
    }

    fn end(&self, steps: &[(Signal, Duration)]) -> Result<Exit, DeviceError> {
        for &(signal, patience) in steps {
            // It may have ended already: then there is nobody to tell.
            let _ = rustix::process::pidfd_send_signal(&self.ended, signal);
            let deadline = Instant::now() + patience;
            loop {
                if let Some(exit) = self.poll_exit() {
                    return Ok(exit);
                }
                let pause = left(deadline);
                if pause.is_zero() {
                    break;
                }
                let _ = wait(&[self.ended.as_fd()], pause);
            }
        }
        Err(DeviceError::Unstoppable { pid: self.pid, waited: KILL })
    }
}

impl Drop for DeviceProcess {
    fn drop(&mut self) {
        // Whoever wants to know how it ended calls `stop`, which has reaped it by now.
        let _ = self.end(&[(Signal::TERM, END), (Signal::KILL, KILL)]);
    }
}
