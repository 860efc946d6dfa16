//! What the black-box tests of the command share: running it with a deadline, reading tables.

#![allow(dead_code, reason = "every test binary has its own copy and none uses all of it")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a helper of tests: a panic is how a test fails"
)]

use core::time::Duration;
use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Instant;

use serde_json::Value;

/// No decision may take longer; on an idle machine each takes milliseconds.
const DEADLINE: Duration = Duration::from_secs(60);

/// What one run of the command left.
pub(crate) struct Ran {
    /// `None`: ended by a signal, or by us because it hung.
    pub(crate) status: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

fn drain<R: Read + Send + 'static>(source: Option<R>) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut source) = source {
            let _ = source.read_to_end(&mut bytes);
        }
        bytes
    })
}

fn wait(child: &mut Child) -> Option<i32> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code();
        }
        if start.elapsed() > DEADLINE {
            let _ = child.kill();
            let _ = child.wait();
            return None;
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// Runs `coco-dma` with these arguments and nothing on its standard input.
pub(crate) fn run<S: AsRef<str>>(args: &[S]) -> Ran {
    let mut child = Command::new(env!("CARGO_BIN_EXE_coco-dma"))
        .args(args.iter().map(AsRef::as_ref))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let stdout = drain(child.stdout.take());
    let stderr = drain(child.stderr.take());
    let status = wait(&mut child);
    Ran {
        status,
        stdout: String::from_utf8_lossy(&stdout.join().unwrap()).into_owned(),
        stderr: String::from_utf8_lossy(&stderr.join().unwrap()).into_owned(),
    }
}

/// The rows of a table: number of the line, its columns. A wrong count of columns is a broken table.
pub(crate) fn rows(table: &str, columns: usize) -> Vec<(usize, Vec<&str>)> {
    let mut rows = Vec::new();
    for (index, line) in table.lines().enumerate() {
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        let row: Vec<&str> = line.split(" | ").map(str::trim).collect();
        assert_eq!(row.len(), columns, "broken table, line {}: {line}", index + 1);
        rows.push((index + 1, row));
    }
    rows
}

/// Reads `10`, `0x10`, `4KiB`. For the tables only, so a mistake is a panic.
pub(crate) fn number(text: &str) -> u64 {
    for (unit, shift) in [("KiB", 10), ("MiB", 20), ("GiB", 30)] {
        if let Some(count) = text.strip_suffix(unit) {
            return number(count).checked_shl(shift).unwrap();
        }
    }
    match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => text.parse(),
    }
    .unwrap_or_else(|_| panic!("broken table: {text} is no number"))
}

/// The value of an option in these arguments, the last one if it is there more than once.
pub(crate) fn option<'a>(args: &[&'a str], name: &str) -> Option<&'a str> {
    let mut found = None;
    for pair in args.windows(2) {
        if pair[0] == name {
            found = Some(pair[1]);
        }
    }
    found
}

/// Whether one of the words between slashes is this one.
pub(crate) fn one_of(expected: &str, got: &str) -> bool {
    expected.split('/').any(|word| word == got)
}

/// One answer of `explain --json`, its shape checked.
pub(crate) struct Answer {
    pub(crate) outcome: String,
    pub(crate) reason: String,
    pub(crate) dma_addr: Option<u64>,
    pub(crate) pool: Option<String>,
}

fn word(document: &Value, key: &str) -> Result<String, String> {
    match document.get(key) {
        Some(Value::String(word)) => Ok(word.clone()),
        other => Err(format!("`{key}` must be a string, is {other:?}")),
    }
}

fn word_or_null(document: &Value, key: &str) -> Result<Option<String>, String> {
    match document.get(key) {
        Some(Value::Null) => Ok(None),
        Some(Value::String(word)) => Ok(Some(word.clone())),
        other => Err(format!("`{key}` must be a string or null, is {other:?}")),
    }
}

/// Runs `explain --json` and checks all that holds for every answer: status 0, one JSON document and nothing
/// else, the keys at the top, addresses as `0x…`, steps with rule and text.
pub(crate) fn explain(args: &[&str]) -> Result<Answer, String> {
    let mut all = vec!["explain", "--json"];
    all.extend_from_slice(args);
    let ran = run(&all);
    if ran.status != Some(0) {
        return Err(format!(
            "status {:?} (0 expected: a refusal is an answer), stdout `{}`, stderr `{}`",
            ran.status,
            ran.stdout.trim(),
            ran.stderr.trim()
        ));
    }
    let document: Value = serde_json::from_str(&ran.stdout)
        .map_err(|e| format!("stdout is not one JSON document: {e}: {}", ran.stdout))?;
    if !document.is_object() {
        return Err(format!("the document must be an object: {document}"));
    }
    let dma_addr = match word_or_null(&document, "dma_addr")? {
        None => None,
        Some(text) => {
            let hex = text
                .strip_prefix("0x")
                .ok_or_else(|| format!("`dma_addr` must start with 0x: {text}"))?;
            let address = u64::from_str_radix(hex, 16)
                .map_err(|_| format!("`dma_addr` is no hexadecimal number: {text}"))?;
            Some(address)
        }
    };
    let steps = document.get("steps").and_then(Value::as_array).ok_or("`steps` must be a list")?;
    if steps.is_empty() {
        return Err("`steps` is empty".to_owned());
    }
    for step in steps {
        for key in ["rule", "text"] {
            if word(step, key)?.trim().is_empty() {
                return Err(format!("a step with an empty `{key}`: {step}"));
            }
        }
    }
    let answer = Answer {
        outcome: word(&document, "outcome")?,
        reason: word(&document, "reason")?,
        dma_addr,
        pool: word_or_null(&document, "pool")?,
    };
    if !one_of("direct/bounce/refuse", &answer.outcome) {
        return Err(format!("no outcome of a map: {}", answer.outcome));
    }
    Ok(answer)
}

/// Panics with all failures of a table together.
pub(crate) fn report(what: &str, total: usize, failures: &[String]) {
    assert!(
        failures.is_empty(),
        "{} of {total} {what} failed:\n\n{}\n",
        failures.len(),
        failures.join("\n\n")
    );
}

/// Does the cases on all processors; the failures come back in the order of the cases.
pub(crate) fn in_parallel<T, F>(cases: &[T], check: F) -> Vec<String>
where
    T: Sync,
    F: Fn(&T) -> Option<String> + Sync,
{
    let workers = thread::available_parallelism().map_or(2, usize::from);
    let mut found: Vec<(usize, String)> = thread::scope(|scope| {
        let check = &check;
        let handles: Vec<_> = (0..workers)
            .map(|worker| {
                scope.spawn(move || {
                    let mut mine = Vec::new();
                    for (index, case) in cases.iter().enumerate().skip(worker).step_by(workers) {
                        if let Some(failure) = check(case) {
                            mine.push((index, failure));
                        }
                    }
                    mine
                })
            })
            .collect();
        handles.into_iter().flat_map(|handle| handle.join().unwrap()).collect()
    });
    found.sort();
    found.into_iter().map(|(_, failure)| failure).collect()
}
