//! Messages to the device, each bounded in time.
//!
//! The `vhost` crate reads and writes until a message is complete and takes a timeout of the
//! socket for a reason to try again, so that no timeout of the socket ends it. A watchdog does:
//! when a message takes too long it shuts the connection down, which ends every read and write.

use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use vhost::vhost_user::Frontend;
use vhost::vhost_user::message::VhostUserHeaderFlag;

use super::FrontError;

/// How long a device may take over one message.
const PATIENCE: Duration = Duration::from_secs(5);
/// The most queues of a device.
const QUEUES: u64 = 2;

/// A connection with its watchdog.
pub(super) struct Link {
    /// One message at a time.
    frontend: Mutex<Frontend>,
    stream: UnixStream,
    watch: Arc<Watch>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Watch {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// When the present message has taken too long.
    until: Option<Instant>,
    fired: bool,
    /// We ended the connection.
    cut_off: bool,
    over: bool,
}

impl Watch {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    /// The thread: shuts the connection down when a message has taken too long.
    fn run(&self, stream: &UnixStream) {
        let mut state = self.lock();
        while !state.over {
            let now = Instant::now();
            state = match state.until {
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(until) if until > now => {
                    let waited = self.changed.wait_timeout(state, until - now);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                Some(_) => {
                    let _ = stream.shutdown(Shutdown::Both);
                    (state.fired, state.over) = (true, true);
                    state
                }
            };
        }
    }
}

impl Link {
    pub(super) fn new(stream: UnixStream) -> Result<Self, FrontError> {
        let kernel = |what| move |source| FrontError::Kernel { what, source };
        let other = stream.try_clone().map_err(kernel("descriptor"))?;
        let watched = stream.try_clone().map_err(kernel("descriptor"))?;
        let watch = Arc::new(Watch::default());
        let its = Arc::clone(&watch);
        let thread = std::thread::Builder::new()
            .name("vhost-user watch".to_owned())
            .spawn(move || its.run(&watched))
            .map_err(kernel("thread"))?;
        let frontend = Mutex::new(Frontend::from_stream(other, QUEUES));
        Ok(Self { frontend, stream, watch, thread: Some(thread) })
    }

    /// Sends one message and waits for its answer, 5 seconds at most (and before that for other
    /// threads' messages).
    pub(super) fn ask<R>(
        &self,
        asked: &'static str,
        message: impl FnOnce(&mut Frontend) -> vhost::Result<R>,
    ) -> Result<R, FrontError> {
        self.ask_within(PATIENCE, asked, message)
    }

    /// [`ask`](Self::ask) with another patience.
    pub(super) fn ask_within<R>(
        &self,
        waited: Duration,
        asked: &'static str,
        message: impl FnOnce(&mut Frontend) -> vhost::Result<R>,
    ) -> Result<R, FrontError> {
        let mut frontend = self.frontend();
        self.watch.set(|state| state.until = Some(Instant::now() + waited));
        let answer = message(&mut frontend);
        self.watch.set(|state| state.until = None);
        answer.map_err(|source| match self.watch.lock().fired {
            true => FrontError::Silent { asked, waited },
            false => FrontError::Failed { asked, source },
        })
    }

    /// Asks for an acknowledgement of every message from here on.
    pub(super) fn acknowledge_all(&self) {
        self.frontend().set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
    }

    fn frontend(&self) -> MutexGuard<'_, Frontend> {
        self.frontend.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The socket: hung up when the device closed it.
    pub(super) fn socket(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    /// Tells the device that nothing more will come.
    pub(super) fn say_goodbye(&self) {
        // A connection that is closed already needs no goodbye.
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Ends the connection at once, also for whoever waits for an answer.
    pub(super) fn cut_off(&self) {
        self.watch.set(|state| state.cut_off = true);
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    /// Whether we have ended the connection, or its watchdog has.
    pub(super) fn is_cut_off(&self) -> bool {
        let state = self.watch.lock();
        state.fired || state.cut_off
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Both);
        self.watch.set(|state| state.over = true);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
