//! Both kinds of device process, driven by a front end of our own.
//!
//! The test program is its own embedded device, so it has its own `main` and harness.
//! Arguments are filters on the names of tests.

#![allow(
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::std_instead_of_alloc,
    clippy::std_instead_of_core,
    clippy::unwrap_used,
    reason = "a test with a main of its own is not known as one"
)]

mod attacks;
mod front;
#[path = "../harness/mod.rs"]
mod harness;
mod io;
mod life;
mod rights;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::ExitCode;

use coco_dma_vhost::device::{
    Backing, DeviceProcess, EMBEDDED_ARG, Export, Kind, Launch, embedded, find_qemu_storage_daemon,
};
use front::Front;

/// The hidden first argument with which this program starts a device and waits to be killed.
const PARENT_ARG: &str = "__parent";

/// Status bytes of a virtio-blk request.
const OK: u8 = 0;
const IOERR: u8 = 1;
const UNSUPP: u8 = 2;

type Test = (&'static str, fn(Kind));

const BOTH: &[Test] = &[
    ("reads_and_writes", io::reads_and_writes),
    ("serves_files_without_a_name_and_null", io::serves_files_without_a_name_and_null),
    ("serves_one_connection_at_a_time", io::serves_one_connection_at_a_time),
    ("refuses_bad_descriptors", attacks::refuses_bad_descriptors),
    ("maps_what_is_shared_and_nothing_else", rights::maps_what_is_shared_and_nothing_else),
    ("maps_without_the_right_to_trace", rights::maps_without_the_right_to_trace),
    ("gives_up_its_rights", rights::gives_up_its_rights),
    ("inherits_only_its_descriptors", rights::inherits_only_its_descriptors),
    ("is_noticed_when_killed", life::is_noticed_when_killed),
    ("leaves_nothing_behind", life::leaves_nothing_behind),
    ("ends_with_its_parent", life::ends_with_its_parent),
    ("outlives_the_thread_that_started_it", life::outlives_the_thread_that_started_it),
    ("says_why_it_cannot_start", life::says_why_it_cannot_start),
];
const EMBEDDED: &[Test] = &[
    ("refuses_bad_rings", attacks::refuses_bad_rings),
    ("answers_the_senseless_with_an_error", io::answers_the_senseless_with_an_error),
    ("config_honours_offset_and_size", io::config_honours_offset_and_size),
    ("a_ring_without_end_can_be_left", io::a_ring_without_end_can_be_left),
    ("a_region_taken_back_is_gone", rights::a_region_taken_back_is_gone),
    ("loses_no_descriptor_over_connections", rights::loses_no_descriptor_over_connections),
    ("leaves_with_a_line_on_wrong_arguments", life::leaves_with_a_line_on_wrong_arguments),
];
const QEMU: &[Test] = &[
    ("in_its_own_words", io::in_its_own_words),
    ("leaves_with_a_line_when_it_cannot_serve", life::leaves_with_a_line_when_it_cannot_serve),
];

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1).peekable();
    if args.next_if(|arg| arg == EMBEDDED_ARG).is_some() {
        return embedded::main(args);
    }
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.first().is_some_and(|arg| arg == PARENT_ARG) {
        life::wait_to_be_killed(&args);
    }
    let mut all: Vec<harness::Test> = Vec::new();
    for (kind, own) in [(Kind::Embedded, EMBEDDED), (Kind::QemuStorageDaemon, QEMU)] {
        if kind == Kind::QemuStorageDaemon && find_qemu_storage_daemon().is_none() {
            eprintln!("LEFT OUT: every test with qemu-storage-daemon: it is not in PATH");
            continue;
        }
        for (name, test) in BOTH.iter().chain(own) {
            all.push((format!("{kind}::{name}"), Box::new(move || test(kind))));
        }
    }
    harness::run(&all)
}

fn launch(kind: Kind, exports: Vec<Export>) -> Launch {
    Launch { kind, exports, embedded_program: None }
}

fn start(kind: Kind, exports: Vec<Export>) -> DeviceProcess {
    DeviceProcess::start(&launch(kind, exports)).unwrap()
}

/// A device of zeros, 1 MiB.
fn null(kind: Kind) -> DeviceProcess {
    start(kind, vec![Export { backing: Backing::Null { size: 1 << 20 }, writable: true }])
}

fn connect(device: &DeviceProcess, export: usize, writable: bool) -> Front {
    Front::new(device.connect(export).unwrap(), writable)
}

/// A file of mode 0600 whose every sector is different.
fn image(path: &Path, sectors: u64) -> Vec<u8> {
    let byte = |at: u64| (at / 512 * 31 + at * 7 + at / 11) as u8;
    let bytes: Vec<u8> = (0..sectors * 512).map(byte).collect();
    fs::write(path, &bytes).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    bytes
}
