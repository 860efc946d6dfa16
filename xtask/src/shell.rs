//! Running commands: in the repository root, shown before they run, watched for omissions, each in
//! a process group of its own that is ended when the time of its step is over.

mod group;
mod limit;
mod report;

use std::env;
use std::io::{BufRead, BufReader, IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::omissions::Omissions;
pub(crate) use group::Group;
pub(crate) use limit::{Limit, shown};
use report::TestReport;

/// How often it is looked after a command that says nothing, and how long one that has ended may
/// take to be heard to its end.
const LOOK: Duration = Duration::from_secs(2);
/// The time for what comes before the first step.
const SETTING_UP: Duration = Duration::from_secs(20 * 60);

/// The repository, what was left out so far, and how long what is done now may take.
pub(crate) struct Workshop {
    pub(crate) root: PathBuf,
    pub(crate) target: PathBuf,
    pub(crate) omitted: Omissions,
    pub(crate) limit: Limit,
}

impl Workshop {
    /// Opens it. From here on whatever ends us ends what we started, too.
    pub(crate) fn open() -> Result<Self> {
        group::end_with_us().context("no signals can be caught")?;
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .context("xtask has to lie in the repository root")?
            .to_path_buf();
        let target = match env::var_os("CARGO_TARGET_DIR") {
            Some(given) => env::current_dir()?.join(given),
            None => root.join("target"),
        };
        let limit = Limit::of("packages", SETTING_UP);
        Ok(Self { root, target, omitted: Omissions::default(), limit })
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
        // One that asks a terminal from the background would be stopped.
        command.stdin(Stdio::null());
        command
    }

    /// From here on, this step runs: what it starts is ended when its time is over.
    pub(crate) fn begin(&mut self, step: &'static str, limit: Duration) {
        self.limit = Limit::of(step, limit);
    }

    /// Runs a command with its output on ours.
    pub(crate) fn run(&self, command: &mut Command) -> Result<()> {
        let line = show(command);
        println!("   $ {line}");
        succeeded(&line, self.status(command)?)
    }

    /// The same for one that nobody is told of, and may fail.
    pub(crate) fn status(&self, command: &mut Command) -> Result<ExitStatus> {
        let line = show(command);
        self.ended(&mut start(command, &line)?, &line, None)
    }

    /// Waits for the end of a command, which may take as long as its step, or `most`.
    fn ended(&self, group: &mut Group, line: &str, most: Option<Duration>) -> Result<ExitStatus> {
        if let Some(status) = group.wait(self.limit.until(most))? {
            return Ok(status);
        }
        let why = self.limit.told(most);
        group.end();
        bail!("`{line}` was ended: {why}")
    }

    /// Runs tests: every line is watched for omissions, the captured output of tests that passed
    /// is not shown. Answers how many tests passed. A test that takes a quarter of the step's time
    /// is ended, with all of the command.
    pub(crate) fn run_tests(&mut self, command: &mut Command) -> Result<usize> {
        let limit = self.limit.of_a_test();
        self.run_tests_within(command, limit)
    }

    fn run_tests_within(&mut self, command: &mut Command, limit: Duration) -> Result<usize> {
        if thread::available_parallelism().is_ok_and(|number| number.get() == 1) {
            // With one thread the harness says of no test that it takes long.
            command.env("RUST_TEST_THREADS", "2");
        }
        let line = show(command);
        println!("   $ {line}");
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut group = start(command, &line)?;
        let (lines, from_child) = channel();
        if let Some(pipe) = group.child.stdout.take() {
            relay(pipe, lines.clone());
        }
        if let Some(pipe) = group.child.stderr.take() {
            relay(pipe, lines);
        }
        let mut report = TestReport::default();
        let mut show_if_news = |report: &mut TestReport, text: String| {
            if report.take(&text, &mut self.omitted) {
                println!("{text}");
            }
        };
        let mut ended = None;
        loop {
            let until = self.limit.until(None);
            let until = report.due(limit).map_or(until, |due| due.min(until));
            let left = until.saturating_duration_since(Instant::now());
            match from_child.recv_timeout(left.min(LOOK)) {
                Ok(text) => show_if_news(&mut report, text),
                Err(RecvTimeoutError::Disconnected) => break,
                // What it left running, and may hold its output, is dead now: but for what has
                // left its group.
                Err(RecvTimeoutError::Timeout) if ended.is_some() => break,
                Err(RecvTimeoutError::Timeout) => ended = group.wait(Instant::now())?,
            }
            if Instant::now() >= until {
                if ended.is_some() {
                    break;
                }
                group.end();
                while let Ok(text) = from_child.recv_timeout(LOOK) {
                    show_if_news(&mut report, text);
                }
                if let Some(tests) = report.overdue(limit) {
                    let limit = shown(limit);
                    bail!("{tests} ran for longer than {limit}; `{line}` was ended");
                }
                let tests = report.slow().map(|tests| format!("; {tests} ran for over a minute"));
                let (why, tests) = (self.limit.told(None), tests.unwrap_or_default());
                bail!("`{line}` was ended: {why}{tests}");
            }
        }
        succeeded(&line, self.ended(&mut group, &line, None)?)?;
        Ok(report.passed)
    }

    /// Runs a command and keeps its standard output, and its errors where they are a pipe. It may
    /// take as long as its step, or `most`.
    pub(crate) fn capture(&self, command: &mut Command, most: Option<Duration>) -> Result<Output> {
        let line = show(command);
        let mut group = start(command.stdout(Stdio::piped()), &line)?;
        let out = group.child.stdout.take().map(collect);
        let err = group.child.stderr.take().map(collect);
        let status = self.ended(&mut group, &line, most)?;
        let all = |from: Option<Receiver<Vec<u8>>>| match from {
            Some(from) => from.recv_timeout(LOOK),
            None => Ok(Vec::new()),
        };
        let left = || format!("`{line}` ended, and what it started writes on");
        let (stdout, stderr) = (all(out).with_context(left)?, all(err).with_context(left)?);
        Ok(Output { status, stdout, stderr })
    }

    /// The standard output of a command that has to succeed; its errors go to ours.
    pub(crate) fn output(&self, command: &mut Command) -> Result<String> {
        self.output_within(command, None)
    }

    /// The same for one that may take `most`.
    pub(crate) fn output_within(
        &self,
        command: &mut Command,
        most: impl Into<Option<Duration>>,
    ) -> Result<String> {
        let line = show(command);
        let output = self.capture(command, most.into())?;
        succeeded(&line, output.status)?;
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

fn relay(pipe: impl Read + Send + 'static, lines: Sender<String>) {
    thread::spawn(move || {
        for line in BufReader::new(pipe).split(b'\n') {
            let Ok(line) = line else { break };
            if lines.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                break;
            }
        }
    });
}

/// All that comes through a pipe, when it has ended.
fn collect(mut pipe: impl Read + Send + 'static) -> Receiver<Vec<u8>> {
    let (all, received) = channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = pipe.read_to_end(&mut bytes);
        let _ = all.send(bytes);
    });
    received
}

fn start(command: &mut Command, line: &str) -> Result<Group> {
    Group::start(command).with_context(|| format!("cannot start: {line}"))
}

fn succeeded(line: &str, status: ExitStatus) -> Result<()> {
    ensure!(status.success(), "`{line}` ended with {status}");
    Ok(())
}

#[cfg(test)]
mod tests;
