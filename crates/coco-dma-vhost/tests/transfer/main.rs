//! Whole images through the layer, with both kinds of device process.
//!
//! The test program is its own embedded device, so it has its own `main` and harness.
//! Arguments are filters on the names of tests. One after the other: the copy's `Hal` types are
//! one of each in a process.
//!
//! What a real device has to be tried with, and where that is:
//!
//! | what | test |
//! |---|---|
//! | (a) writing and reading through bounces | `copies_every_size`, `copies_on_every_platform` |
//! | (b) each bad descriptor refused, private bytes intact, the next connection works | `every_attack_is_refused` |
//! | (c) regions added and removed at run time, `/proc/PID/maps` before and after | `regions_come_and_go` |
//! | (d) nothing is unshared under a request | `a_region_in_use_is_not_reclaimed`, `a_pool_in_use_does_not_shrink` |
//! | (e) a slow disk and a small pool | `a_slow_disk_and_a_small_pool_push_back`, `a_pool_that_is_full_makes_it_wait` |
//! | (f) an I/O error is told, and its slots are free | `a_failed_read_frees_its_slots`, `an_io_error_is_an_io_error` |
//! | (g) killed, and everything shared again | `a_new_device_is_given_what_is_shared`, `a_killed_device_is_replaced` |
//! | (h) the device's limit of regions | `never_one_region_too_many` |
//! | a device that reports more than it wrote | `what_a_device_did_not_write_is_zero`, `a_console_shows_what_was_typed_and_zeroes` |
//! | DMA of the kernel's own into secret memory | `memory::tests::dma_of_a_disk_reaches_shared_memory_and_no_secret_one` |

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "without a harness, clippy does not take it for a test"
)]

mod attacks;
mod bench;
#[path = "../harness/mod.rs"]
mod harness;
mod hostile;
mod loss;
mod regions;
mod slow;
mod stale;
mod tests;

use std::process::ExitCode;

use coco_dma_vhost::device::{EMBEDDED_ARG, Kind, embedded, find_qemu_storage_daemon};
use harness::Test;

fn main() -> ExitCode {
    let mut args = std::env::args_os().peekable();
    let program = args.next().unwrap_or_default();
    if args.next_if(|arg| arg == EMBEDDED_ARG).is_some() {
        return match hostile::Trick::of_program(&program) {
            Some(trick) => hostile::main(trick, args),
            None => embedded::main(args),
        };
    }
    let mut all: Vec<Test> = Vec::new();
    for (name, test) in tests::ALONE {
        all.push(((*name).to_owned(), Box::new(test)));
    }
    for (name, test) in tests::BOTH {
        all.push((format!("embedded::{name}"), Box::new(|| test(Kind::Embedded))));
    }
    if find_qemu_storage_daemon().is_some() {
        for (name, test) in tests::BOTH.iter().chain(tests::QEMU) {
            let test = || test(Kind::QemuStorageDaemon);
            all.push((format!("qemu-storage-daemon::{name}"), Box::new(test)));
        }
    } else {
        eprintln!("LEFT OUT: every test with qemu-storage-daemon: it is not in PATH");
    }
    harness::run(&all)
}
