//! `coco-dma run --bench` as a user runs it. What the figures are is the machine's matter; that they
//! are there, and belong to what they are called, is ours.

use std::process::Child;
use std::process::Command;
use std::process::Output;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

use serde_json::Value;

const DEVICES: [&str; 2] = ["embedded", "qemu-storage-daemon"];

fn bench(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_coco-dma"));
    command.args(["run", "--bench"]).args(arguments).stdin(Stdio::null());
    command
}

fn can_serve(device: &str) -> bool {
    let found = device == "embedded"
        || Command::new(device).arg("--version").output().is_ok_and(|o| o.status.success());
    if !found {
        eprintln!("LEFT OUT: run --bench with {device}: it is not installed");
    }
    found
}

fn sentence(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn report(output: &Output) -> Value {
    assert!(output.status.success(), "{}", sentence(output));
    serde_json::from_slice(&output.stdout).expect("one JSON document")
}

#[test]
fn every_point_both_ways_on_both_devices() {
    for device in DEVICES {
        if !can_serve(device) {
            continue;
        }
        let begun = Instant::now();
        let output =
            bench(&["--quick", "--json", "--device", device, "--platform", "cca"]).output();
        let report = report(&output.expect("it runs"));
        assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
        assert_eq!((&report["ok"], &report["restarts"]), (&true.into(), &0.into()));
        assert_eq!((&report["device"], &report["platform"]), (&device.into(), &"cca".into()));
        assert!(report["identity"].as_str().is_some_and(|name| !name.is_empty()));
        assert_eq!(
            (&report["sha256_in"], &report["attacks"]),
            (&Value::Null, &Value::Array(vec![]))
        );
        assert_eq!((&report["refused"], &report["quarantined"]), (&0.into(), &0.into()));

        let rows = report["rows"].as_array().expect("rows");
        let mut points = Vec::new();
        let (mut requests, mut bytes) = ([0, 0], 0);
        for row in rows {
            let figure = |key: &str| row[key].as_f64().filter(|value| value.is_finite());
            for key in ["ns", "cpu_ns", "iops", "ratio", "cpu_ratio"] {
                assert!(figure(key).is_some_and(|value| value > 0.0), "{key} of {row}");
            }
            let (ns, iops) = (figure("ns").unwrap_or(0.0), figure("iops").unwrap_or(0.0));
            assert!((ns * iops / 1e9 - 1.0).abs() < 1e-6, "{row}");
            let way = row["way"].as_str().expect("a word");
            assert!(way != "direct" || row["ratio"] == 1.0, "{row}");
            let count = row["requests"].as_u64().expect("a number");
            let depth = row["depth"].as_u64().expect("a number");
            assert!(count >= depth, "{row}");
            requests[usize::from(way == "direct")] += count;
            bytes += count * row["size"].as_u64().expect("a number");
            points.push((row["size"].as_u64(), depth, row["direction"].as_str(), way));
        }
        let mut wanted = Vec::new();
        for size in [4096, 131_072] {
            for depth in [1, 32] {
                for direction in ["to", "from"] {
                    wanted.extend(
                        ["bounced", "direct"].map(|way| (Some(size), depth, Some(direction), way)),
                    );
                }
            }
        }
        assert_eq!(points, wanted);
        assert_eq!(
            (&report["bytes"], &report["requests"]),
            (&bytes.into(), &requests.iter().sum::<u64>().into(),)
        );
        // Warm-ups and controls are maps too.
        for (way, requests) in ["bounced", "direct"].into_iter().zip(requests) {
            let maps = report[way].as_u64().expect("a number");
            assert!(maps > 3 * requests && maps.is_multiple_of(3), "{way}: {maps}");
        }
        let mapped = report["device_mappings"].as_array().expect("a list");
        for name in ["coco-dma-pool", "coco-dma-region"] {
            let lines = mapped.iter().filter_map(Value::as_str);
            assert_eq!(lines.filter(|line| line.contains(name)).count(), 1, "{name}: {mapped:?}");
        }
    }
}

#[test]
fn a_table_for_people() {
    let output = bench(&["--quick", "--device", "embedded"]).output().expect("it runs");
    assert!(output.status.success(), "{}", sentence(&output));
    let text = String::from_utf8_lossy(&output.stdout);
    for word in ["128 KiB", "bounced", "direct", "ratio", "/s)", "device has mapped"] {
        assert!(text.contains(word), "{word}: {text}");
    }
}

#[test]
fn what_does_not_go_together_is_wrong_usage() {
    for (arguments, words) in [
        (&["--image", "disk.img"][..], "--bench does not go with --image"),
        (&["--output", "disk.img"], "--bench does not go with --output"),
        (&["--queue-depth", "8"], "--bench does not go with --queue-depth"),
        (&["--pool-size", "4MiB"], "--bench needs 4492 KiB"),
        (&["--pool-size", "4097KiB"], "no whole pages"),
        (&["--platform", "open"], "nothing is private on 'open'"),
    ] {
        let output = bench(arguments).output().expect("it runs");
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(output.stdout.is_empty());
        let said = sentence(&output);
        assert!(said.contains(words) && said.lines().count() == 1, "{said}");
    }
    let mut quick = Command::new(env!("CARGO_BIN_EXE_coco-dma"));
    let output = quick.args(["run", "--quick"]).output().expect("it runs");
    assert_eq!(output.status.code(), Some(2), "{}", sentence(&output));
    assert!(sentence(&output).contains("--bench"), "{}", sentence(&output));
}

#[test]
fn the_least_pool_that_is_named_is_enough() {
    let arguments = ["--quick", "--json", "--device", "embedded", "--pool-size", "4492KiB"];
    report(&bench(&arguments).output().expect("it runs"));
}

#[test]
fn a_missing_daemon_is_status_3() {
    let output = bench(&["--quick", "--device", "qemu-storage-daemon"]).env("PATH", "").output();
    let output = output.expect("it runs");
    assert_eq!(output.status.code(), Some(3), "{}", sentence(&output));
}

/// The device process of a run, once there is one.
fn device_of(run: &mut Child) -> Option<i32> {
    loop {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", run.id())).into_iter().flatten();
        for task in tasks.flatten() {
            let list = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
            if let Some(pid) = list.split_whitespace().find_map(|pid| pid.parse().ok()) {
                return Some(pid);
            }
        }
        if run.try_wait().expect("ours").is_some() {
            return None;
        }
        std::thread::yield_now();
    }
}

#[test]
fn a_device_that_is_killed_is_replaced() {
    for device in DEVICES {
        if !can_serve(device) {
            continue;
        }
        for after in [0, 20, 300] {
            let mut run = bench(&["--quick", "--json", "--device", device])
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .expect("it runs");
            let pid = device_of(&mut run).and_then(rustix::process::Pid::from_raw);
            // A moment in the middle of whatever it does then.
            std::thread::sleep(Duration::from_millis(after));
            if let Some(pid) = pid {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
            let report = report(&run.wait_with_output().expect("it ends"));
            assert_eq!(report["restarts"], 1, "{device}, killed after {after} ms");
            assert_eq!(report["rows"].as_array().map(Vec::len), Some(16));
        }
    }
}
