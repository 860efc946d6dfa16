//! What a terminal's Ctrl-C does: it reaches the workshop alone, and has to end all that it started.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test: a panic is how it fails")]

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

/// Tries until it works.
fn patiently<T>(mut attempt: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(done) = attempt() {
            return done;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "it does not come");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The workshop at a step, whose `cargo` is a script that starts something and waits.
fn start(folder: &Path) -> Child {
    let script = folder.join("cargo");
    // Written whole before it has its name.
    let text = "#!/bin/sh\nsleep 300 &\necho $! > pid.new; mv pid.new \"$0.pid\"; wait\n";
    std::fs::write(&script, text.replace("pid.new", "\"$0.new\"")).unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut xtask = Command::new(env!("CARGO_BIN_EXE_xtask"));
    xtask.args(["test", "--only", "fmt"]).env("CARGO", &script).spawn().unwrap()
}

fn interrupted(sent: Signal) -> ExitStatus {
    let name = format!("xtask-{}-{}", sent.as_raw(), std::process::id());
    let folder = std::env::temp_dir().join(name);
    std::fs::create_dir_all(&folder).unwrap();
    let mut xtask = start(&folder);
    let started = patiently(|| std::fs::read_to_string(folder.join("cargo.pid")).ok());
    let pid = Pid::from_raw(i32::try_from(xtask.id()).unwrap()).unwrap();
    rustix::process::kill_process(pid, sent).unwrap();
    let status = patiently(|| xtask.try_wait().unwrap());
    // Whoever reaps orphans here may not have come to it yet.
    let stat = format!("/proc/{}/stat", started.trim());
    patiently(|| {
        std::fs::read_to_string(&stat).map_or(Some(()), |s| s.contains(") Z ").then_some(()))
    });
    std::fs::remove_dir_all(&folder).unwrap();
    status
}

#[test]
fn a_signal_ends_what_was_started_and_then_the_workshop() {
    for sent in [Signal::INT, Signal::TERM, Signal::HUP] {
        assert_eq!(interrupted(sent).signal(), Some(sent.as_raw()));
    }
}
