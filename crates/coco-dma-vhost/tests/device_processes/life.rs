//! How a device process starts and ends.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use coco_dma_vhost::device::{Backing, DeviceError, DeviceProcess, EMBEDDED_ARG, Export, Kind};
use rustix::fs::{CWD, FileType, Mode};
use rustix::process::{Signal, pidfd_send_signal};

use crate::front::{Outcome, PATIENCE, ready, watch};
use crate::{OK, PARENT_ARG, connect, launch, null, start};

pub(crate) fn is_noticed_when_killed(kind: Kind) {
    let device = null(kind);
    let mut front = connect(&device, 0, true);
    assert_eq!(front.read(0, 512), Outcome::Done { status: OK, len: 513 });
    assert_eq!(device.poll_exit(), None);
    assert!(!ready(&[device.exit_fd()], Duration::ZERO));
    pidfd_send_signal(watch(device.pid()), Signal::KILL).unwrap();
    assert!(ready(&[device.exit_fd()], PATIENCE));
    assert_eq!(front.read(0, 512), Outcome::HungUp);
    let exit = device.poll_exit().unwrap();
    assert_eq!(exit.status.signal(), Some(9), "{exit}");
    assert_eq!(device.poll_exit(), Some(exit), "it stays ended");
    let error = device.connect(0).unwrap_err();
    assert!(matches!(error, DeviceError::Died { .. }), "{error}");
    assert!(error.to_string().contains("killed by signal 9"), "{error}");
    assert!(device.mappings().unwrap().is_empty());

    // Killed while a connection waits to be answered.
    let device = null(kind);
    let _first = device.connect(0).unwrap();
    let watched = watch(device.pid());
    std::thread::scope(|scope| {
        let second = scope.spawn(|| device.connect(0));
        std::thread::sleep(Duration::from_millis(200));
        pidfd_send_signal(&watched, Signal::KILL).unwrap();
        let begun = Instant::now();
        assert!(matches!(second.join().unwrap(), Err(DeviceError::Died { .. })));
        assert!(begun.elapsed() < Duration::from_secs(8), "as long as one that lives");
    });
}

/// Sockets of ours that have a name, wherever we make them.
fn named_sockets() -> Vec<String> {
    [std::env::temp_dir(), "/dev/shm".into(), "/run".into()]
        .into_iter()
        .filter_map(|dir| fs::read_dir(dir).ok())
        .flat_map(|entries| entries.flatten())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with(&format!(".coco-dma-{}-", std::process::id())))
        .collect()
}

pub(crate) fn leaves_nothing_behind(kind: Kind) {
    let device = null(kind);
    let front = connect(&device, 0, true);
    let (pid, watched) = (device.pid(), watch(device.pid()));
    assert_eq!(named_sockets(), Vec::<String>::new(), "while it runs");
    drop(device);
    assert!(ready(&[watched.as_fd()], Duration::ZERO), "it still runs");
    assert!(!Path::new(&format!("/proc/{pid}")).exists(), "it was not reaped");
    assert!(front.hung_up());
    // One that does not listen is ended all the same.
    let device = null(kind);
    drop(device.connect(0).unwrap());
    pidfd_send_signal(watch(device.pid()), Signal::STOP).unwrap();
    std::thread::sleep(Duration::from_millis(50));
    let exit = device.stop().unwrap();
    assert_eq!(exit.status.signal(), Some(9), "{exit}");
    assert_eq!(named_sockets(), Vec::<String>::new());
}

/// The other side of the next test.
pub(crate) fn wait_to_be_killed(args: &[String]) -> ! {
    let kind = if args[1] == "embedded" { Kind::Embedded } else { Kind::QemuStorageDaemon };
    let device = null(kind);
    drop(device.connect(0).unwrap());
    println!("{}", device.pid());
    std::io::stdout().flush().unwrap();
    loop {
        std::thread::park();
    }
}

