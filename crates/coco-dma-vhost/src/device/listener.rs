//! Listening sockets without a name.
//!
//! A device process inherits its listening socket. Its name in the file system is removed before
//! the process exists, and we connect through a descriptor of the nameless inode: nothing is
//! left behind by any death, and no other user can connect. (A name in the abstract namespace
//! would be open to everybody: it has no permissions, and anybody may read it.)

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

/// A listening Unix stream socket that only this process can connect to.
#[derive(Debug)]
pub(super) struct Door {
    /// The listening end, until it was handed to the device.
    listener: Option<UnixListener>,
    /// The socket's inode: `/proc/self/fd/N` of it can be connected to, name or not.
    inode: OwnedFd,
}

impl Door {
    /// Makes a listening socket. Its name exists for a few system calls in a directory for
    /// temporary files, readable by nobody else.
    pub(super) fn open() -> io::Result<Self> {
        let mut last = io::Error::from(io::ErrorKind::NotFound);
        for dir in [std::env::temp_dir(), PathBuf::from("/dev/shm"), PathBuf::from("/run")] {
            match Self::open_in(&dir) {
                Ok(door) => return Ok(door),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn open_in(dir: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::open(dir, flags, Mode::empty())?;
        let socket = unix_stream_socket(SocketFlags::CLOEXEC)?;
        // The name gets the permissions of the socket: there is no moment without them.
        rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
        let mut random = [0_u8; 16];
        rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())?;
        let random = u128::from_ne_bytes(random);
        let name = format!(".coco-dma-{}-{random:032x}", std::process::id());
        // Through the directory's descriptor: a socket's path must be shorter than 108 bytes.
        let path = format!("/proc/self/fd/{}/{name}", dir.as_raw_fd());
        rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let inode = rustix::fs::openat(&dir, &name, flags, Mode::empty());
        rustix::fs::unlinkat(&dir, &name, AtFlags::empty())?;
        let inode = inode?;
        rustix::net::listen(&socket, 16)?;
        Ok(Self { listener: Some(socket.into()), inode })
    }

    /// The listening end, while we still hold it.
    pub(super) fn listener(&self) -> Option<&UnixListener> {
        self.listener.as_ref()
    }

    /// Lets go of the listening end, so that it lives exactly as long as the device process.
    pub(super) fn hand_over(&mut self) {
        self.listener = None;
    }

    /// Connects, and waits until the device answers a first question. Blocks until `deadline` at
    /// most; `None` means that it was reached. Ends early when `alive` (a descriptor that becomes
    /// readable when the process ends) says so: then the error is `ConnectionReset`.
    pub(super) fn connect(
        &self,
        alive: &OwnedFd,
        deadline: Instant,
    ) -> io::Result<Option<UnixStream>> {
        let path = format!("/proc/self/fd/{}", self.inode.as_raw_fd());
        let address = SocketAddrUnix::new(path)?;
        let stream: UnixStream = loop {
            let socket = unix_stream_socket(SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
            match rustix::net::connect(&socket, &address) {
                Ok(()) => break socket.into(),
                // The queue of connections not yet accepted is full.
                Err(rustix::io::Errno::AGAIN) => {}
                Err(error) => return Err(error.into()),
            }
            let pause = Duration::from_millis(5).min(left(deadline));
            if pause.is_zero() {
                return Ok(None);
            }
            wait(&[alive.as_fd()], pause)?;
        };
        if !knock(&stream, alive, deadline)? {
            return Ok(None);
        }
        stream.set_nonblocking(false)?;
        Ok(Some(stream))
    }
}

fn unix_stream_socket(flags: SocketFlags) -> io::Result<OwnedFd> {
    Ok(rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?)
}

/// Asks for the device's features (any number of times is allowed) and reads the answer off.
/// False when the deadline passed without one: the device serves somebody else.
fn knock(mut stream: &UnixStream, alive: &OwnedFd, deadline: Instant) -> io::Result<bool> {
    const GET_FEATURES: u32 = 1;
    const VERSION: u32 = 1;
    let mut question = [0_u8; 12];
    let words = GET_FEATURES.to_ne_bytes().into_iter().chain(VERSION.to_ne_bytes());
    for (byte, value) in question.iter_mut().zip(words) {
        *byte = value;
    }
    stream.write_all(&question)?;
    // A header of the same 12 bytes, and 8 bytes of features.
    let mut answer = [0_u8; 20];
    let mut rest: &mut [u8] = &mut answer;
    while !rest.is_empty() {
        match stream.read(rest) {
            Ok(0) => return Err(io::ErrorKind::ConnectionReset.into()),
            Ok(count) => rest = rest.get_mut(count..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let pause = left(deadline);
                if pause.is_zero() {
                    return Ok(false);
                }
                if wait(&[stream.as_fd(), alive.as_fd()], pause)? == Some(1) {
                    return Err(io::ErrorKind::ConnectionReset.into());
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

/// What is left until `deadline`.
pub(super) fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

/// Waits until one of `fds` is readable or hung up, for `pause` at most; says which is first.
pub(super) fn wait(
    fds: &[std::os::fd::BorrowedFd<'_>],
    pause: Duration,
) -> io::Result<Option<usize>> {
    let mut polled: Vec<PollFd<'_>> =
        fds.iter().map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN)).collect();
    // Rounded up, so that the last part of a millisecond is not spent spinning.
    let pause = (pause + Duration::from_millis(1)).min(Duration::from_secs(3600));
    let pause = rustix::event::Timespec::try_from(pause).map_err(io::Error::other)?;
    match rustix::event::poll(&mut polled, Some(&pause)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(polled.iter().position(|fd| !fd.revents().is_empty()))
}
