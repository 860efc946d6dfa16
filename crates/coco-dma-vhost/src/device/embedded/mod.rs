//! The embedded device: this program, executed again as a virtio-blk device.
//!
//! It is given descriptors by number, its listening sockets and its images, and locks itself in
//! with them before it serves: everything else is closed; another uid, no capabilities and no new
//! privileges; a Landlock domain without a single path; system calls that could reach for more
//! are refused. What remains is reading and writing its images and the memory that a front end
//! shares with it.
//!
//! Everything in that memory is the work of somebody it does not trust. A request that makes
//! sense but cannot be served is answered with an I/O error. A descriptor that lies outside of
//! shared memory, or a ring that makes no sense, is *refused*: one line on standard error, and
//! the connection is closed; the next one starts afresh. Anything that goes wrong with the device
//! itself ends it, with one line and exit status 1.
//!
//! Its arguments, after [`EMBEDDED_ARG`](super::EMBEDDED_ARG):
//!
//! | argument | means |
//! |---|---|
//! | `--parent PID` | the process whose death ends it |
//! | `--uid N` | the uid and gid to change to |
//! | `--need-landlock` | leave if the kernel has no Landlock (else: say so and go on) |
//! | `--export listen=FD,image=FD[,writable]` | a disk, its socket and its image |
//! | `--export listen=FD,null=BYTES[,writable]` | a disk of zeros |

mod backend;
mod descriptors;
mod disk;
mod filter;
mod request;
mod serve;

use std::ffi::OsString;
use std::fmt::Display;
use std::io::Write;
use std::os::fd::RawFd;
use std::os::unix::net::UnixListener;
use std::process::ExitCode;

use rustix::process::{DumpableBehavior, Pid};

use super::confine::{self, Confinement};
use super::sandbox::{self, Landlock};
use disk::Disk;

/// Becomes the embedded device; `args` are the arguments after [`EMBEDDED_ARG`](super::EMBEDDED_ARG).
///
/// Call it as the first thing in `main`, while the process has one thread and owns no descriptor.
/// Serves until it is killed; returns (with a line on standard error) when it cannot.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    match run(args) {
        Ok(never) => match never {},
        Err(reason) => {
            say(reason);
            ExitCode::FAILURE
        }
    }
}

/// One line on standard error. That nobody reads it is no reason to stop.
fn say(line: impl Display) {
    let _ = writeln!(std::io::stderr(), "coco-dma embedded device: {line}");
}

/// What stands behind one `--export`.
#[derive(Clone, Copy, Debug)]
struct ExportArg {
    listen: RawFd,
    backing: BackingArg,
    writable: bool,
}

#[derive(Clone, Copy, Debug)]
enum BackingArg {
    Image(RawFd),
    Null(u64),
}

#[derive(Debug, Default)]
struct Args {
    parent: Option<Pid>,
    uid: Option<u32>,
    need_landlock: bool,
    exports: Vec<ExportArg>,
}

fn run(args: impl IntoIterator<Item = OsString>) -> Result<std::convert::Infallible, String> {
    let args = parse(args)?;
    let fds: Vec<RawFd> = (args.exports.iter())
        .flat_map(|export| match export.backing {
            BackingArg::Image(image) => vec![export.listen, image],
            BackingArg::Null(_) => vec![export.listen],
        })
        .collect();
    confine::close_all_but(&fds);
    let mut adopt = descriptors::Inherited::new(&fds);
    lock_in(&args)?;

    let mut ready = Vec::new();
    for export in &args.exports {
        let listener = UnixListener::from(adopt.take(export.listen)?);
        let disk = match export.backing {
            BackingArg::Image(fd) => Disk::image(adopt.take(fd)?.into(), export.writable),
            BackingArg::Null(size) => Ok(Disk::null(size, export.writable)),
        };
        let disk = disk.map_err(|error| format!("cannot read the size of an image: {error}"))?;
        ready.push((listener, disk));
    }
    serve::serve_all(ready)
}

/// Gives up everything that serving does not need; before any thread is started.
fn lock_in(args: &Args) -> Result<(), String> {
    let parent = args.parent.ok_or("no --parent: it is started by coco-dma, not by hand")?;
    Confinement { uid: args.uid, keep_dac_override: false, parent }
        .apply()
        .map_err(|error| format!("cannot give up its rights: {error}"))?;
    // The change of uid took it; whoever started us reads off /proc what we have mapped.
    rustix::process::set_dumpable_behavior(DumpableBehavior::Dumpable)
        .map_err(|error| format!("cannot stay readable to its parent: {error}"))?;
    match sandbox::lock_in() {
        Ok(Landlock::Enforced) => {}
        Ok(Landlock::Missing) if !args.need_landlock => {
            say("this kernel has no Landlock, going on without (enable it with lsm=landlock,…)");
        }
        Ok(Landlock::Missing) => return Err("this kernel has no Landlock".to_owned()),
        Err(error) => return Err(format!("cannot enter a Landlock domain: {error}")),
    }
    if let Err(error) = filter::install() {
        say(format_args!("this kernel takes no system call filter, going on without: {error}"));
    }
    Ok(())
}

fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Args, String> {
    let mut parsed = Args::default();
    let mut args = args.into_iter().map(|arg| arg.to_string_lossy().into_owned());
    while let Some(name) = args.next() {
        if name == "--need-landlock" {
            parsed.need_landlock = true;
            continue;
        }
        let value = args.next().ok_or_else(|| format!("{name} needs a value"))?;
        match name.as_str() {
            "--parent" => {
                parsed.parent = Some(
                    Pid::from_raw(number(&value)?).ok_or_else(|| format!("no process {value}"))?,
                );
            }
            "--uid" => parsed.uid = Some(number(&value)?),
            "--export" => parsed.exports.push(parse_export(&value)?),
            _ => return Err(format!("unknown argument {name}")),
        }
    }
    if parsed.exports.is_empty() {
        return Err("no --export: nothing to serve".to_owned());
    }
    Ok(parsed)
}

fn parse_export(text: &str) -> Result<ExportArg, String> {
    let (mut listen, mut backing, mut writable) = (None, None, false);
    for part in text.split(',') {
        match part.split_once('=') {
            Some(("listen", fd)) => listen = Some(number(fd)?),
            Some(("image", fd)) => backing = Some(BackingArg::Image(number(fd)?)),
            Some(("null", size)) => backing = Some(BackingArg::Null(number(size)?)),
            None if part == "writable" => writable = true,
            _ => return Err(format!("unknown part {part} of --export {text}")),
        }
    }
    match (listen, backing) {
        (Some(listen), Some(backing)) => Ok(ExportArg { listen, backing, writable }),
        _ => Err(format!("--export {text} needs listen= and one of image= and null=")),
    }
}

fn number<N: std::str::FromStr>(text: &str) -> Result<N, String> {
    text.parse().map_err(|_| format!("{text} is no number that fits here"))
}
