//! What a device process has and may.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Duration;

use coco_dma_vhost::device::{Backing, Export, Kind, Separation};
use vhost::vhost_user::VhostUserFrontend;

use crate::front::{Front, Outcome, PATIENCE, POOL, memory, region};
use crate::{OK, connect, image, null, start};

pub(crate) fn maps_what_is_shared_and_nothing_else(kind: Kind) {
    let device = null(kind);
    let stream = device.connect(0).unwrap();
    assert_eq!(device.mappings().unwrap(), Vec::<String>::new());
    let mut front = Front::new(stream, true);
    let lines = device.mappings().unwrap();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].contains("/memfd:shared-pool"), "{lines:?}");
    // Shared at run time, and taken back.
    let more = memory("one-more", 65536);
    let at = POOL + (1 << 30);
    let mut messages = front.front.clone();
    assert_eq!(front.read(0, 512), Outcome::Done { status: OK, len: 513 });
    for _ in 0..20 {
        messages.add_mem_region(&region(&more, at, 65536)).unwrap();
        assert_eq!(device.mappings().unwrap().len(), 2);
        let read = front.request(0, 0, at + 4096, 4096);
        assert_eq!(read, Outcome::Done { status: OK, len: 4097 });
        messages.remove_mem_region(&region(&more, at, 65536)).unwrap();
        let lines = device.mappings().unwrap();
        assert!(!lines.iter().any(|line| line.contains("one-more")), "{lines:?}");
        assert_eq!(front.read(0, 512), Outcome::Done { status: OK, len: 513 });
    }
    assert!((8..=509).contains(&messages.get_max_mem_slots().unwrap()));
    assert_eq!(front.request(0, 0, at + 4096, 4096), Outcome::HungUp, "taken back");
    drop((front, messages));
    drop(device.connect(0).unwrap());
    assert_eq!(device.mappings().unwrap(), Vec::<String>::new(), "after the connection");
}

/// A region is taken back while the device writes to it: the answer means that it is done.
pub(crate) fn a_region_taken_back_is_gone(kind: Kind) {
    let size = 16 << 20;
    let exports = vec![Export { backing: Backing::Null { size }, writable: true }];
    let device = start(kind, exports);
    let mut front = connect(&device, 0, true);
    let mut messages = front.front.clone();
    let at = POOL + (1 << 30);
    let len = u32::try_from(size).unwrap();
    for round in 0..20 {
        let more = memory("one-more", size);
        messages.add_mem_region(&region(&more, at, size)).unwrap();
        front.prepare(0, 0, at, len);
        front.offer(0);
        std::thread::sleep(Duration::from_micros(50 * round));
        // No answer: the request came after the change, and its refusal before the answer.
        if messages.remove_mem_region(&region(&more, at, size)).is_ok() {
            let lines = device.mappings().unwrap();
            assert!(!lines.iter().any(|line| line.contains("one-more")), "{round}: {lines:?}");
        }
        // Either it came first or was refused.
        match front.outcome(PATIENCE) {
            Outcome::HungUp => {
                front = connect(&device, 0, true);
                messages = front.front.clone();
            }
            outcome => assert_eq!(outcome, Outcome::Done { status: OK, len: len + 1 }),
        }
    }
}

/// In a container, root usually lacks the right to trace.
pub(crate) fn maps_without_the_right_to_trace(kind: Kind) {
    if !rustix::process::geteuid().is_root() {
        eprintln!("LEFT OUT: {kind}::maps_without_the_right_to_trace: we are not root");
        return;
    }
    // The other two are taken for it: sys_admin by old kernels, perfmon by new ones.
    let lost = "-sys_ptrace,-sys_admin,-perfmon";
    let again = Command::new("setpriv")
        .args([format!("--bounding-set={lost}"), format!("--inh-caps={lost}")])
        .arg(std::env::current_exe().unwrap())
        .arg(format!("{kind}::maps_what_is_shared"))
        .output();
    let Ok(again) = again else {
        eprintln!("LEFT OUT: {kind}::maps_without_the_right_to_trace: no setpriv (util-linux)");
        return;
    };
    let text = String::from_utf8_lossy(&again.stdout);
    let errors = String::from_utf8_lossy(&again.stderr);
    assert!(text.contains("1 passed; 0 failed"), "{text}{errors}");
}

