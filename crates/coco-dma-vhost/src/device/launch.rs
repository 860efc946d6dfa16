//! The command line of a device process, and the descriptors that it inherits.

use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Pid;

use super::confine::{self, Confinement, NOBODY};
use super::listener::Door;
use super::{Backing, DeviceError, EMBEDDED_ARG, Export, Kind, Launch, Separation, sandbox};

/// Finds `qemu-storage-daemon` in `PATH`.
#[must_use]
pub fn find_qemu_storage_daemon() -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?)
        .filter(|dir| dir.is_absolute())
        .map(|dir| dir.join("qemu-storage-daemon"))
        .find(|path| {
            path.metadata()
                .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
        })
}

/// An image that we opened, or were given open.
pub(super) enum Image<'a> {
    Ours(File),
    Given(&'a File),
}

impl Image<'_> {
    fn file(&self) -> &File {
        match self {
            Self::Ours(file) => file,
            Self::Given(file) => file,
        }
    }
}

/// A process ready to be started, with what must stay open until it was.
pub(super) struct Prepared<'a> {
    pub(super) command: Command,
    pub(super) program: PathBuf,
    pub(super) separation: Separation,
    /// Open until the fork; then the child has its own.
    pub(super) images: Vec<Option<Image<'a>>>,
}

/// Prepares the process for `launch`; `doors` are its listening sockets, one an export.
pub(super) fn prepare<'a>(launch: &'a Launch, doors: &[Door]) -> Result<Prepared<'a>, DeviceError> {
    let images = launch.exports.iter().map(open_image).collect::<Result<Vec<_>, _>>()?;
    let listeners: Vec<RawFd> =
        doors.iter().filter_map(Door::listener).map(AsRawFd::as_raw_fd).collect();
    let mut inherit = listeners.clone();
    inherit.extend(images.iter().flatten().map(|image| image.file().as_raw_fd()));
    let files: Vec<Option<RawFd>> =
        images.iter().map(|image| image.as_ref().map(|image| image.file().as_raw_fd())).collect();
    let exports = launch.exports.iter().zip(listeners).zip(files);

    let uid = confine::may_change_uid().then_some(NOBODY);
    let parent = rustix::process::getpid();
    let landlocked = sandbox::kernel_has_landlock() && !has_blockdev(launch);
    let (program, mut command) = match launch.kind {
        Kind::QemuStorageDaemon => {
            let program = find_qemu_storage_daemon().ok_or(DeviceError::QemuMissing)?;
            let mut command = Command::new(&program);
            for (number, ((export, listener), file)) in exports.enumerate() {
                qemu_export(&mut command, number, export, listener, file);
            }
            let confinement = Confinement {
                uid,
                keep_dac_override: uid.is_some() && needs_dac_override(launch, &images),
                parent,
            };
            let domain = if landlocked { write_only_to_images(launch, &images) } else { None };
            confine::before_exec(&mut command, inherit, Some(confinement), domain);
            (program, command)
        }
        Kind::Embedded => {
            // The link, not what it points to: it works when the file was replaced or its folder
            // cannot be walked.
            let program =
                launch.embedded_program.clone().unwrap_or_else(|| "/proc/self/exe".into());
            let mut command = Command::new(&program);
            command.arg(EMBEDDED_ARG);
            embedded_arguments(&mut command, parent, uid, landlocked);
            for ((export, listener), file) in exports {
                command.arg("--export").arg(embedded_export(export, listener, file)?);
            }
            // It confines itself as its first act, when its program and libraries are loaded.
            confine::before_exec(&mut command, inherit, None, None);
            (program, command)
        }
    };
    // A process group of its own: a Ctrl-C is ours to handle, and the device ends with us.
    command.env_clear().env("LC_ALL", "C").current_dir("/").process_group(0);
    let separation = match uid {
        Some(uid) => Separation::OtherUid { uid },
        None if landlocked => Separation::Landlock,
        None => Separation::SameUid,
    };
    Ok(Prepared { command, program, separation, images })
}

fn has_blockdev(launch: &Launch) -> bool {
    launch.exports.iter().any(|export| matches!(export.backing, Backing::Blockdev { .. }))
}

