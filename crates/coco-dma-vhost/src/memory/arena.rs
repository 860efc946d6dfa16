//! The machine's private memory.
// UNSAFETY: `memfd_secret` has no safe wrapper.
#![expect(unsafe_code)]

use core::fmt;
use core::ptr::NonNull;
use std::io;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::map::{Mapping, PAGE};
use super::{ArenaBuffer, MemoryError};

/// The most bytes that an arena has: 4 MiB of data with what belongs to it, about half of the 8 MiB
/// that an ordinary user may lock.
pub const MAX_ARENA: usize = (4 << 20) + (256 << 10);

/// Buffers start at multiples of this, in bytes, so that none shares a cache line with another.
const ALIGN: usize = 64;

/// What an arena is made of.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ArenaKind {
    /// `memfd_secret`: not even the kernel maps these pages, and it refuses DMA, tracing and
    /// `/proc/PID/mem` of them to everybody.
    Secret,
    /// Ordinary memory of this process: out of reach for processes that the kernel keeps from
    /// tracing it.
    Anonymous,
}

impl fmt::Display for ArenaKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Secret => "memfd_secret",
            Self::Anonymous => "anonymous memory",
        })
    }
}

/// Private memory: mapped in this process alone, never in a child, never in a core dump, and
/// zeroed at the end.
#[derive(Debug)]
pub struct PrivateArena {
    memory: Mapping,
    kind: ArenaKind,
    why_not_secret: Option<io::Error>,
    given: Mutex<Given>,
}

/// What is given out: everything below a mark that only climbs until all has come back, but for
/// the places that are free again.
#[derive(Debug, Default)]
struct Given {
    mark: usize,
    buffers: usize,
    /// Start and room of each place below the mark that has come back.
    free: Vec<(usize, usize)>,
}

impl PrivateArena {
    /// An arena of at least `size` bytes, in whole pages, filled with zeroes: secret memory where
    /// the kernel gives it, else ordinary memory (see [`kind`](Self::kind)).
    ///
    /// # Errors
    ///
    /// [`MemoryError::Size`] beyond [`MAX_ARENA`], [`MemoryError::Kernel`] without any memory.
    pub fn new(size: usize) -> Result<Self, MemoryError> {
        let size = whole_pages(size)?;
        match secret(size) {
            Ok(memory) => Ok(Self::over(memory, ArenaKind::Secret, None)),
            Err(error) => Self::make_anonymous(size, Some(error)),
        }
    }

    /// An arena of ordinary memory, also where the kernel has better.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn anonymous(size: usize) -> Result<Self, MemoryError> {
        Self::make_anonymous(whole_pages(size)?, None)
    }

    fn make_anonymous(size: usize, why: Option<io::Error>) -> Result<Self, MemoryError> {
        let memory = Mapping::anonymous(size)
            .and_then(|memory| memory.keep_to_ourselves().map(|()| memory))
            .map_err(|source| MemoryError::Kernel { what: "private memory", source })?;
        Ok(Self::over(memory, ArenaKind::Anonymous, why))
    }

    fn over(memory: Mapping, kind: ArenaKind, why_not_secret: Option<io::Error>) -> Self {
        Self { memory, kind, why_not_secret, given: Mutex::default() }
    }

    /// What it is made of.
    #[must_use]
    pub fn kind(&self) -> ArenaKind {
        self.kind
    }

    /// Why it is not secret memory, in one sentence, where that was tried.
    #[must_use]
    pub fn why_not_secret(&self) -> Option<String> {
        let error = self.why_not_secret.as_ref()?;
        Some(match error.raw_os_error() {
            Some(libc::ENOSYS) => {
                "this kernel has no memfd_secret (5.14 and later; before 6.5 boot with \
                 secretmem.enable=1)"
                    .to_owned()
            }
            Some(libc::EAGAIN) => format!(
                "memfd_secret would lock more memory than this user may: raise the limit \
                 (ulimit -l) to {} KiB more",
                self.memory.len() / 1024
            ),
            _ => format!("memfd_secret was refused: {error}"),
        })
    }

    /// Its size in bytes.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "an arena is never empty")]
    pub fn len(&self) -> usize {
        self.memory.len()
    }

    /// Takes a buffer of `len` bytes, aligned to 64. What an earlier one left in it is still there.
    /// The room of a buffer that has come back serves buffers of the same size at once, and others
    /// when all have: an arena serves one job at a time.
    ///
    /// # Errors
    ///
    /// [`MemoryError::ArenaFull`].
    pub fn take(&self, len: usize) -> Result<ArenaBuffer<'_>, MemoryError> {
        let full = || MemoryError::ArenaFull { wanted: len, size: self.memory.len() };
        let mut given = self.given();
        let room = len.checked_next_multiple_of(ALIGN).filter(|_| len > 0).ok_or_else(full)?;
        let place = given.free.iter().position(|(_, free)| *free == room);
        let start = place.map_or(given.mark, |place| given.free.swap_remove(place).0);
        let bytes = self.memory.part(start, len).ok_or_else(full)?;
        given.mark = given.mark.max(start + room);
        given.buffers += 1;
        Ok(ArenaBuffer::new(self, bytes))
    }

    /// A buffer has come back.
    pub(super) fn give_back(&self, bytes: NonNull<[u8]>) {
        let mut given = self.given();
        given.buffers = given.buffers.saturating_sub(1);
        if given.buffers == 0 {
            *given = Given::default();
        } else if let Some(start) = self.offset_of(bytes) {
            given.free.push((start, bytes.len().next_multiple_of(ALIGN)));
        }
    }

    fn given(&self) -> MutexGuard<'_, Given> {
        self.given.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How far into the arena `bytes` start, where they lie in it wholly.
    pub(crate) fn offset_of(&self, bytes: NonNull<[u8]>) -> Option<usize> {
        self.memory.offset_of(bytes)
    }

    /// Where it starts in this process: a number for the attack, and for views.
    pub(crate) fn start(&self) -> NonNull<u8> {
        self.memory.start()
    }
}

impl Drop for PrivateArena {
    fn drop(&mut self) {
        self.memory.wipe();
    }
}

/// How many bytes an arena with buffers of these lengths needs.
pub(crate) fn room(buffers: impl Iterator<Item = usize>) -> usize {
    buffers.map(|len| len.next_multiple_of(ALIGN)).sum()
}

fn whole_pages(size: usize) -> Result<usize, MemoryError> {
    if size == 0 || size > MAX_ARENA {
        return Err(MemoryError::Size { what: "a private arena", size, limit: MAX_ARENA });
    }
    Ok(size.next_multiple_of(PAGE))
}

/// Secret memory. Its descriptor is closed at once: nobody can be given it by mistake.
fn secret(size: usize) -> io::Result<Mapping> {
    // SAFETY: the call takes one number and touches no memory.
    let fd = unsafe { libc::syscall(libc::SYS_memfd_secret, libc::O_CLOEXEC) };
    let fd = i32::try_from(fd).ok().filter(|fd| *fd >= 0).ok_or_else(io::Error::last_os_error)?;
    // SAFETY: the kernel made this descriptor for us a moment ago; nobody else owns it.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    let len = u64::try_from(size).map_err(io::Error::other)?;
    rustix::fs::ftruncate(&fd, len)?;
    let memory = Mapping::of_file(fd.as_fd(), size)?;
    memory.keep_to_ourselves()?;
    Ok(memory)
}
