//! Commands that do not end by themselves.

use std::path::Path;
use std::time::{Duration, Instant};

use super::{Limit, Workshop};
use crate::omissions::Omissions;

/// Long enough to start a shell on a busy machine, and nothing to wait for.
const SOON: Duration = Duration::from_secs(2);
/// Nobody waits for so long.
const LATE: Duration = Duration::from_secs(100);

fn shop(limit: Duration) -> Workshop {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).to_path_buf();
    let (target, omitted) = (root.clone(), Omissions::default());
    Workshop { root, target, omitted, limit: Limit::of("example", limit) }
}

/// A shell with a child, which writes down the child's number before it does `then`.
fn script(folder: &Path, then: &str) -> String {
    format!("sleep 300 & echo $! > {}/pid; {then}", folder.display())
}

fn folder(name: &str) -> std::path::PathBuf {
    let folder = std::env::temp_dir().join(format!("xtask-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// The child of such a shell has ended.
fn nothing_is_left(folder: &Path) {
    let pid = std::fs::read_to_string(folder.join("pid")).unwrap();
    // It was killed; the kernel ends it when it runs next, and whoever reaps orphans here may come
    // later still.
    let until = std::time::Instant::now() + std::time::Duration::from_secs(60);
    loop {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim()));
        if !stat.as_ref().is_ok_and(|stat| !stat.contains(") Z ")) {
            break;
        }
        assert!(std::time::Instant::now() < until, "{stat:?}");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    std::fs::remove_dir_all(folder).unwrap();
}

fn within<T>(what: impl FnOnce() -> anyhow::Result<T>) -> String {
    let begun = Instant::now();
    let error = what().map(drop).unwrap_err();
    assert!(begun.elapsed() < LATE, "{:?}", begun.elapsed());
    format!("{error:#}")
}

#[test]
fn a_command_that_takes_longer_than_its_step_is_ended_with_all_that_it_started() {
    let (shop, folder) = (shop(SOON), folder("run"));
    let script = script(&folder, "wait");
    let error = within(|| shop.run(shop.program("sh").args(["-c", &script])));
    assert!(error.ends_with("was ended: the time of step example, 2.0 s, is over"), "{error}");
    assert!(error.contains("sleep 300"), "{error}");
    nothing_is_left(&folder);
}

#[test]
fn what_does_not_hear_is_killed() {
    let (shop, folder) = (shop(SOON), folder("deaf"));
    let pid = folder.join("pid");
    let script = format!("echo $$ > {}; trap '' TERM; while :; do sleep 1; done", pid.display());
    let error = within(|| shop.output(shop.program("sh").args(["-c", &script])));
    assert!(error.contains("was ended"), "{error}");
    nothing_is_left(&folder);
}

#[test]
fn what_a_command_leaves_running_is_ended_and_its_output_is_there() {
    let (shop, folder) = (shop(LATE), folder("left"));
    let script = script(&folder, "echo said");
    let begun = Instant::now();
    assert_eq!(shop.output(shop.program("sh").args(["-c", &script])).unwrap(), "said\n");
    assert!(begun.elapsed() < LATE / 2);
    nothing_is_left(&folder);
}

#[test]
fn a_limit_of_its_own_is_named() {
    let shop = shop(LATE);
    let error = within(|| shop.output_within(shop.program("sleep").arg("300"), SOON));
    assert_eq!(error, "`sleep 300` was ended: it ran for longer than 2.0 s");
}

#[test]
fn a_test_that_hangs_is_ended_and_named() {
    let (mut shop, folder) = (shop(LATE), folder("test"));
    let lines = "echo '     Running tests/x.rs (target/x-1)' >&2; sleep 0.1; \
                 echo 'test quick has been running for over 60 seconds'; \
                 echo 'test a::b has been running for over 60 seconds'; \
                 echo 'test quick ... ok'; wait";
    let script = script(&folder, lines);
    let mut command = shop.program("sh");
    command.args(["-c", &script]);
    let limit = Duration::from_secs(60) + SOON;
    let error = within(|| shop.run_tests_within(&mut command, limit));
    let head = "test a::b (Running tests/x.rs (target/x-1)) ran for longer than 1 min 2 s; `sh";
    assert!(error.starts_with(head), "{error}");
    nothing_is_left(&folder);
}

#[test]
fn a_step_that_ends_names_the_tests_that_ran() {
    let (mut shop, folder) = (shop(SOON), folder("step"));
    let lines = "echo '   Doc-tests x'; \
                 echo 'test a::b has been running for over 60 seconds'; wait";
    let script = script(&folder, lines);
    let mut command = shop.program("sh");
    command.args(["-c", &script]);
    let error = within(|| shop.run_tests_within(&mut command, 2 * LATE));
    let tail = "the time of step example, 2.0 s, is over; \
                test a::b (Doc-tests x) ran for over a minute";
    assert!(error.ends_with(tail), "{error}");
    nothing_is_left(&folder);
}

#[test]
fn tests_that_leave_something_running_are_counted_all_the_same() {
    let (mut shop, folder) = (shop(LATE), folder("counted"));
    let script = script(&folder, "echo 'test result: ok. 7 passed; 0 failed;'");
    let mut command = shop.program("sh");
    command.args(["-c", &script]);
    let begun = Instant::now();
    assert_eq!(shop.run_tests(&mut command).unwrap(), 7);
    assert!(begun.elapsed() < LATE / 2);
    nothing_is_left(&folder);
}
