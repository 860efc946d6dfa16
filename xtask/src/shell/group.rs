//! A command in a process group of its own, so that everything that it started can be ended with it.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;

/// How long a group may take to end when it is asked to, before it is killed.
const GRACE: Duration = Duration::from_secs(10);
/// How often it is looked whether something has ended.
const LOOK: Duration = Duration::from_millis(10);

/// The groups that run now. Mostly one.
static RUNNING: Mutex<Vec<Pid>> = Mutex::new(Vec::new());

fn running() -> MutexGuard<'static, Vec<Pid>> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A command that was started, and all that it starts. Ended when this is dropped.
#[derive(Debug)]
pub(crate) struct Group {
    /// Its leader. Its number is the group's, and nobody else's before it is reaped.
    pub(crate) child: Child,
    pid: Pid,
    status: Option<ExitStatus>,
}

impl Group {
    pub(crate) fn start(command: &mut Command) -> io::Result<Self> {
        // Held meanwhile: whoever ends everything does not miss this one.
        let mut running = running();
        let child = command.process_group(0).spawn()?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or(io::ErrorKind::InvalidData)?;
        running.push(pid);
        Ok(Self { child, pid, status: None })
    }

    /// Waits for the leader's end; `None` where it has not ended by then. What it leaves running is
    /// killed.
    pub(crate) fn wait(&mut self, until: Instant) -> io::Result<Option<ExitStatus>> {
        let how = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        while self.status.is_none() {
            if rustix::process::waitid(WaitId::Pid(self.pid), how)?.is_some() {
                // As long as it is not reaped the number is its own.
                signal(self.pid, Signal::KILL);
                self.status = self.child.try_wait()?;
                running().retain(|pid| *pid != self.pid);
            } else if Instant::now() >= until {
                break;
            } else {
                thread::sleep(LOOK);
            }
        }
        Ok(self.status)
    }

    /// Ends the group: asks it to, and kills it after ten seconds.
    pub(crate) fn end(&mut self) {
        for how in [Signal::TERM, Signal::KILL] {
            if self.status.is_none() {
                signal(self.pid, how);
                let _ = self.wait(Instant::now() + GRACE);
            }
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.end();
    }
}

fn signal(group: Pid, signal: Signal) {
    // One that has ended hears nothing.
    let _ = rustix::process::kill_process_group(group, signal);
}

/// From here on, a signal that ends us ends first what we have started: a terminal's Ctrl-C reaches
/// the group in the foreground, which is ours.
pub(crate) fn end_with_us() -> io::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP, SIGQUIT])?;
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        for signal in signals.forever() {
            end_all();
            let _ = signal_hook::low_level::emulate_default_handler(signal);
        }
    })?;
    Ok(())
}

/// Ends every group, for whoever ends this process next: nothing is started any more, and who
/// waited for one of them goes no further.
pub(crate) fn end_all() {
    let Some(running) = patiently_running() else { return };
    let alive = |group: &Pid| rustix::process::test_kill_process_group(*group).is_ok();
    running.iter().for_each(|group| signal(*group, Signal::TERM));
    let deadline = Instant::now() + GRACE;
    while running.iter().any(alive) && Instant::now() < deadline {
        thread::sleep(LOOK);
    }
    running.iter().filter(|group| alive(group)).for_each(|group| signal(*group, Signal::KILL));
    // For good.
    std::mem::forget(running);
}

/// The groups that run; `None` where somebody who is starting one does not come to an end.
fn patiently_running() -> Option<MutexGuard<'static, Vec<Pid>>> {
    let deadline = Instant::now() + GRACE;
    while Instant::now() < deadline {
        match RUNNING.try_lock() {
            Ok(running) => return Some(running),
            Err(TryLockError::Poisoned(running)) => return Some(running.into_inner()),
            Err(TryLockError::WouldBlock) => thread::sleep(LOOK),
        }
    }
    None
}
