//! What a device process says on standard error, kept for whoever asks.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags};

use super::listener::wait;

/// The most lines that are kept; older ones go.
const LINES: usize = 64;
/// The most bytes that are kept of a line.
const LINE: usize = 512;

/// The last lines that a process wrote to standard error.
#[derive(Clone, Debug)]
pub(super) struct Words(Arc<(Mutex<Heard>, Condvar)>);

#[derive(Debug)]
struct Heard {
    /// Our end of the pipe, non-blocking; read under the lock only, by whoever comes first.
    pipe: ChildStderr,
    lines: VecDeque<String>,
    current: Vec<u8>,
    ended: bool,
}

impl Words {
    fn lock(&self) -> MutexGuard<'_, Heard> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The lines so far, oldest first; with everything that was written before this call.
    pub(super) fn lines(&self) -> Vec<String> {
        let mut heard = self.lock();
        heard.drain();
        heard.lines.iter().cloned().collect()
    }

    /// The last line, once the process can write no more; waits a moment for that.
    pub(super) fn last(&self) -> Option<String> {
        let heard = self.lock();
        let patience = Duration::from_millis(500);
        let (mut heard, _) = (self.0.1)
            .wait_timeout_while(heard, patience, |heard| !heard.ended)
            .unwrap_or_else(PoisonError::into_inner);
        heard.drain();
        heard.lines.back().cloned()
    }

    /// Collects until the process can write no more.
    fn collect(&self, pipe: &OwnedFd) {
        loop {
            let polled = wait(&[pipe.as_fd()], Duration::from_secs(60));
            let mut heard = self.lock();
            heard.drain();
            if heard.ended || polled.is_err() {
                heard.ended = true;
                self.0.1.notify_all();
                return;
            }
        }
    }
}

impl Heard {
    /// Takes in what the pipe holds.
    fn drain(&mut self) {
        let mut buffer = [0_u8; 1024];
        while !self.ended {
            match self.pipe.read(&mut buffer) {
                Ok(0) => {
                    self.end_line();
                    self.ended = true;
                }
                Ok(count) => self.hear(buffer.get(..count).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    }

    fn hear(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            if byte == b'\n' {
                self.end_line();
            } else if self.current.len() < LINE {
                self.current.push(byte);
            }
        }
    }

    fn end_line(&mut self) {
        let bytes = std::mem::take(&mut self.current);
        // It goes to a terminal in the end: no control characters from a process we do not trust.
        let line: String =
            String::from_utf8_lossy(&bytes).chars().filter(|c| !c.is_control()).collect();
        let line = line.trim();
        if line.is_empty() {
            return;
        }
        if self.lines.len() == LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(line.to_owned());
    }
}

/// Starts `command` with its standard error collected.
///
/// The thread that collects is also the thread that forks, and stays until the process has
/// ended: the kernel's parent-death signal fires when the forking *thread* ends, so a device
/// started by a short-lived thread would die with it.
pub(super) fn spawn(mut command: Command) -> io::Result<(Child, OwnedFd, Words)> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let (send, receive) = mpsc::sync_channel(1);
    thread::Builder::new().name("device words".to_owned()).spawn(move || {
        let started = start(&mut command);
        // What the child inherited stays open in us no longer than needed.
        drop(command);
        let (mine, theirs) = match started {
            Ok(Started { child, ended, words, pipe }) => match ended.try_clone() {
                Ok(watch) => (Some((watch, pipe, words.clone())), Ok((child, ended, words))),
                Err(error) => (None, Err(abandon(child, error))),
            },
            Err(error) => (None, Err(error)),
        };
        let _ = send.send(theirs);
        if let Some((ended, pipe, words)) = mine {
            words.collect(&pipe);
            while let Ok(None) = wait(&[ended.as_fd()], Duration::from_secs(60)) {}
        }
    })?;
    receive.recv().map_err(io::Error::other)?
}

struct Started {
    child: Child,
    ended: OwnedFd,
    words: Words,
    pipe: OwnedFd,
}

fn start(command: &mut Command) -> io::Result<Started> {
    let mut child = command.spawn()?;
    let watch = |child: &mut Child| -> io::Result<(OwnedFd, Words, OwnedFd)> {
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or(io::ErrorKind::InvalidData)?;
        let ended = rustix::process::pidfd_open(pid, PidfdFlags::empty())?;
        let pipe = child.stderr.take().ok_or(io::ErrorKind::BrokenPipe)?;
        rustix::io::ioctl_fionbio(&pipe, true)?;
        let poll = pipe.as_fd().try_clone_to_owned()?;
        let heard = Heard { pipe, lines: VecDeque::new(), current: Vec::new(), ended: false };
        Ok((ended, Words(Arc::new((Mutex::new(heard), Condvar::new()))), poll))
    };
    match watch(&mut child) {
        Ok((ended, words, pipe)) => Ok(Started { child, ended, words, pipe }),
        Err(error) => Err(abandon(child, error)),
    }
}

/// Ends a child that cannot be watched.
fn abandon(mut child: Child, error: io::Error) -> io::Error {
    let _ = child.kill();
    let _ = child.wait();
    error
}
