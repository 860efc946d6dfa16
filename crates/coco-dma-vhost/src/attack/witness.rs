//! What memory looks like, before and after.

use core::hash::Hasher;
use core::ops::Range;
use std::fs::File;
use std::hash::DefaultHasher;
use std::io;
use std::iter;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt;

use rustix::fs::SeekFrom;

use super::AttackError;
use crate::machine::UserMachine;
use crate::memory::ArenaBuffer;

/// What private memory is filled with, again and again; hardly found anywhere by chance.
const MARK: [u8; 16] = *b"\xC0\xC0private-bytes!";
/// How much of the disk is searched for it: more than an attack moves.
const SEARCHED: usize = 64 << 10;
/// Bytes that are read at once.
const BLOCK: usize = 4096;

/// Holds all private memory, filled with a mark.
pub(super) struct Witness<'a> {
    machine: &'a UserMachine,
    arena: ArenaBuffer<'a>,
    backing: Option<&'a File>,
}

/// What was seen.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Seen {
    /// Private memory holds the mark and nothing else.
    private_is_intact: bool,
    /// No mark is on the disk.
    nothing_leaked: bool,
    /// What the pool holds outside of the request.
    pool: u64,
}

impl<'a> Witness<'a> {
    /// Takes and fills the whole arena.
    pub(super) fn new(
        machine: &'a UserMachine,
        backing: Option<&'a File>,
    ) -> Result<Self, AttackError> {
        let mut arena = machine.arena().take(machine.arena().len())?;
        for piece in arena.bytes_mut().chunks_mut(MARK.len()) {
            piece.iter_mut().zip(MARK).for_each(|(to, from)| *to = from);
        }
        let witness = Self { machine, arena, backing };
        Ok(witness)
    }

    /// Looks everywhere, but at the part of the pool that the request may change.
    pub(super) fn look(&self, request: &Range<u64>) -> Result<Seen, AttackError> {
        let whole = self.arena.bytes().chunks(MARK.len());
        let private_is_intact = whole.into_iter().all(|piece| MARK.starts_with(piece));
        let mut hasher = DefaultHasher::new();
        // The request lies in the pool, which comes first.
        let requests = [request].into_iter().chain(iter::repeat(&(0..0)));
        self.machine
            .windows(|windows| {
                let mut shared = windows.iter().zip(requests);
                shared.try_for_each(|(window, own)| digest(window.file, own, &mut hasher))
            })
            .map_err(|source| AttackError::Look { what: "shared memory", source })?;
        let nothing_leaked = match self.backing {
            Some(file) => !holds_mark(file)
                .map_err(|source| AttackError::Look { what: "the scratch disk", source })?,
            None => true,
        };
        Ok(Seen { private_is_intact, nothing_leaked, pool: hasher.finish() })
    }
}

impl Seen {
    /// Whether nothing came in or out that should not, between `before` and this look.
    pub(super) fn is_intact_since(&self, before: &Self) -> bool {
        self.private_is_intact && self.nothing_leaked && self.pool == before.pool
    }
}

/// Hashes what a region holds outside of `request`. Only pages that exist are looked at, so that
/// looking makes none: those that were never touched are zeroes.
fn digest(file: BorrowedFd<'_>, request: &Range<u64>, hasher: &mut impl Hasher) -> io::Result<()> {
    let mut block = [0_u8; BLOCK];
    let mut at = 0;
    loop {
        at = match rustix::fs::seek(file, SeekFrom::Data(at)) {
            Ok(data) => data - data % BLOCK as u64,
            Err(rustix::io::Errno::NXIO) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        // At least one block: a device may take a page out of its file between the two calls, and
        // put it in again, as often as it likes.
        let end = rustix::fs::seek(file, SeekFrom::Hole(at))?.max(at + 1);
        while at < end {
            if !request.contains(&at) {
                let count = rustix::io::pread(file, &mut block, at)?;
                let bytes = block.get(..count).unwrap_or_default();
                if bytes.iter().any(|byte| *byte != 0) {
                    hasher.write_u64(at);
                    hasher.write(bytes);
                }
            }
            at += BLOCK as u64;
        }
    }
}

/// Whether private bytes are where an attack would put them.
fn holds_mark(file: &File) -> io::Result<bool> {
    let mut bytes = vec![0; SEARCHED];
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(bytes.get(..filled).unwrap_or_default().windows(MARK.len()).any(|piece| piece == MARK))
}

#[cfg(test)]
mod tests {
    use coco_dma::regime::{Parameters, PlatformName};

    use super::*;
    use crate::memory::PrivateArena;

    #[test]
    fn what_changes_is_seen() {
        let regime = PlatformName::Tdx.regime(&Parameters::default()).unwrap();
        let arena = PrivateArena::new(3 * 4096).unwrap();
        let machine = UserMachine::new(regime, arena, 1 << 20).unwrap();
        let pool = File::from(machine.shared()[0].region.file().try_clone_to_owned().unwrap());
        let disk = tempfile::tempfile().unwrap();
        disk.set_len(1 << 20).unwrap();
        pool.write_all_at(&[1; 9000], 50_000).unwrap();

        let mut witness = Witness::new(&machine, Some(&disk)).unwrap();
        let request = 8192..12288;
        let look = |witness: &Witness<'_>| witness.look(&request).unwrap();
        let before = look(&witness);
        let intact = |witness: &Witness<'_>| look(witness).is_intact_since(&before);
        assert!(intact(&witness));
        // The request's own pages may change, and zeroes are what was there.
        pool.write_all_at(&[2; 4096], 8192).unwrap();
        pool.write_all_at(&[0; 4096], 100 * 4096).unwrap();
        assert!(intact(&witness));
        for place in [8191, 12288, 50_000, 54_321, (1 << 20) - 1] {
            let mut old = [0];
            pool.read_exact_at(&mut old, place).unwrap();
            pool.write_all_at(&[9], place).unwrap();
            assert!(!intact(&witness), "{place}");
            pool.write_all_at(&old, place).unwrap();
            assert!(intact(&witness), "{place}");
        }
        for place in [0, 4096, 12287] {
            witness.arena.bytes_mut()[place] ^= 1;
            assert!(!intact(&witness), "{place}");
            witness.arena.bytes_mut()[place] ^= 1;
        }
        let private = witness.arena.bytes()[4096..4128].to_vec();
        disk.write_all_at(&private, 1500).unwrap();
        assert!(!intact(&witness));
    }
}
