//! Runs the tests of a program that has a `main` of its own, one after the other, and says what the
//! usual harness says, in its words: `cargo xtask test` reads them.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

/// A test that runs for longer is told of.
const LONG: Duration = Duration::from_secs(60);

/// A test and its name.
pub(crate) type Test = (String, Box<dyn Fn()>);

/// Runs those whose name contains one of the arguments, or all; with `--list` it names them.
pub(crate) fn run(tests: &[Test]) -> ExitCode {
    let mut filters: Vec<String> = std::env::args().skip(1).collect();
    let list = filters.iter().any(|arg| arg == "--list");
    filters.retain(|arg| !arg.starts_with('-'));
    let chosen: Vec<&Test> = (tests.iter())
        .filter(|(name, _)| filters.is_empty() || filters.iter().any(|part| name.contains(part)))
        .collect();
    if list {
        chosen.iter().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    println!("\nrunning {} tests", chosen.len());
    let begun = Instant::now();
    let failed: Vec<&str> =
        (chosen.iter()).filter(|test| !passes(test)).map(|(name, _)| name.as_str()).collect();
    if !failed.is_empty() {
        println!("\nfailures:\n    {}", failed.join("\n    "));
    }
    println!(
        "\ntest result: {}. {} passed; {} failed; 0 ignored; 0 measured; {} filtered out; \
         finished in {:.2?}",
        if failed.is_empty() { "ok" } else { "FAILED" },
        chosen.len() - failed.len(),
        failed.len(),
        tests.len() - chosen.len(),
        begun.elapsed()
    );
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn passes((name, test): &Test) -> bool {
    let (ended, end) = channel::<()>();
    let told = name.clone();
    let watch = thread::spawn(move || {
        if end.recv_timeout(LONG) == Err(RecvTimeoutError::Timeout) {
            println!("test {told} has been running for over {} seconds", LONG.as_secs());
        }
    });
    let begun = Instant::now();
    let passed = catch_unwind(AssertUnwindSafe(test)).is_ok();
    drop(ended);
    let _ = watch.join();
    match passed {
        true => println!("test {name} ... ok ({:.0?})", begun.elapsed()),
        false => println!("test {name} ... FAILED"),
    }
    passed
}
