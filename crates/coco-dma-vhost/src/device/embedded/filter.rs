//! A system call filter: what the embedded device never needs is refused, so that a fault in it
//! cannot be made to reach for more than it was given.
//!
//! It names what is refused, not what is allowed: the C library may then change how it does
//! harmless things. Files and network are closed twice, here and by Landlock, because not every
//! kernel has both.

// UNSAFETY: the kernel takes the filter through prctl, which has no safe wrapper for it.
#![expect(unsafe_code)]

use std::io;

/// The refused system calls.
const REFUSED: &[libc::c_long] = &[
    // New files and sockets.
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_open_by_handle_at,
    libc::SYS_socket,
    libc::SYS_socketpair,
    libc::SYS_connect,
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_memfd_create,
    libc::SYS_io_uring_setup,
    // Other programs and other processes.
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    // The machine.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_chroot,
    libc::SYS_pivot_root,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_kexec_load,
    // Older names that only some machines have.
    #[cfg(target_arch = "x86_64")]
    libc::SYS_open,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_creat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_fork,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_vfork,
];

/// The machine that the numbers belong to (`AUDIT_ARCH_…`); a call made as another is refused.
#[cfg(target_arch = "x86_64")]
const ARCH: Option<u32> = Some(0xC000_003E);
#[cfg(target_arch = "aarch64")]
const ARCH: Option<u32> = Some(0xC000_00B7);
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const ARCH: Option<u32> = None;

/// On x86-64, numbers from here on are the x32 calls: the same calls once more.
#[cfg(target_arch = "x86_64")]
const NUMBERS_END: u32 = 0x4000_0000;
#[cfg(not(target_arch = "x86_64"))]
const NUMBERS_END: u32 = u32::MAX;

/// Installs the filter for the calling thread and those it starts. No new privileges must be
/// set before.
pub(super) fn install() -> io::Result<()> {
    let arch = ARCH.ok_or(io::ErrorKind::Unsupported)?;
    let program = program(arch)?;
    let description = libc::sock_fprog {
        len: u16::try_from(program.len()).map_err(io::Error::other)?,
        filter: program.as_ptr().cast_mut(),
    };
    // SAFETY: the kernel reads `len` instructions at `filter`, which is what `program` holds, and
    // copies them; it writes nothing. `program` and `description` live until after the call.
    let done = unsafe {
        libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const description)
    };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn program(arch: u32) -> io::Result<Vec<libc::sock_filter>> {
    // Offsets in `struct seccomp_data`.
    const NUMBER: u32 = 0;
    const MACHINE: u32 = 4;
    let load = |offset| step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, offset);
    let equal = |value, yes, no| step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, yes, no, value);
    let at_least =
        |value, yes, no| step(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, yes, no, value);
    let answer = |value| step(libc::BPF_RET | libc::BPF_K, 0, 0, value);
    let refuse = libc::SECCOMP_RET_ERRNO | u32::try_from(libc::EPERM).map_err(io::Error::other)?;

    let mut program = vec![
        load(MACHINE),
        equal(arch, 1, 0),
        answer(refuse),
        load(NUMBER),
        at_least(NUMBERS_END, 0, 1),
        answer(refuse),
    ];
    for &call in REFUSED {
        program.push(equal(u32::try_from(call).map_err(io::Error::other)?, 0, 1));
        program.push(answer(refuse));
    }
    program.push(answer(libc::SECCOMP_RET_ALLOW));
    Ok(program)
}

fn step(code: u32, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
    // Every code is below 256.
    libc::sock_filter { code: u16::try_from(code).unwrap_or_default(), jt, jf, k }
}
