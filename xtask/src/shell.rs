//! Running commands: in the repository root, shown before they run, watched for omissions.

use std::env;
use std::io::{BufRead, BufReader, IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::thread;

use anyhow::{Context, Result, bail};

use crate::omissions::Omissions;

/// The repository, and what was left out so far.
pub(crate) struct Workshop {
    pub(crate) root: PathBuf,
    pub(crate) target: PathBuf,
    pub(crate) omitted: Omissions,
}

impl Workshop {
    pub(crate) fn open() -> Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .context("xtask has to lie in the repository root")?
            .to_path_buf();
        let target = match env::var_os("CARGO_TARGET_DIR") {
            Some(given) => env::current_dir()?.join(given),
            None => root.join("target"),
        };
        Ok(Self { root, target, omitted: Omissions::default() })
    }

    /// A `cargo` command with the arguments of `line`, split at spaces.
    pub(crate) fn cargo(&self, line: &str) -> Command {
        let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = self.program(&cargo.to_string_lossy());
        command.args(line.split_whitespace()).env("CARGO_TARGET_DIR", &self.target);
        if std::io::stdout().is_terminal() {
            command.env("CARGO_TERM_COLOR", "always");
        }
        command
    }

    pub(crate) fn program(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        // Our own package's variables are not part of what we start.
        command.current_dir(&self.root).env_remove("CARGO_MANIFEST_DIR");
        command
    }

    /// Runs a command with its output on ours.
    pub(crate) fn run(&self, command: &mut Command) -> Result<()> {
        let line = show(command);
        println!("   $ {line}");
        let status = command.status().with_context(|| format!("cannot start: {line}"))?;
        if !status.success() {
            bail!("`{line}` ended with {status}");
        }
        Ok(())
    }

    /// Runs tests: every line is watched for omissions, the captured output of tests that passed
    /// is not shown. Answers how many tests passed.
    pub(crate) fn run_tests(&mut self, command: &mut Command) -> Result<usize> {
        let line = show(command);
        println!("   $ {line}");
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start: {line}"))?;
        let (lines, from_child) = channel();
        let out = child.stdout.take().map(|pipe| relay(pipe, lines.clone()));
        let err = child.stderr.take().map(|pipe| relay(pipe, lines));
        let mut report = TestReport::default();
        for text in from_child {
            if report.take(&text, &mut self.omitted) {
                println!("{text}");
            }
        }
        for thread in [out, err].into_iter().flatten() {
            let _ = thread.join();
        }
        let status = child.wait()?;
        if !status.success() {
            bail!("`{line}` ended with {status}");
        }
        Ok(report.passed)
    }

    /// The standard output of a command that has to succeed; its errors go to ours.
    pub(crate) fn output(&self, command: &mut Command) -> Result<String> {
        let line = show(command);
        let output = command
            .stderr(Stdio::inherit())
            .output()
            .with_context(|| format!("cannot start: {line}"))?;
        if !output.status.success() {
            bail!("`{line}` ended with {}", output.status);
        }
        String::from_utf8(output.stdout).with_context(|| format!("`{line}` did not print text"))
    }

    /// What cargo knows about the crates of the workspace.
    pub(crate) fn metadata(&self) -> Result<serde_json::Value> {
        let text = self.output(&mut self.cargo("metadata --no-deps --format-version 1"))?;
        Ok(serde_json::from_str(&text)?)
    }
}

/// Where a program lies, in the path and where Debian keeps what only root needs.
pub(crate) fn which(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(program))
        .find(|candidate| candidate.is_file())
}

fn show(command: &Command) -> String {
    let mut line = String::new();
    for (name, value) in command.get_envs() {
        let name = name.to_string_lossy();
        if let Some(value) = value
            && !["CARGO_TERM_COLOR", "CARGO_TARGET_DIR"].contains(&name.as_ref())
        {
            line.push_str(&format!("{name}='{}' ", value.to_string_lossy()));
        }
    }
    let program = Path::new(command.get_program());
    line.push_str(&program.file_name().unwrap_or_default().to_string_lossy());
    for argument in command.get_args() {
        line.push(' ');
        line.push_str(&argument.to_string_lossy());
    }
    line
}

fn relay(pipe: impl Read + Send + 'static, lines: Sender<String>) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        for line in BufReader::new(pipe).split(b'\n') {
            let Ok(line) = line else { break };
            if lines.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                break;
            }
        }
    })
}

/// Reads the test harness's output line by line.
#[derive(Default)]
struct TestReport {
    passed: usize,
    inside_successes: bool,
}

impl TestReport {
    /// Takes a line in; answers whether to show it.
    fn take(&mut self, line: &str, omitted: &mut Omissions) -> bool {
        let found = omitted.scan(line);
        if line == "successes:" {
            self.inside_successes = true;
        } else if line == "failures:" {
            self.inside_successes = false;
        } else if let Some(result) = line.strip_prefix("test result: ") {
            self.inside_successes = false;
            let passed = result.split(". ").nth(1).and_then(|text| text.split(' ').next());
            self.passed += passed.and_then(|number| number.parse::<usize>().ok()).unwrap_or(0);
        }
        found || !self.inside_successes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let mut report = TestReport::default();
        report.take("test result: ok. 12 passed; 0 failed;", &mut Omissions::default());
        report.take("test result: ok. 30 passed; 0 failed;", &mut Omissions::default());
        assert_eq!(report.passed, 42);
    }
}