pub(crate) fn ends_with_its_parent(kind: Kind) {
    let mut parent = Command::new(std::env::current_exe().unwrap())
        .args([PARENT_ARG, &kind.to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(parent.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let watched = watch(line.trim().parse().unwrap());
    assert!(!ready(&[watched.as_fd()], Duration::from_millis(50)));
    parent.kill().unwrap();
    parent.wait().unwrap();
    assert!(ready(&[watched.as_fd()], PATIENCE), "it outlived its parent");
}

pub(crate) fn outlives_the_thread_that_started_it(kind: Kind) {
    let device = std::thread::spawn(move || null(kind)).join().unwrap();
    std::thread::sleep(Duration::from_millis(200));
    let mut front = connect(&device, 0, true);
    assert_eq!(front.read(0, 512), Outcome::Done { status: OK, len: 513 });
}

pub(crate) fn says_why_it_cannot_start(kind: Kind) {
    let dir = tempfile::tempdir().unwrap();
    let refused = |backing| {
        let exports = vec![Export { backing, writable: false }];
        DeviceProcess::start(&launch(kind, exports)).unwrap_err()
    };
    let error = refused(Backing::File(dir.path().join("missing")));
    assert!(matches!(error, DeviceError::Image { .. }), "{error}");
    let error = refused(Backing::File(dir.path().to_path_buf()));
    assert!(matches!(error, DeviceError::NotAnImage { what: "a directory", .. }), "{error}");
    let pipe = dir.path().join("pipe");
    rustix::fs::mknodat(CWD, &pipe, FileType::Fifo, Mode::RWXU, 0).unwrap();
    let error = refused(Backing::File(pipe));
    assert!(matches!(error, DeviceError::NotAnImage { .. }), "{error}");
    let error = DeviceProcess::start(&launch(kind, vec![])).unwrap_err();
    assert!(matches!(error, DeviceError::NoExport), "{error}");
    if kind == Kind::Embedded {
        let blockdev = Backing::Blockdev { args: vec![], node: "x".to_owned() };
        assert!(matches!(refused(blockdev), DeviceError::BackingUnsupported));
        let mut launch = launch(kind, vec![]);
        launch.exports.push(Export { backing: Backing::Null { size: 512 }, writable: true });
        launch.embedded_program = Some(dir.path().join("nobody"));
        let error = DeviceProcess::start(&launch).unwrap_err();
        assert!(matches!(error, DeviceError::Spawn { .. }), "{error}");
    }
}

pub(crate) fn leaves_with_a_line_when_it_cannot_serve(kind: Kind) {
    let args = ["--blockdev", "driver=null-co,node-name=there"].map(str::to_owned).to_vec();
    let backing = Backing::Blockdev { args, node: "elsewhere".to_owned() };
    let device = start(kind, vec![Export { backing, writable: false }]);
    let error = device.connect(0).unwrap_err();
    assert!(matches!(error, DeviceError::Died { .. }), "{error}");
    assert!(error.to_string().contains("elsewhere"), "{error}");
}

pub(crate) fn leaves_with_a_line_on_wrong_arguments(_: Kind) {
    let parent = std::process::id().to_string();
    let cases: &[(&[&str], &str)] = &[
        (&[], "nothing to serve"),
        (&["--export"], "needs a value"),
        (&["--nonsense", "1"], "unknown argument"),
        (&["--export", "listen=5"], "needs listen="),
        (&["--export", "listen=x,null=1"], "no number"),
        (&["--export", "listen=77,null=512"], "by hand"),
        (&["--parent", "1", "--export", "listen=77,null=512"], "give up its rights"),
        (&["--parent", &parent, "--export", "listen=77,null=512"], "was not handed down"),
        (&["--parent", &parent, "--export", "listen=0,null=512"], "was not handed down"),
    ];
    for (args, word) in cases {
        let output = Command::new(std::env::current_exe().unwrap())
            .arg(EMBEDDED_ARG)
            .args(*args)
            .output()
            .unwrap();
        let line = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{args:?}: {line}");
        assert!(line.contains(word) && line.lines().count() == 1, "{args:?}: {line}");
    }
}
