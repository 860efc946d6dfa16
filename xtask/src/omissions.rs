//! What a run left out, and why: collected on the way, listed at the end.
//!
//! A test that cannot do its work here prints a line that starts with `LEFT OUT: ` and passes. If
//! only the kernel lacks something, the line says `(kernel)`: nothing else is forgiven in `--ci`.

use std::collections::BTreeSet;

const MARK: &str = "LEFT OUT: ";
const KERNEL: &str = "(kernel)";

/// The lines, each once.
#[derive(Default)]
pub(crate) struct Omissions {
    lines: BTreeSet<String>,
}

impl Omissions {
    /// Takes the omission in a line of output, if it is one.
    pub(crate) fn scan(&mut self, line: &str) -> bool {
        let found = line.trim_start().strip_prefix(MARK);
        if let Some(what) = found {
            self.lines.insert(what.trim_end().to_owned());
        }
        found.is_some()
    }

    /// Says loudly that something is left out, and remembers it.
    pub(crate) fn add(&mut self, what: String) {
        println!("   {MARK}{what}");
        self.lines.insert(what);
    }

    pub(crate) fn len(&self) -> usize {
        self.lines.len()
    }

    /// Those that are not the kernel's fault.
    pub(crate) fn unforgiven(&self) -> impl Iterator<Item = &String> {
        self.lines.iter().filter(|line| !line.contains(KERNEL))
    }

    pub(crate) fn print(&self) {
        if self.lines.is_empty() {
            println!("Nothing was left out.");
            return;
        }
        println!("Left out ({}):", self.len());
        for line in &self.lines {
            println!("  - {line}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_kernel_is_forgiven() {
        let mut omitted = Omissions::default();
        assert!(omitted.scan("LEFT OUT: memfd_secret: ENOSYS (kernel)"));
        assert_eq!(omitted.unforgiven().count(), 0);
        assert!(omitted.scan("  LEFT OUT: qemu-storage-daemon is not installed"));
        assert!(!omitted.scan("nothing LEFT OUT: here"));
        assert!(omitted.scan("LEFT OUT: qemu-storage-daemon is not installed"));
        assert_eq!(omitted.len(), 2);
        assert_eq!(omitted.unforgiven().count(), 1);
    }
}
