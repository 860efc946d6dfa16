//! What can go wrong with a device process.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::Exit;

/// A refusal or failure of [`DeviceProcess`](super::DeviceProcess). Every message says what
/// happened and the way out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// `qemu-storage-daemon` is not in `PATH`.
    #[error(
        "qemu-storage-daemon is not in PATH: install the Debian packages qemu-utils and \
         qemu-system-common, or use the embedded device"
    )]
    QemuMissing,
    /// The launch names no export.
    #[error("a device process needs at least one export: add one to the launch")]
    NoExport,
    /// A connection to an export that was not launched.
    #[error("there is no export {export}, the process serves {count}: count from 0")]
    NoSuchExport {
        /// The export asked for.
        export: usize,
        /// How many there are.
        count: usize,
    },
    /// This kind of device cannot serve this backing.
    #[error("the embedded device serves only files and null disks: use qemu-storage-daemon")]
    BackingUnsupported,
    /// An image could not be opened.
    #[error("cannot open the image {}: {source}; check the path and its permissions", path.display())]
    Image {
        /// The image.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// An image is something else than a file or block device.
    #[error("{} is no disk image but {what}: give a regular file or a block device", path.display())]
    NotAnImage {
        /// The path given, or a description of the open descriptor.
        path: PathBuf,
        /// What it is instead.
        what: &'static str,
    },
    /// No listening socket could be made.
    #[error(
        "cannot make a listening socket for the device: {source}; a directory for temporary \
         files that we may write to is needed (set TMPDIR)"
    )]
    Listener {
        /// What the kernel said.
        source: io::Error,
    },
    /// The process could not be started.
    #[error("cannot start the device process {}: {source}; check that it is an executable for this machine", program.display())]
    Spawn {
        /// What was to be executed.
        program: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The process was forked, but had not executed its program in time.
    #[error(
        "the device process {} had not executed {} {waited:?} after its start: somebody has \
         stopped it, or the disk of that program does not answer; start a new one",
        fate(*pid), program.display()
    )]
    Stuck {
        /// What was to be executed.
        program: PathBuf,
        /// Which process it was. `None` where the kernel does not tell: there it is not killed.
        pid: Option<u32>,
        /// How long we waited.
        waited: Duration,
    },
    /// The process is no more.
    #[error("the device process {pid} {exit}; start a new one")]
    Died {
        /// Which process it was.
        pid: u32,
        /// How it ended.
        exit: Exit,
    },
    /// The device did not answer a new connection in time.
    #[error(
        "export {export} of the device process {pid} did not answer within {waited:?}: it serves \
         one connection at a time, close the earlier one first"
    )]
    Unanswered {
        /// The export.
        export: usize,
        /// The process.
        pid: u32,
        /// How long we waited.
        waited: Duration,
    },
    /// The connection failed in another way.
    #[error(
        "cannot connect to export {export} of the device process {pid}: {source}; start a new process"
    )]
    Connect {
        /// The export.
        export: usize,
        /// The process.
        pid: u32,
        /// What the kernel said.
        source: io::Error,
    },
    /// The memory mappings of the process could not be read.
    #[error(
        "cannot read what the device process {pid} has mapped: {source}; this needs /proc and, \
         as root, the capability to change uid or to trace"
    )]
    Mappings {
        /// The process.
        pid: u32,
        /// What the kernel said.
        source: io::Error,
    },
    /// One process after the other was lost before it had done anything.
    #[error(
        "{starts} device processes in a row were lost before they had done anything; the last: {why}"
    )]
    Fruitless {
        /// How many.
        starts: u32,
        /// How the last one was lost.
        why: String,
    },
    /// The process did not end when told to, not even by `SIGKILL`.
    #[error(
        "the device process {pid} did not end within {waited:?} of being killed: it hangs in the kernel, look at its storage"
    )]
    Unstoppable {
        /// The process.
        pid: u32,
        /// How long we waited.
        waited: Duration,
    },
}

impl DeviceError {
    /// Whether the process, or its connections, are lost: another process may do better.
    #[must_use]
    pub fn is_loss(&self) -> bool {
        matches!(
            self,
            Self::Stuck { .. } | Self::Died { .. } | Self::Unanswered { .. } | Self::Connect { .. }
        )
    }
}

/// What became of a process that got stuck.
fn fate(pid: Option<u32>) -> String {
    pid.map_or("(which cannot be found, and is left alone)".to_owned(), |pid| {
        format!("{pid} (killed)")
    })
}
