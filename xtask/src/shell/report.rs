//! Reading the test harness's output line by line: what passed, and which tests take long.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::omissions::Omissions;

/// What the lines said so far.
#[derive(Default)]
pub(super) struct TestReport {
    pub(super) passed: usize,
    inside_successes: bool,
    /// The binary whose tests run, in cargo's words.
    binary: String,
    /// The tests of it of which the harness said that they take long, and since when they run. It
    /// says so of each after a minute, of documentation tests, too.
    slow: BTreeMap<String, Instant>,
}

impl TestReport {
    /// Takes a line in; answers whether to show it.
    pub(super) fn take(&mut self, line: &str, omitted: &mut Omissions) -> bool {
        let found = omitted.scan(line);
        if line == "successes:" {
            self.inside_successes = true;
        } else if line == "failures:" {
            self.inside_successes = false;
        } else if let Some(result) = line.strip_prefix("test result: ") {
            self.inside_successes = false;
            self.slow.clear();
            let passed = result.split(". ").nth(1).and_then(|text| text.split(' ').next());
            self.passed += passed.and_then(|number| number.parse::<usize>().ok()).unwrap_or(0);
        } else if let Some(test) = line.strip_prefix("test ")
            && !self.inside_successes
        {
            self.take_test(test);
        } else if let Some(binary) = binary(line) {
            self.slow.clear();
            self.binary = binary;
        }
        found || !self.inside_successes
    }

    fn take_test(&mut self, line: &str) {
        if let Some((name, rest)) = line.split_once(" has been running for over ")
            && let Some(seconds) = rest.strip_suffix(" seconds").and_then(|text| text.parse().ok())
        {
            let now = Instant::now();
            let since = now.checked_sub(Duration::from_secs(seconds)).unwrap_or(now);
            self.slow.entry(name.to_owned()).or_insert(since);
            return;
        }
        let is_of = |name: &str| {
            let rest = line.strip_prefix(name);
            rest.is_some_and(|rest| rest.starts_with(" ... ") || rest.starts_with(" - "))
        };
        self.slow.retain(|name, _| !is_of(name));
    }

    /// When the next test has run for `limit`.
    pub(super) fn due(&self, limit: Duration) -> Option<Instant> {
        self.slow.values().min().map(|since| *since + limit)
    }

    /// The tests that have run for `limit` and their binary, in words.
    pub(super) fn overdue(&self, limit: Duration) -> Option<String> {
        let now = Instant::now();
        let late = self.slow.iter().filter(|(_, since)| **since + limit <= now);
        self.named(late.map(|(name, _)| name.as_str()))
    }

    /// The tests that take long and their binary, in words.
    pub(super) fn slow(&self) -> Option<String> {
        self.named(self.slow.keys().map(String::as_str))
    }

    fn named<'a>(&self, names: impl Iterator<Item = &'a str>) -> Option<String> {
        let names: Vec<&str> = names.collect();
        (!names.is_empty()).then(|| format!("test {} ({})", names.join(", "), self.binary))
    }
}

/// The binary that cargo says it runs now.
fn binary(line: &str) -> Option<String> {
    // Coloured where we write to a terminal.
    let mut plain = String::new();
    let mut parts = line.split('\u{1b}');
    plain.push_str(parts.next().unwrap_or_default());
    parts.for_each(|part| plain.push_str(part.split_once('m').map_or(part, |(_, text)| text)));
    let plain = plain.trim_start();
    let is_one = plain.starts_with("Running ") || plain.starts_with("Doc-tests ");
    is_one.then(|| plain.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(lines: &[&str]) -> TestReport {
        let mut report = TestReport::default();
        lines.iter().for_each(|line| {
            report.take(line, &mut Omissions::default());
        });
        report
    }

    #[test]
    fn hides_successes_counts_passes_and_keeps_omissions() {
        let text = "running 3 tests\nsuccesses:\n---- a stdout ----\nnoise\n\
                    LEFT OUT: memfd_secret (kernel)\nsuccesses:\n    a\n\n\
                    test result: ok. 3 passed; 0 failed; 0 ignored\nafter";
        let (mut report, mut omitted) = (TestReport::default(), Omissions::default());
        let shown: Vec<&str> =
            text.lines().filter(|line| report.take(line, &mut omitted)).collect();
        assert_eq!(report.passed, 3);
        assert_eq!(omitted.len(), 1);
        assert!(!shown.contains(&"noise"));
        assert!(shown.contains(&"LEFT OUT: memfd_secret (kernel)"));
        assert_eq!(shown.last(), Some(&"after"));
    }

    #[test]
    fn colour_does_not_hide_a_test_count() {
        // The harness never colours the words in front of the count when its output is a pipe.
        let report = report(&[
            "test result: ok. 12 passed; 0 failed;",
            "test result: ok. 30 passed; 0 failed;",
        ]);
        assert_eq!(report.passed, 42);
    }

    #[test]
    fn a_test_that_takes_long_is_known_until_it_ends() {
        const BINARY: &str = "\u{1b}[1m\u{1b}[92m     Running\u{1b}[0m unittests src/lib.rs (x-1)";
        let slow = |name: &str| format!("test {name} has been running for over 60 seconds");
        let (a, b) = (slow("a::b"), slow("src/lib.rs - of::c (line 7)"));
        let started = [BINARY, "running 3 tests", "test z ... ok", &a, &b];
        let minute = Duration::from_secs(60);
        let both = "test a::b, src/lib.rs - of::c (line 7) (Running unittests src/lib.rs (x-1))";
        assert_eq!(report(&started).slow().as_deref(), Some(both));
        assert_eq!(report(&started).overdue(minute).as_deref(), Some(both));
        assert_eq!(report(&started).overdue(2 * minute), None);
        assert!(report(&started).due(minute).is_some_and(|due| due <= Instant::now()));

        let ended = |line: &str| report(&[started.as_slice(), &[line]].concat()).slow.len();
        for line in ["test a::b ... ok", "test a::b - should panic ... FAILED", "test a::b ... "] {
            assert_eq!(ended(line), 1, "{line}");
        }
        for line in ["test a::bc ... ok", "test a ... ok", "    a::b", "a::b ... ok", &a] {
            assert_eq!(ended(line), 2, "{line}");
        }
        for line in ["test result: ok. 3 passed; 0 failed", "   Doc-tests x", BINARY] {
            assert_eq!(ended(line), 0, "{line}");
        }
        // What a test that passed has said is no news.
        let heard = ["successes:", &a].map(str::to_owned);
        assert_eq!(report(&heard.each_ref().map(String::as_str)).slow(), None);
    }
}