fn open_image(export: &Export) -> Result<Option<Image<'_>>, DeviceError> {
    let (image, path) = match &export.backing {
        Backing::File(path) => {
            let file = OpenOptions::new()
                .read(true)
                .write(export.writable)
                // A named pipe must not keep us waiting; for an image it means nothing.
                .custom_flags(libc::O_NONBLOCK)
                .open(path)
                .map_err(|source| DeviceError::Image { path: path.clone(), source })?;
            (Image::Ours(file), path.as_path())
        }
        Backing::Opened(file) => (Image::Given(file), Path::new("the image given open")),
        Backing::Null { .. } | Backing::Blockdev { .. } => return Ok(None),
    };
    let meta = (image.file().metadata())
        .map_err(|source| DeviceError::Image { path: path.to_path_buf(), source })?;
    let kind = meta.file_type();
    if kind.is_file() || kind.is_block_device() {
        return Ok(Some(image));
    }
    let what = if kind.is_dir() { "a directory" } else { "a pipe, socket or character device" };
    Err(DeviceError::NotAnImage { path: path.to_path_buf(), what })
}

/// The daemon opens `/proc/self/fd/N` again, under its own uid: may it, without a capability?
fn needs_dac_override(launch: &Launch, images: &[Option<Image<'_>>]) -> bool {
    let refused = launch.exports.iter().zip(images).any(|(export, image)| {
        let Some(Ok(meta)) = image.as_ref().map(|image| image.file().metadata()) else {
            return false;
        };
        let shift = match (meta.uid() == NOBODY, meta.gid() == NOBODY) {
            (true, _) => 6,
            (false, true) => 3,
            (false, false) => 0,
        };
        let wanted = if export.writable { 0o6 } else { 0o4 };
        (meta.mode() >> shift) & wanted != wanted
    });
    // The caller's own block nodes may name files that only root may open.
    refused || has_blockdev(launch)
}

fn write_only_to_images(launch: &Launch, images: &[Option<Image<'_>>]) -> Option<OwnedFd> {
    let writable: Vec<BorrowedFd<'_>> = (launch.exports.iter().zip(images))
        .filter(|(export, _)| export.writable)
        .filter_map(|(_, image)| image.as_ref().map(|image| image.file().as_fd()))
        .collect();
    sandbox::write_only_to(&writable)
}

/// Adds one export to a command line of `qemu-storage-daemon` 7.2 or later.
fn qemu_export(
    command: &mut Command,
    number: usize,
    export: &Export,
    listener: RawFd,
    file: Option<RawFd>,
) {
    let (read_only, writable) = if export.writable { ("off", "on") } else { ("on", "off") };
    let mut disk = format!("disk{number}");
    match &export.backing {
        Backing::File(_) | Backing::Opened(_) => {
            let fd = file.unwrap_or(-1);
            let driver = if is_block_device(fd) { "host_device" } else { "file" };
            command.arg("--blockdev").arg(format!(
                "driver={driver},node-name=file{number},filename=/proc/self/fd/{fd},\
                 cache.direct=off,aio=threads,read-only={read_only}"
            ));
            command.arg("--blockdev").arg(format!(
                "driver=raw,node-name={disk},file=file{number},read-only={read_only}"
            ));
        }
        Backing::Null { size } => {
            command.arg("--blockdev").arg(format!(
                "driver=null-co,node-name={disk},size={size},read-zeroes=on,read-only={read_only}"
            ));
        }
        Backing::Blockdev { args, node } => {
            command.args(args);
            disk.clone_from(node);
        }
    }
    command.arg("--export").arg(format!(
        "type=vhost-user-blk,id=export{number},node-name={disk},addr.type=fd,addr.str={listener},\
         writable={writable},num-queues=1"
    ));
}

fn is_block_device(fd: RawFd) -> bool {
    std::fs::metadata(format!("/proc/self/fd/{fd}"))
        .is_ok_and(|meta| meta.file_type().is_block_device())
}

fn embedded_arguments(command: &mut Command, parent: Pid, uid: Option<u32>, landlocked: bool) {
    command.arg("--parent").arg(parent.as_raw_nonzero().to_string());
    if let Some(uid) = uid {
        command.arg("--uid").arg(uid.to_string());
    }
    if landlocked {
        // We report the separation, so it may not quietly be missing.
        command.arg("--need-landlock");
    }
}

fn embedded_export(
    export: &Export,
    listener: RawFd,
    file: Option<RawFd>,
) -> Result<String, DeviceError> {
    let disk = match (&export.backing, file) {
        (Backing::File(_) | Backing::Opened(_), Some(fd)) => format!("image={fd}"),
        (Backing::Null { size }, _) => format!("null={size}"),
        _ => return Err(DeviceError::BackingUnsupported),
    };
    let writable = if export.writable { ",writable" } else { "" };
    Ok(format!("listen={listener},{disk}{writable}"))
}
