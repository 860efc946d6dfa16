//! What a device process says on standard error, kept for whoever asks.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::process::ChildStderr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

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
    /// The words that come through a pipe, and the pipe once more, for [`collect`](Self::collect).
    pub(super) fn of(pipe: ChildStderr) -> io::Result<(Self, OwnedFd)> {
        rustix::io::ioctl_fionbio(&pipe, true)?;
        let again = pipe.as_fd().try_clone_to_owned()?;
        let heard = Heard { pipe, lines: VecDeque::new(), current: Vec::new(), ended: false };
        Ok((Self(Arc::new((Mutex::new(heard), Condvar::new()))), again))
    }

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
    pub(super) fn collect(&self, pipe: &OwnedFd) {
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
    /// Takes in what the pipe holds at this moment, and no more: a process that never stops
    /// writing keeps nobody here.
    fn drain(&mut self) {
        let mut buffer = [0_u8; 1024];
        let mut left = rustix::io::ioctl_fionread(&self.pipe).unwrap_or(0);
        // Also where there is nothing: the end of the pipe is heard by reading.
        while !self.ended {
            match self.pipe.read(&mut buffer) {
                Ok(0) => {
                    self.end_line();
                    self.ended = true;
                }
                Ok(count) => {
                    self.hear(buffer.get(..count).unwrap_or_default());
                    left = left.saturating_sub(count as u64);
                    if left == 0 {
                        return;
                    }
                }
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
