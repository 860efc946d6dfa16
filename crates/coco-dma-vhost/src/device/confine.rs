//! Fewer rights for a device process: uid, capabilities, descriptors, life time.
//!
//! One [`Confinement`] is applied in two places: between fork and exec to a program that is not
//! ours, and by the embedded device to itself.

// UNSAFETY: code between fork and exec has to be promised to be async-signal-safe, and
// close_range, landlock_restrict_self and the close-on-exec flag of a descriptor that is known
// by number only have no safe wrapper.
#![expect(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::process::{Pid, Resource, Rlimit, Signal};
use rustix::thread::{self, CapabilitySet, CapabilitySets, Gid, Uid};

/// `nobody`: the uid and gid of a device process when we may choose.
pub(super) const NOBODY: u32 = 65534;

/// The rights that a device process ends up with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Confinement {
    /// The uid and gid that it changes to; `None` keeps ours.
    pub(super) uid: Option<u32>,
    /// Keep `CAP_DAC_OVERRIDE`, and nothing else: it has to open an image again that its uid
    /// may not.
    pub(super) keep_dac_override: bool,
    /// The process whose death ends it.
    pub(super) parent: Pid,
}

impl Confinement {
    /// Applies it to the calling process, which must have one thread only. System calls only: no
    /// allocation, no lock, so it may run between fork and exec.
    pub(super) fn apply(&self) -> io::Result<()> {
        // A core dump would hold what was shared.
        let no_core = Rlimit { current: Some(0), maximum: Some(0) };
        rustix::process::setrlimit(Resource::Core, no_core)?;
        let mut keep = CapabilitySet::empty();
        if self.keep_dac_override {
            let mut sets = thread::capabilities(None)?;
            keep = sets.permitted & CapabilitySet::DAC_OVERRIDE;
            // Now: what is not in the bounding set cannot be made inheritable later.
            sets.inheritable = keep;
            thread::set_capabilities(None, sets)?;
        }
        // What an ordinary user lacks anyway may fail; what counts is checked by the kernel below.
        let _ = thread::clear_ambient_capability_set();
        for number in 0..64 {
            let one = CapabilitySet::from_bits_retain(1 << number);
            let _ = thread::remove_capability_from_bounding_set(one);
        }
        if let Some(id) = self.uid {
            if self.keep_dac_override {
                thread::set_keep_capabilities(true)?;
            }
            let (uid, gid) = (Uid::from_raw(id), Gid::from_raw(id));
            thread::set_thread_groups(&[])?;
            thread::set_thread_res_gid(gid, gid, gid)?;
            thread::set_thread_res_uid(uid, uid, uid)?;
        }
        let sets = CapabilitySets { effective: keep, permitted: keep, inheritable: keep };
        thread::set_capabilities(None, sets)?;
        if !keep.is_empty() {
            // Only an ambient capability survives the exec of an ordinary program.
            thread::configure_capability_in_ambient_set(CapabilitySet::DAC_OVERRIDE, true)?;
        }
        thread::set_no_new_privs(true)?;
        // After the change of uid, which clears it. The parent may have died just before.
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        if rustix::process::getppid() != Some(self.parent) {
            return Err(io::Error::from(rustix::io::Errno::SRCH));
        }
        Ok(())
    }
}

/// Has `command` inherit the descriptors `inherit` and no other above standard error, under
/// their present numbers; `then` is applied to it, and the Landlock domain `landlock` entered.
pub(super) fn before_exec(
    command: &mut Command,
    inherit: Vec<RawFd>,
    then: Option<Confinement>,
    landlock: Option<OwnedFd>,
) {
    #[cfg(test)]
    let stops = stopping::takes_one();
    let hook = move || {
        // From the start: one that is stopped before its exec would outlive us.
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        #[cfg(test)]
        if stops {
            rustix::process::kill_process(rustix::process::getpid(), Signal::STOP)?;
        }
        close_on_exec_above_stderr();
        for &fd in &inherit {
            // SAFETY: F_SETFD takes an integer and touches no memory; a wrong number gives EBADF.
            if unsafe { libc::fcntl(fd, libc::F_SETFD, 0) } < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        if let Some(confinement) = &then {
            confinement.apply()?;
        }
        if let Some(ruleset) = &landlock {
            let fd = ruleset.as_raw_fd();
            // SAFETY: the call takes a descriptor, which we own, and flags; it touches no memory.
            if unsafe { libc::syscall(libc::SYS_landlock_restrict_self, fd, 0_u32) } < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    };
    // SAFETY: the hook must be async-signal-safe, because another thread may have held any lock
    // when we forked: it makes system calls only; errors made from numbers allocate nothing, and
    // what it captured is only borrowed.
    unsafe { command.pre_exec(hook) };
}

/// Marks every descriptor above standard error close-on-exec, whoever opened it and forgot.
fn close_on_exec_above_stderr() {
    // SAFETY: close_range takes three integers and touches no memory. Kernels before 5.11 refuse
    // the flag: there, descriptors that were opened without close-on-exec by others stay open.
    unsafe { libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
}

/// Closes every descriptor above standard error but those in `keep`.
///
/// For a process that has just started and owns no other descriptor yet.
pub(super) fn close_all_but(keep: &[RawFd]) {
    let mut keep: Vec<u32> = keep.iter().filter_map(|&fd| u32::try_from(fd).ok()).collect();
    keep.sort_unstable();
    let mut first = 3_u32;
    for fd in keep.into_iter().chain([u32::MAX]) {
        if fd > first {
            // SAFETY: close_range takes three integers and touches no memory; our caller owns no
            // descriptor of this range, so nobody's is closed under their hands.
            unsafe { libc::syscall(libc::SYS_close_range, first, fd - 1, 0_u32) };
        }
        first = first.max(fd.saturating_add(1));
    }
}

/// Whether this process may give a child another uid: it is root, has the capabilities, and the
/// uid exists in its user namespace.
pub(super) fn may_change_uid() -> bool {
    let needed = CapabilitySet::SETUID | CapabilitySet::SETGID;
    rustix::process::geteuid().is_root()
        && thread::capabilities(None).is_ok_and(|sets| sets.effective.contains(needed))
        && ["/proc/self/uid_map", "/proc/self/gid_map"].iter().all(|map| maps_nobody(map))
        && std::fs::read_to_string("/proc/self/setgroups").is_ok_and(|word| word.trim() == "allow")
}

/// Whether an id map of a user namespace (lines of first, outside, count) holds `NOBODY`.
fn maps_nobody(map: &str) -> bool {
    let Ok(text) = std::fs::read_to_string(map) else { return false };
    text.lines().any(|line| {
        let mut numbers = line.split_whitespace().filter_map(|word| word.parse::<u64>().ok());
        match (numbers.next(), numbers.nth(1)) {
            (Some(first), Some(count)) => {
                (first..first.saturating_add(count)).contains(&u64::from(NOBODY))
            }
            _ => false,
        }
    })
}

#[cfg(test)]
pub(super) use stopping::stop_next;

/// Children that are stopped between fork and exec.
#[cfg(test)]
mod stopping {
    use std::cell::Cell;

    thread_local! {
        static NEXT: Cell<u32> = const { Cell::new(0) };
    }

    /// The next `count` processes that this thread prepares stop before they are executed.
    pub(in super::super) fn stop_next(count: u32) {
        NEXT.set(count);
    }

    pub(super) fn takes_one() -> bool {
        let left = NEXT.get();
        NEXT.set(left.saturating_sub(1));
        left > 0
    }
}
