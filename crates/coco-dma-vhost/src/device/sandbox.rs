//! Landlock domains: what of the file system and the network a device process may still touch.
//!
//! A process in a Landlock domain can also not trace or read any process outside of it, whatever
//! the uid: that is what separates the device from us when we are an ordinary user.

use std::os::fd::{BorrowedFd, OwnedFd};

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset,
    RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetError, Scope,
};

/// What the kernel made of a sandbox.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Landlock {
    /// The domain stands.
    Enforced,
    /// This kernel has no Landlock, or it is switched off.
    Missing,
}

/// Whether this kernel has Landlock switched on.
pub(super) fn kernel_has_landlock() -> bool {
    deny_everything().is_ok_and(|ruleset| Option::<OwnedFd>::from(ruleset).is_some())
}

/// A domain for a program that is not ours: it may read and execute (it has libraries to load),
/// but write to nothing but `writable`, and reach no network. `None` where the kernel lacks it.
pub(super) fn write_only_to(writable: &[BorrowedFd<'_>]) -> Option<OwnedFd> {
    let build = || -> Result<RulesetCreated, RulesetError> {
        Ruleset::default()
            .set_compatibility(CompatLevel::BestEffort)
            // V4: device controls came with V5; block devices need theirs.
            .handle_access(AccessFs::from_write(ABI::V4))?
            .handle_access(AccessNet::from_all(ABI::V4))?
            .scope(Scope::from_all(ABI::V6))?
            .create()
    };
    let mut ruleset = build().ok()?;
    let rights = AccessFs::WriteFile | AccessFs::Truncate;
    for fd in writable {
        // A file without a place in the file system (a memfd) is refused here, and always allowed.
        let _ = (&mut ruleset).add_rule(PathBeneath::new(fd, rights));
    }
    if let Ok(null) = PathFd::new("/dev/null") {
        let _ = (&mut ruleset).add_rule(PathBeneath::new(null, rights));
    }
    ruleset.into()
}

/// Puts the calling thread, and those it starts, into a domain in which no path can be opened
/// and no network be reached: what is open stays usable, nothing else ever is.
pub(super) fn lock_in() -> Result<Landlock, RulesetError> {
    let status = deny_everything()?.restrict_self()?;
    Ok(match status.ruleset {
        landlock::RulesetStatus::NotEnforced => Landlock::Missing,
        _ => Landlock::Enforced,
    })
}

fn deny_everything() -> Result<RulesetCreated, RulesetError> {
    Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(ABI::V5))?
        .handle_access(AccessNet::from_all(ABI::V4))?
        .scope(Scope::from_all(ABI::V6))?
        .create()
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd;
    use std::process::{Command, Stdio};

    use super::super::confine;
    use super::{kernel_has_landlock, write_only_to};

    /// Runs a shell command line, in a domain or not; says whether it succeeded.
    fn runs(line: &str, writable: Option<&File>) -> bool {
        let mut command = Command::new("sh");
        command.args(["-c", line]).stdout(Stdio::null()).stderr(Stdio::null());
        if let Some(file) = writable {
            let parent = rustix::process::getpid();
            let kept = confine::Confinement { uid: None, keep_dac_override: true, parent };
            let domain = write_only_to(&[file.as_fd()]);
            confine::before_exec(&mut command, vec![], Some(kept), domain);
        }
        command.status().unwrap().success()
    }

    #[test]
    fn a_domain_separates_a_process_of_our_own_uid() {
        if !kernel_has_landlock() {
            eprintln!("LEFT OUT: this kernel has no Landlock");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let (inside, outside) = (dir.path().join("inside"), dir.path().join("outside"));
        let file = File::create(&inside).unwrap();
        File::create(&outside).unwrap();
        // Our memory, by a way that needs no more than the right to trace for reading.
        let read_us = format!("head -c 1 /proc/{}/environ", std::process::id());
        let write = |path: &std::path::Path| format!("echo x >> {}", path.display());
        let make = format!("mkdir {}", dir.path().join("new").display());
        assert!(runs(&read_us, None), "the control");
        assert!(!runs(&read_us, Some(&file)), "it reads our memory");
        assert!(runs(&write(&inside), Some(&file)));
        assert!(!runs(&write(&outside), Some(&file)));
        assert!(!runs(&make, Some(&file)));
        assert!(runs("cat /etc/passwd > /dev/null", Some(&file)), "libraries must load");
    }
}
