//! `coco-dma run` as a user runs it, on both devices, and on what can go wrong.

mod common;

use std::fs;
use std::path::Path;
use std::process::Child;
use std::process::Command;
use std::process::Output;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

use serde_json::Value;

const DEVICES: [&str; 2] = ["embedded", "qemu-storage-daemon"];

/// The command, in a folder of its own as `TMPDIR`, so that leftovers show.
fn command(scratch: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_coco-dma"));
    command.arg("run").env("TMPDIR", scratch).stdin(Stdio::null());
    command
}

fn can_serve(device: &str) -> bool {
    let found = device == "embedded"
        || Command::new(device).arg("--version").output().is_ok_and(|o| o.status.success());
    if !found {
        eprintln!("LEFT OUT: run with {device}: it is not installed");
    }
    found
}

fn image(folder: &Path, len: usize) -> std::path::PathBuf {
    let path = folder.join("disk, with=odd name.img");
    let bytes: Vec<u8> = (0..len).map(|n| (n * n / 7 % 251).to_le_bytes()[0]).collect();
    fs::write(&path, bytes).expect("an image");
    path
}

fn sentence(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn equal_hashes_on_both_devices_and_the_keys_of_the_document() {
    for device in DEVICES {
        if !can_serve(device) {
            continue;
        }
        let folder = tempfile::tempdir().expect("a folder");
        let scratch = tempfile::tempdir().expect("a folder");
        // No multiple of a request, and a last sector alone.
        let image = image(folder.path(), (1 << 20) + 3 * 65536 + 512);
        let out = folder.path().join("out.img");
        let output = command(scratch.path())
            .args(["--json", "--device", device, "--platform", "cca", "--image"])
            .arg(&image)
            .arg("--output")
            .arg(&out)
            .output()
            .expect("it runs");
        assert!(output.status.success(), "{device}: {}", sentence(&output));
        let report: Value = serde_json::from_slice(&output.stdout).expect("one JSON document");
        assert_eq!(report["ok"], true);
        assert_eq!(report["device"], device);
        assert_eq!(report["bytes"], (1 << 20) + 3 * 65536 + 512);
        assert_eq!(report["sha256_in"], report["sha256_out"]);
        assert_eq!(report["sha256_in"], report["sha256_through"]);
        assert_eq!(report["sha256_in"].as_str().map(str::len), Some(64));
        assert!(report["bounced"].as_u64() > Some(40), "{report}");
        assert_eq!((&report["refused"], &report["quarantined"]), (&0.into(), &0.into()));
        assert!(report["direct"].is_u64());
        let mapped = report["device_mappings"].as_array().expect("a list");
        assert!(!mapped.is_empty());
        for line in mapped {
            assert!(line.as_str().is_some_and(|line| line.contains("coco-dma-pool")), "{line}");
        }
        let attacks = report["attacks"].as_array().expect("a list");
        assert!(attacks.len() >= 8, "{attacks:?}");
        for attack in attacks {
            assert_eq!((&attack["refused"], &attack["intact"]), (&true.into(), &true.into()));
        }
        assert!(fs::read(&image).expect("there") == fs::read(&out).expect("there"), "{device}");
        assert_eq!(fs::read_dir(scratch.path()).expect("there").count(), 0, "left behind");
    }
}

#[test]
fn every_guest_platform_runs() {
    let folder = tempfile::tempdir().expect("a folder");
    let image = image(folder.path(), 64 << 10);
    for platform in ["sev", "snp", "snp-vtom", "tdx", "cca", "pkvm", "hyperv", "s390", "pef"] {
        let output = command(folder.path())
            .args(["--json", "--device", "embedded", "--platform", platform, "--image"])
            .arg(&image)
            .output()
            .expect("it runs");
        assert!(output.status.success(), "{platform}: {}", sentence(&output));
    }
}

#[test]
fn a_missing_daemon_is_status_3_and_auto_does_without() {
    let folder = tempfile::tempdir().expect("a folder");
    let image = image(folder.path(), 64 << 10);
    let run = |device: &str| {
        command(folder.path())
            .env("PATH", folder.path())
            .args(["--json", "--device", device, "--image"])
            .arg(&image)
            .output()
            .expect("it runs")
    };
    let missing = run("qemu-storage-daemon");
    assert_eq!(missing.status.code(), Some(3));
    assert!(sentence(&missing).contains("install qemu-utils"), "{}", sentence(&missing));
    let auto = run("auto");
    assert!(auto.status.success(), "{}", sentence(&auto));
    let report: Value = serde_json::from_slice(&auto.stdout).expect("one JSON document");
    assert_eq!(report["device"], "embedded");
}

#[test]
fn the_image_is_not_written_over() {
    let folder = tempfile::tempdir().expect("a folder");
    let image = image(folder.path(), 4096);
    let before = fs::read(&image).expect("there");
    let output = command(folder.path())
        .args(["--device", "embedded", "--image"])
        .arg(&image)
        .arg("--output")
        .arg(&image)
        .output()
        .expect("it runs");
    assert_eq!(output.status.code(), Some(2), "{}", sentence(&output));
    assert!(fs::read(&image).expect("there") == before);
}

/// Children of a process: the device processes.
fn children(parent: &Child) -> Vec<u32> {
    let mut found = Vec::new();
    let tasks = fs::read_dir(format!("/proc/{}/task", parent.id())).into_iter().flatten();
    for task in tasks.flatten() {
        let list = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        found.extend(list.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
    }
    found
}

#[test]
fn a_device_that_is_killed_ends_the_run_with_a_clear_error() {
    for device in DEVICES {
        if !can_serve(device) {
            continue;
        }
        let folder = tempfile::tempdir().expect("a folder");
        let image = folder.path().join("sparse.img");
        fs::File::create(&image).and_then(|file| file.set_len(4 << 30)).expect("an image");
        // Under valgrind's eyes or not: the copy of 4 GiB takes seconds, so that the device is
        // killed on its way.
        let mut run = command(folder.path())
            .args(["--device", device, "--image"])
            .arg(&image)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it runs");
        let begun = Instant::now();
        let victim = loop {
            if let Some(pid) = children(&run).first() {
                break *pid;
            }
            assert!(run.try_wait().expect("ours").is_none(), "it ended before it had a device");
            assert!(begun.elapsed() < Duration::from_secs(60), "no device process");
            std::thread::yield_now();
        };
        let killed = Command::new("kill").args(["-9", &victim.to_string()]).status();
        assert!(killed.expect("kill").success());
        let since = Instant::now();
        let output = run.wait_with_output().expect("it ends");
        assert!(since.elapsed() < Duration::from_secs(20), "{device}: {:?}", since.elapsed());
        assert_eq!(output.status.code(), Some(1), "{device}: {}", sentence(&output));
        assert!(output.stdout.is_empty());
        let said = sentence(&output);
        assert_eq!(said.lines().filter(|line| !line.contains("note:")).count(), 1, "{said}");
        let left: Vec<_> = fs::read_dir(folder.path()).expect("there").flatten().collect();
        assert_eq!(left.len(), 1, "left behind: {left:?}");
    }
}
