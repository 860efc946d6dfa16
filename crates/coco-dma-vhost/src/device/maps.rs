//! What of anybody's shared memory a process has mapped.

use std::io;

use rustix::thread::{self, Gid, Uid};

/// The lines of `/proc/PID/maps` that are shared memory: memfd and other nameless or named
/// memory files, and every other mapping that somebody else can share. The process's program,
/// libraries, heap and stacks are private mappings, and the kernel's own rings are not memory of
/// ours: neither is listed.
pub(super) fn shared(maps: &str) -> Vec<String> {
    maps.lines().filter(|line| is_shared(line)).map(str::to_owned).collect()
}

fn is_shared(line: &str) -> bool {
    // address perms offset dev inode path; the path may hold blanks or be missing.
    let mut words = line.split_ascii_whitespace();
    let Some(permissions) = words.nth(1) else { return false };
    let path = words.nth(3).unwrap_or_default();
    let memory_file = ["/memfd:", "/dev/shm/", "/SYSV", "/secretmem"];
    if memory_file.iter().any(|start| path.starts_with(start)) {
        return true;
    }
    let kernel_ring = path.starts_with("anon_inode:") || path.starts_with("/[aio]");
    permissions.ends_with('s') && !kernel_ring
}

/// Reads `/proc/PID/maps` of the device process `pid`, which runs under `uid` if that is not
/// ours. May need a thread with that uid: root without the capability to trace (the normal case
/// in a container) is refused what the same uid may read.
pub(super) fn read(pid: u32, uid: Option<u32>) -> io::Result<String> {
    let path = format!("/proc/{pid}/maps");
    match (std::fs::read_to_string(&path), uid) {
        (Err(error), Some(uid)) if error.kind() == io::ErrorKind::PermissionDenied => {
            let dumpable = rustix::process::dumpable_behavior()?;
            let reader = std::thread::spawn(move || {
                // Of this thread only, and for good: it ends with the closure. The ids that count
                // for reading are the effective ones; capabilities stay, because what we read
                // must have no more than we do.
                let keep = thread::capabilities(None)?.permitted;
                thread::set_keep_capabilities(true)?;
                let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(uid));
                thread::set_thread_res_gid(gid, gid, gid)?;
                thread::set_thread_res_uid(uid, uid, uid)?;
                let mut sets = thread::capabilities(None)?;
                sets.effective = keep;
                thread::set_capabilities(None, sets)?;
                std::fs::read_to_string(path)
            });
            let read = reader.join();
            // A change of uid, of a thread even, takes this from the whole process.
            rustix::process::set_dumpable_behavior(dumpable)?;
            read.unwrap_or(Err(error))
        }
        (read, _) => read,
    }
}

#[cfg(test)]
mod tests {
    use super::shared;

    #[test]
    fn lists_shared_memory_and_nothing_else() {
        let maps = "\
55e0-55e1 r--p 00000000 fe:00 1 /usr/bin/qemu-storage-daemon
7f00-7f01 rw-s 00000000 00:01 2 /memfd:shared pool (deleted)
7f02-7f03 rw-p 00000000 00:01 3 /memfd:private view (deleted)
7f04-7f05 rw-s 00000000 00:1a 4 /dev/shm/x
7f06-7f07 rw-s 00000000 00:0f 5 anon_inode:[io_uring]
7f08-7f09 rw-s 00000000 00:0f 6 /[aio] (deleted)
7f0a-7f0b rw-s 00000000 00:01 7 /dev/zero (deleted)
7f0c-7f0d rw-p 00000000 00:00 0
7ffc-7ffd rw-p 00000000 00:00 0 [stack]
";
        let found: Vec<&str> = ["7f00-", "7f02-", "7f04-", "7f0a-"].into();
        let lines = shared(maps);
        assert_eq!(lines.len(), found.len(), "{lines:?}");
        for (line, start) in lines.iter().zip(found) {
            assert!(line.starts_with(start), "{line}");
        }
    }
}