/// Whether we are root with the capabilities SETGID and SETUID, and every uid exists here.
fn may_change_uid() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap();
    let effective = u64::from_str_radix(effective.trim(), 16).unwrap();
    let map = fs::read_to_string("/proc/self/uid_map").unwrap();
    rustix::process::geteuid().is_root() && effective & 0xC0 == 0xC0 && map.contains("4294967295")
}

pub(crate) fn gives_up_its_rights(kind: Kind) {
    let dir = tempfile::tempdir().unwrap();
    let closed = dir.path().join("closed");
    image(&closed, 8);
    let open = dir.path().join("open");
    image(&open, 8);
    fs::set_permissions(&open, fs::Permissions::from_mode(0o644)).unwrap();
    // CAP_DAC_OVERRIDE is bit 1: kept only by a device that opens a closed file by itself.
    for (image, kept) in [(closed, 2_u64), (open, 0)] {
        let backing = Backing::File(image);
        let device = start(kind, vec![Export { backing, writable: false }]);
        drop(device.connect(0).unwrap());
        let status = fs::read_to_string(format!("/proc/{}/status", device.pid())).unwrap();
        let field = |name: &str| -> Vec<&str> {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap().trim_start_matches(':').split_whitespace().collect()
        };
        let hex = |name: &str| u64::from_str_radix(field(name)[0], 16).unwrap();
        if may_change_uid() {
            assert_eq!(device.separation(), Separation::OtherUid { uid: 65534 });
            assert_eq!(field("Uid"), ["65534"; 4]);
            assert_eq!(field("Gid"), ["65534"; 4]);
            assert_eq!(field("Groups"), Vec::<&str>::new());
            let kept = if kind == Kind::Embedded { 0 } else { kept };
            assert_eq!((hex("CapPrm"), hex("CapEff"), hex("CapBnd")), (kept, kept, 0));
        } else {
            eprintln!("LEFT OUT: {kind}::gives_up_its_rights: another uid: we may not change it");
            assert!(matches!(device.separation(), Separation::Landlock | Separation::SameUid));
            assert_eq!((hex("CapPrm"), hex("CapEff")), (0, 0));
        }
        assert_eq!(field("NoNewPrivs"), ["1"]);
        if kind == Kind::Embedded {
            assert_eq!(field("Seccomp"), ["2"]);
        }
        let limits = fs::read_to_string(format!("/proc/{}/limits", device.pid())).unwrap();
        let core = limits.lines().find(|line| line.starts_with("Max core")).unwrap();
        assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
    }
}

pub(crate) fn inherits_only_its_descriptors(kind: Kind) {
    // A descriptor that somebody forgot to mark close-on-exec.
    let secret = memory("secret", 4096);
    rustix::io::fcntl_setfd(&secret, rustix::io::FdFlags::empty()).unwrap();
    let device = null(kind);
    drop(device.connect(0).unwrap());
    let fds = fs::read_dir(format!("/proc/{}/fd", device.pid())).unwrap();
    // One may be closed while we look.
    let gone = |link: &std::io::Result<_>| {
        link.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
    };
    let links = fds.flatten().map(|fd| fs::read_link(fd.path())).filter(|link| !gone(link));
    let Ok(links) = links.collect::<Result<Vec<_>, _>>() else {
        eprintln!("LEFT OUT: {kind}::inherits_only_its_descriptors: we may not look");
        return;
    };
    let targets: Vec<String> =
        (links.into_iter()).map(|target| target.to_string_lossy().into_owned()).collect();
    assert!(targets.len() >= 4, "{targets:?}");
    let strange = |target: &&String| {
        !["socket:", "pipe:", "anon_inode:", "/dev/null"].iter().any(|ok| target.starts_with(ok))
    };
    assert_eq!(targets.iter().find(strange), None, "{targets:?}");
    drop(secret);
}

pub(crate) fn loses_no_descriptor_over_connections(kind: Kind) {
    let device = null(kind);
    let count = || fs::read_dir(format!("/proc/{}/fd", device.pid())).unwrap().count();
    let mut counts = Vec::new();
    for _ in 0..60 {
        let mut front = connect(&device, 0, true);
        assert_eq!(front.read(0, 512), Outcome::Done { status: OK, len: 513 });
        counts.push(count());
    }
    assert!(counts[59] <= counts[5] + 2, "{counts:?}");
}
