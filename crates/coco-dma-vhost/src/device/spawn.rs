//! Starting a process, within a limit of time.
//!
//! `Command::spawn` returns when the child has executed its program, however long that takes: a
//! child that was stopped before, or whose program lies on a disk that does not answer, would keep
//! us for ever. So a thread of its own forks, and a child that takes too long is killed.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, OnceLock, mpsc};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal};

use super::listener::wait;
use super::words::Words;

/// How long the kernel may take to end a child that was killed.
const KILL: Duration = Duration::from_secs(5);

/// A process that was started.
#[derive(Debug)]
pub(super) struct Started {
    pub(super) child: Child,
    /// Becomes readable when the process has ended.
    pub(super) ended: OwnedFd,
    /// Its standard error.
    pub(super) words: Words,
}

/// Why no process was started.
#[derive(Debug)]
pub(super) enum SpawnError {
    /// The kernel refused.
    Refused(io::Error),
    /// It was forked, but had not executed its program when its time was up, and was killed. The
    /// pid is not known where the kernel does not tell children (`CONFIG_PROC_CHILDREN`): nobody
    /// kills it there.
    Stuck { pid: Option<u32> },
}

/// Starts `command` with its standard error collected. Blocks for `patience` at most, and a few
/// seconds more until a child that took longer is dead.
///
/// The thread that forks is also the thread that collects, and stays until the process has ended:
/// the kernel's parent-death signal fires when the forking *thread* ends, so a device started by a
/// short-lived thread would die with it.
pub(super) fn spawn(mut command: Command, patience: Duration) -> Result<Started, SpawnError> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let forker = Arc::new(OnceLock::new());
    let mine = Arc::clone(&forker);
    let (send, started) = mpsc::sync_channel(1);
    let body = move || {
        let _ = mine.set(rustix::thread::gettid());
        let (theirs, mine) = match start(&mut command) {
            Ok((started, watch)) => (Ok(started), Some(watch)),
            Err(error) => (Err(error), None),
        };
        // What the child inherited stays open in us no longer than needed.
        drop(command);
        match (send.send(theirs), mine) {
            (Ok(()), Some(watch)) => watch.until_it_ends(),
            // Nobody waits for it any more.
            (Err(mpsc::SendError(Ok(started))), _) => end(started.child),
            _ => {}
        }
    };
    let thread = thread::Builder::new().name("device words".to_owned());
    thread.spawn(body).map_err(SpawnError::Refused)?;
    match started.recv_timeout(patience) {
        Ok(started) => started.map_err(SpawnError::Refused),
        Err(mpsc::RecvTimeoutError::Disconnected) => {
            Err(SpawnError::Refused(io::Error::other("the thread that starts it panicked")))
        }
        Err(mpsc::RecvTimeoutError::Timeout) => {
            let mut pid = forker.get().and_then(|thread| kill_child_of(*thread));
            // With its child dead the thread goes on. One that hangs in the kernel is left to it.
            if let Ok(Ok(Started { mut child, ended, .. })) = started.recv_timeout(KILL) {
                pid = Some(child.id());
                let _ = child.kill();
                let _ = wait(&[ended.as_fd()], KILL);
                let _ = child.try_wait();
            }
            Err(SpawnError::Stuck { pid })
        }
    }
}

/// What the thread keeps of a process.
struct Watch {
    ended: OwnedFd,
    pipe: OwnedFd,
    words: Words,
}

impl Watch {
    fn until_it_ends(self) {
        self.words.collect(&self.pipe);
        while let Ok(None) = wait(&[self.ended.as_fd()], Duration::from_secs(60)) {}
    }
}

fn start(command: &mut Command) -> io::Result<(Started, Watch)> {
    let mut child = command.spawn()?;
    let watch = |child: &mut Child| -> io::Result<(OwnedFd, Watch)> {
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or(io::ErrorKind::InvalidData)?;
        let ended = rustix::process::pidfd_open(pid, PidfdFlags::empty())?;
        let (words, pipe) = Words::of(child.stderr.take().ok_or(io::ErrorKind::BrokenPipe)?)?;
        Ok((ended.try_clone()?, Watch { ended, pipe, words }))
    };
    match watch(&mut child) {
        Ok((ended, watch)) => {
            let words = watch.words.clone();
            Ok((Started { child, ended, words }, watch))
        }
        Err(error) => {
            end(child);
            Err(error)
        }
    }
}

/// Kills what a thread of ours has forked, which is one process, and says which it was.
fn kill_child_of(thread: Pid) -> Option<u32> {
    let children = || -> Vec<i32> {
        let path = format!("/proc/self/task/{}/children", thread.as_raw_nonzero());
        let list = std::fs::read_to_string(path).unwrap_or_default();
        list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
    };
    children().into_iter().find_map(|number| {
        let pid = Pid::from_raw(number)?;
        let child = rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok()?;
        // Still its child, so the descriptor names no later process with this number.
        children().contains(&number).then_some(())?;
        let _ = rustix::process::pidfd_send_signal(child, Signal::KILL);
        u32::try_from(number).ok()
    })
}

/// Ends a child that nobody is going to use. For the thread that forked: if the kernel does not let
/// go of the child, that waits.
fn end(mut child: Child) {
    let _ = child.kill();
    let _ = child.wait();
}
