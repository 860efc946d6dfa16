//! The device side of `coco-dma run`: a real virtio-blk device in another process.
//!
//! A [`DeviceProcess`] is a direct child of this process that serves one vhost-user-blk device
//! for each [`Export`]. It inherits its listening sockets and its images as open descriptors and
//! nothing else: what it sees of our memory is what a front end shares over a connection. A
//! [`Keeper`] starts another one when it is lost.
//!
//! Two kinds exist: [`Kind::QemuStorageDaemon`], which somebody else wrote, and
//! [`Kind::Embedded`], this program executed once more ([`embedded`]), which needs nothing
//! installed. Both answer the same protocol, refuse the same descriptors, and are confined the
//! same way: another uid where we are root, no capability that they can do without, no new
//! privileges, a Landlock domain where the kernel has it, no core dump, and death with us.

#![allow(
    clippy::std_instead_of_alloc,
    clippy::std_instead_of_core,
    reason = "processes and sockets need std; two names for one module would help nobody"
)]

mod confine;
pub mod embedded;
mod error;
mod keeper;
mod launch;
mod listener;
mod maps;
mod process;
mod sandbox;
mod spawn;
mod words;

use std::fmt;
use std::fs::File;
use std::path::PathBuf;
use std::process::ExitStatus;

pub use error::DeviceError;
pub use keeper::Keeper;
pub use launch::find_qemu_storage_daemon;
pub use process::DeviceProcess;

/// The hidden first argument with which a program becomes the embedded device.
///
/// A program that starts [`Kind::Embedded`] calls [`embedded::main`] as the first thing in its
/// own `main` when its first argument equals this.
pub const EMBEDDED_ARG: &str = "__embedded-device";

/// Whose virtio-blk device it is.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Kind {
    /// QEMU's `qemu-storage-daemon`, found in `PATH`; 7.2 and 10.0 both work.
    QemuStorageDaemon,
    /// Our own device: the same program executed again, see [`embedded`].
    Embedded,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::QemuStorageDaemon => "qemu-storage-daemon",
            Self::Embedded => "embedded",
        })
    }
}

/// One disk that the process serves, as one vhost-user-blk device with one queue.
#[derive(Debug)]
pub struct Export {
    /// Where its bytes live.
    pub backing: Backing,
    /// Whether the front end may write. If not, the image is opened for reading only, so the
    /// kernel holds it too.
    pub writable: bool,
}

/// Where the bytes of an [`Export`] live.
#[derive(Debug)]
#[non_exhaustive]
pub enum Backing {
    /// A raw image, opened here, by us; the device is given the descriptor, so any path works,
    /// also one that the device's uid could not walk.
    File(PathBuf),
    /// A raw image that is already open, for instance one without a name. A writable export
    /// needs it open for reading and writing. The device shares its position and moves it: read
    /// and write it elsewhere at places of your own only (`FileExt`), as long as a device lives.
    Opened(File),
    /// Nothing: reads give zeros, writes are discarded. For measuring what mapping costs.
    Null {
        /// Size in bytes, a multiple of 512.
        size: u64,
    },
    /// `qemu-storage-daemon` only: block nodes described in its own words (a throttled disk, a
    /// disk with errors). Files named in there are opened by the device itself, so a process
    /// with such an export is not put into a Landlock domain.
    Blockdev {
        /// Arguments passed on as they are, for example `["--blockdev", "driver=null-co,…"]`.
        args: Vec<String>,
        /// The node that is exported.
        node: String,
    },
}

/// What to start: passed to [`DeviceProcess::start`].
#[derive(Debug)]
pub struct Launch {
    /// Whose device.
    pub kind: Kind,
    /// The disks, in the order in which [`DeviceProcess::connect`] counts them.
    pub exports: Vec<Export>,
    /// The program that becomes the embedded device when its first argument is
    /// [`EMBEDDED_ARG`]; `None` is the running program itself. Ignored for other kinds.
    pub embedded_program: Option<PathBuf>,
}

/// What keeps the device process away from memory that was not shared with it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Separation {
    /// It runs under another uid and without the right to trace: the kernel refuses it every
    /// way into our memory.
    OtherUid {
        /// Its uid.
        uid: u32,
    },
    /// It runs under our uid, in a Landlock domain of its own: the kernel refuses it tracing,
    /// `process_vm_readv` and `/proc/PID/mem` of every process outside of that domain, ours too.
    Landlock,
    /// It runs under our uid and this kernel has no Landlock: only memory that the kernel hides
    /// even from its owner's other processes (`memfd_secret`) is out of its reach.
    SameUid,
}

impl Separation {
    /// Whether the kernel itself refuses the device process all of our memory.
    #[must_use]
    pub fn is_enforced(self) -> bool {
        !matches!(self, Self::SameUid)
    }
}

impl fmt::Display for Separation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OtherUid { uid } => {
                write!(f, "it runs as uid {uid}: the kernel refuses it our memory")
            }
            Self::Landlock => f.write_str(
                "it runs under our own uid in a Landlock domain: the kernel refuses it our memory",
            ),
            Self::SameUid => f.write_str(
                "it runs under our own uid: only memory from memfd_secret is out of its reach",
            ),
        }
    }
}

/// How a device process ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Exit {
    /// What the kernel says.
    pub status: ExitStatus,
    /// The last line that it wrote to standard error, if any.
    pub line: Option<String>,
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use std::os::unix::process::ExitStatusExt;
        match (self.status.code(), self.status.signal()) {
            (Some(code), _) => write!(f, "left with exit status {code}")?,
            (None, Some(signal)) => write!(f, "was killed by signal {signal}")?,
            (None, None) => write!(f, "ended ({})", self.status)?,
        }
        match &self.line {
            Some(line) => write!(f, ", its last words: {line}"),
            None => f.write_str(" without a word"),
        }
    }
}
