//! `coco-dma run` as a user runs it, on both devices, and on what can go wrong.

mod common;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Child;
use std::process::Command;
use std::process::Output;
use std::process::Stdio;
use std::sync::Mutex;
use std::time::Duration;
use std::time::Instant;

use coco_dma_vhost::copy::{DEFAULT_DEPTH, DEFAULT_REQUEST};
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
    let _alone = ALONE.lock();
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

/// Held by tests that measure time.
static ALONE: Mutex<()> = Mutex::new(());

/// Pseudo-random numbers, the same ones each time.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit.max(1)
    }
}

fn kill(pid: u32) {
    let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw).expect("a pid");
    // It may have ended by itself.
    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
}

/// Starts a run of an image whose device is going to be killed.
fn start(device: &str, scratch: &Path, image: &Path, out: &Path) -> Child {
    command(scratch)
        .args(["--json", "--device", device, "--platform", "snp", "--image"])
        .arg(image)
        .arg("--output")
        .arg(out)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it runs")
}

/// A run that held, whatever happened to its devices. Answers how many were replaced.
#[expect(clippy::indexing_slicing, reason = "a key that is missing is null")]
fn held(output: &Output, scratch: &Path, what: &str) -> u64 {
    assert!(output.status.success(), "{what}: {}", sentence(output));
    let report: Value = serde_json::from_slice(&output.stdout).expect("one JSON document");
    assert_eq!(report["ok"], true, "{what}");
    assert_eq!(report["sha256_in"], report["sha256_out"], "{what}");
    assert_eq!(report["sha256_in"], report["sha256_through"], "{what}");
    assert_eq!((&report["refused"], &report["quarantined"]), (&0.into(), &0.into()), "{what}");
    assert!(report["device_mappings"].as_array().is_some_and(|list| !list.is_empty()), "{what}");
    let attacks = report["attacks"].as_array().expect("a list");
    assert_eq!(attacks.len(), 11, "{what}");
    for attack in attacks {
        assert_eq!((&attack["refused"], &attack["intact"]), (&true.into(), &true.into()));
        // A death is no refusal: who refuses says why.
        let how = attack["how"].as_str().expect("a sentence");
        assert!(how.contains("saying: "), "{what}: {attack}");
    }
    assert_eq!(fs::read_dir(scratch).expect("there").count(), 0, "{what}: left behind");
    report["restarts"].as_u64().expect("a number")
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
fn a_device_that_is_killed_is_replaced_whichever_moment_it_was() {
    const MOMENTS: u32 = 20;
    let _alone = ALONE.lock();
    for device in DEVICES {
        if !can_serve(device) {
            continue;
        }
        let folder = tempfile::tempdir().expect("a folder");
        let scratch = tempfile::tempdir().expect("a folder");
        let (image, out) = (image(folder.path(), 12 << 20), folder.path().join("out.img"));
        let undisturbed = || {
            let begun = Instant::now();
            let output = start(device, scratch.path(), &image, &out).wait_with_output();
            assert_eq!(held(&output.expect("it ends"), scratch.path(), "undisturbed"), 0);
            u64::try_from(begun.elapsed().as_micros()).expect("soon")
        };
        let mut whole = undisturbed().min(undisturbed());
        let (mut random, mut restarts) = (Random(0x5EED), 0);
        for moment in 0..MOMENTS {
            // One in every twentieth of a run: connecting, transferring, flushing, attacking.
            let at = whole * u64::from(moment) / u64::from(MOMENTS);
            let at = Duration::from_micros(at + random.below(whole / u64::from(MOMENTS)));
            let mut run = start(device, scratch.path(), &image, &out);
            std::thread::sleep(at);
            // Not before there is one.
            while children(&run).is_empty() && run.try_wait().expect("ours").is_none() {
                std::thread::yield_now();
            }
            children(&run).into_iter().for_each(kill);
            if run.try_wait().expect("ours").is_some() {
                // The machine has less to do than before.
                whole = whole.min(u64::try_from(at.as_micros()).expect("soon"));
            }
            let since = Instant::now();
            let output = run.wait_with_output().expect("it ends");
            let what = format!("{device}, killed after {at:?} of {whole} us");
            assert!(since.elapsed() < Duration::from_secs(25), "{what}: {:?}", since.elapsed());
            let restarted = held(&output, scratch.path(), &what);
            assert!(restarted <= 1, "{what}: {restarted}");
            restarts += restarted;
            assert!(fs::read(&image).expect("there") == fs::read(&out).expect("there"), "{what}");
        }
        // The last ones may come when everything is done, and a run may be quicker than the first.
        assert!(restarts >= 12, "{device}: {restarts} of {MOMENTS}");
    }
}

#[test]
fn a_device_that_is_killed_several_times_is_replaced_as_often() {
    let _alone = ALONE.lock();
    for device in DEVICES {
        if !can_serve(device) {
            continue;
        }
        let folder = tempfile::tempdir().expect("a folder");
        let scratch = tempfile::tempdir().expect("a folder");
        let (image, out) = (image(folder.path(), 32 << 20), folder.path().join("out.img"));
        let mut run = start(device, scratch.path(), &image, &out);
        let (mut killed, mut present) = (Vec::new(), None);
        while killed.len() < 6 && run.try_wait().expect("ours").is_none() {
            let written = fs::metadata(&out).map_or(0, |file| file.blocks() * 512);
            let child = children(&run).into_iter().find(|pid| !killed.contains(pid));
            match (child, present) {
                // Not before it has done something: where more was written than is on its way at
                // once, a request was completed. The one before it has ended, so all of it is its
                // own.
                (Some(pid), Some((known, before))) if pid == known => {
                    if written > before + (DEFAULT_DEPTH * DEFAULT_REQUEST) as u64 {
                        kill(pid);
                        killed.push(pid);
                    }
                }
                (child, _) => present = child.map(|pid| (pid, written)),
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        let output = run.wait_with_output().expect("it ends");
        let restarts = held(&output, scratch.path(), device);
        assert!(restarts >= 2 && restarts <= killed.len() as u64, "{device}: {restarts}");
    }
}

#[test]
fn a_device_that_is_stopped_is_replaced() {
    let _alone = ALONE.lock();
    let folder = tempfile::tempdir().expect("a folder");
    let scratch = tempfile::tempdir().expect("a folder");
    let (image, out) = (image(folder.path(), 4 << 20), folder.path().join("out.img"));
    let run = start("embedded", scratch.path(), &image, &out);
    let begun = Instant::now();
    // Before it can answer its first connection: that is given 10 seconds.
    let victim = loop {
        if let Some(pid) = children(&run).first() {
            break *pid;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "no device process");
        std::thread::yield_now();
    };
    let stopped = Command::new("kill").args(["-STOP", &victim.to_string()]).status();
    assert!(stopped.expect("kill").success());
    let output = run.wait_with_output().expect("it ends");
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
    assert_eq!(held(&output, scratch.path(), "stopped"), 1);
}

#[test]
fn a_device_that_is_killed_whenever_it_starts_ends_the_run_with_a_clear_error() {
    let _alone = ALONE.lock();
    for device in DEVICES {
        if !can_serve(device) {
            continue;
        }
        let folder = tempfile::tempdir().expect("a folder");
        let scratch = tempfile::tempdir().expect("a folder");
        let image = folder.path().join("sparse.img");
        fs::File::create(&image).and_then(|file| file.set_len(4 << 30)).expect("an image");
        let begun = Instant::now();
        let mut run = start(device, scratch.path(), &image, &folder.path().join("out.img"));
        let mut killed = Vec::new();
        while run.try_wait().expect("ours").is_none() {
            for pid in
                children(&run).into_iter().filter(|pid| !killed.contains(pid)).collect::<Vec<_>>()
            {
                kill(pid);
                killed.push(pid);
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "{device}: it goes on for ever");
        }
        let output = run.wait_with_output().expect("it ended");
        assert_eq!(output.status.code(), Some(1), "{device}: {}", sentence(&output));
        assert!(output.stdout.is_empty());
        let said = sentence(&output);
        assert_eq!(said.lines().filter(|line| !line.contains("note:")).count(), 1, "{said}");
        assert!(said.contains("3 device processes in a row"), "{said}");
        // Most often three; one that was quicker than we are does not count.
        assert!(killed.len() >= 3, "{said}");
        assert_eq!(fs::read_dir(scratch.path()).expect("there").count(), 0, "left behind");
    }
}
