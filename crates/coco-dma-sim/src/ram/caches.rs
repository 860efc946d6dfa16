//! The CPU's caches, for machines that have devices which do not see them.
//!
//! The worst that hardware may do, always: a cache never forgets a line by itself, and never writes
//! one back that nobody cleans, so that who relies on luck is wrong every time. A line that was
//! written is written back when it is dropped, over whatever a device put there meanwhile.
//! A line counts as written where its bytes are not those that were fetched: to write what is there
//! already is not seen.

use crate::backing::Backing;

/// A cache line in bytes (Arm: Cortex-A, Neoverse; x86: CPUID 1, EBX 15:8).
pub(crate) const LINE: usize = 64;

/// What lies below the bytes that the CPU sees in its caches.
#[derive(Debug)]
pub(super) struct Caches {
    /// Memory itself.
    memory: Backing,
    /// What every line held when it was fetched, or written back.
    fetched: Backing,
}

impl Caches {
    /// Over `len` bytes; `None` where this process cannot have them.
    pub(super) fn new(len: usize) -> Option<Self> {
        Some(Self { memory: Backing::new(len)?, fetched: Backing::new(len)? })
    }

    /// The bytes past the caches.
    pub(super) fn memory(&self) -> &Backing {
        &self.memory
    }

    /// Reads as everybody does who takes part in coherence: a line that was written is answered by
    /// the cache, all others by memory.
    pub(super) fn read(&self, cpu: &Backing, offset: usize, into: &mut [u8]) -> bool {
        let end = offset.saturating_add(into.len());
        if !self.memory.read(offset, into) {
            return false;
        }
        for at in lines(offset, into.len()).filter(|at| self.is_written(cpu, *at)) {
            let (first, last) = (at.max(offset), (at + LINE).min(end));
            if let Some(part) = into.get_mut(first - offset..last - offset) {
                cpu.read(first, part);
            }
        }
        true
    }

    /// Writes as everybody does who takes part in coherence.
    pub(super) fn write(&self, cpu: &Backing, offset: usize, from: &[u8]) -> bool {
        [cpu, &self.memory, &self.fetched].iter().all(|bytes| bytes.write(offset, from))
    }

    /// Writes every line that was written back to memory.
    pub(super) fn clean(&self, cpu: &Backing, offset: usize, len: usize) {
        for at in lines(offset, len).filter(|at| self.is_written(cpu, *at)) {
            let line = line(cpu, at);
            self.memory.write(at, &line);
            self.fetched.write(at, &line);
        }
    }

    /// The same, and drops all lines: the CPU reads memory anew.
    pub(super) fn drop_lines(&self, cpu: &Backing, offset: usize, len: usize) {
        self.clean(cpu, offset, len);
        for at in lines(offset, len) {
            let line = line(&self.memory, at);
            cpu.write(at, &line);
            self.fetched.write(at, &line);
        }
    }

    fn is_written(&self, cpu: &Backing, at: usize) -> bool {
        line(cpu, at) != line(&self.fetched, at)
    }
}

/// The lines that a part has bytes in. (RAM is made of whole pages.)
fn lines(offset: usize, len: usize) -> impl Iterator<Item = usize> {
    let end = offset.saturating_add(len);
    (offset - offset % LINE..end).step_by(LINE).filter(move |_| len > 0)
}

fn line(bytes: &Backing, at: usize) -> [u8; LINE] {
    let mut line = [0; LINE];
    bytes.read(at, &mut line);
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn byte(bytes: &Backing, at: usize) -> u8 {
        line(bytes, at).first().copied().unwrap_or_default()
    }

    #[test]
    fn who_is_past_the_caches_sees_what_was_cleaned_and_who_is_behind_them_what_was_dropped() {
        let (cpu, caches) = (Backing::new(4096).unwrap(), Caches::new(4096).unwrap());
        let memory = caches.memory();
        cpu.write(0, &[1]);
        cpu.write(LINE, &[2]);
        assert_eq!((byte(memory, 0), byte(memory, LINE)), (0, 0));
        caches.clean(&cpu, 0, LINE);
        assert_eq!((byte(memory, 0), byte(memory, LINE)), (1, 0), "a line, and no other");
        memory.write(0, &[3]);
        caches.clean(&cpu, 0, LINE);
        assert_eq!((byte(&cpu, 0), byte(memory, 0)), (1, 3), "what is not written stays");
        caches.drop_lines(&cpu, 0, 1);
        assert_eq!(byte(&cpu, 0), 3);
        memory.write(LINE, &[4]);
        caches.drop_lines(&cpu, LINE, 1);
        assert_eq!((byte(&cpu, LINE), byte(memory, LINE)), (2, 2), "over what was put there");
    }

    #[test]
    fn who_takes_part_in_coherence_sees_both() {
        let (cpu, caches) = (Backing::new(4096).unwrap(), Caches::new(4096).unwrap());
        cpu.write(LINE - 1, &[1, 1]);
        caches.memory().write(2 * LINE, &[2]);
        let mut seen = [9; LINE + 3];
        assert!(caches.read(&cpu, LINE - 2, &mut seen));
        assert_eq!((seen[0], seen[1], seen[2], seen[LINE + 2]), (0, 1, 1, 2));
        assert!(caches.write(&cpu, 0, &[5]));
        assert_eq!((byte(&cpu, 0), byte(caches.memory(), 0)), (5, 5));
        assert!(!caches.read(&cpu, 4095, &mut seen) && !caches.write(&cpu, 4096, &[1]));
    }
}
