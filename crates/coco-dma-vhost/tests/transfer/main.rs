//! Whole images through the layer, with both kinds of device process.
//!
//! The test program is its own embedded device, so it has its own `main`: no test harness.
//! Arguments are filters on the names of tests. One after the other: the copy's `Hal` types are
//! one of each in a process.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "without a harness, clippy does not take it for a test"
)]

mod attacks;
mod bench;
mod hostile;
mod loss;
mod tests;

use std::process::ExitCode;
use std::time::Instant;

use coco_dma_vhost::device::{EMBEDDED_ARG, Kind, embedded, find_qemu_storage_daemon};

fn main() -> ExitCode {
    let mut args = std::env::args_os().peekable();
    let program = args.next().unwrap_or_default();
    if args.next_if(|arg| arg == EMBEDDED_ARG).is_some() {
        return match hostile::Trick::of_program(&program) {
            Some(trick) => hostile::main(trick, args),
            None => embedded::main(args),
        };
    }
    let mut filters: Vec<String> = std::env::args().skip(1).collect();
    let list = filters.iter().any(|arg| arg == "--list");
    filters.retain(|arg| !arg.starts_with('-'));

    let (mut passed, mut failed) = (0, Vec::new());
    let mut run = |name: String, test: &dyn Fn()| {
        if !filters.is_empty() && !filters.iter().any(|filter| name.contains(filter)) {
            return;
        }
        if list {
            println!("{name}: test");
            return;
        }
        let begun = Instant::now();
        match std::panic::catch_unwind(std::panic::AssertUnwindSafe(test)) {
            Ok(()) => {
                passed += 1;
                println!("test {name} ... ok ({:?})", begun.elapsed());
            }
            Err(_) => {
                println!("test {name} ... FAILED");
                failed.push(name);
            }
        }
    };
    for (name, test) in tests::ALONE {
        run((*name).to_owned(), test);
    }
    for (name, test) in tests::BOTH {
        run(format!("embedded::{name}"), &|| test(Kind::Embedded));
    }
    if find_qemu_storage_daemon().is_some() {
        for (name, test) in tests::BOTH.iter().chain(tests::QEMU) {
            run(format!("qemu-storage-daemon::{name}"), &|| test(Kind::QemuStorageDaemon));
        }
    } else {
        eprintln!("LEFT OUT: every test with qemu-storage-daemon: it is not in PATH");
    }
    if !list {
        println!("\n{passed} passed; {} failed {failed:?}", failed.len());
    }
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
