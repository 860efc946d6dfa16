//! QEMU's monitor: a line of JSON for each command and each answer.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A connection to the monitor.
pub(super) struct Monitor {
    stream: UnixStream,
    answers: BufReader<UnixStream>,
}

impl Monitor {
    pub(super) fn open(socket: &Path) -> Result<Self> {
        let stream = UnixStream::connect(socket).context("no connection to QEMU's monitor")?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let answers = BufReader::new(stream.try_clone()?);
        let mut monitor = Self { stream, answers };
        monitor.line()?;
        monitor.ask("qmp_capabilities", json!({}))?;
        Ok(monitor)
    }

    /// Asks for a device to be unplugged, as somebody does who presses the button of its slot.
    pub(super) fn unplug(&mut self, id: &str) -> Result<()> {
        self.ask("device_del", json!({ "id": id }))
    }

    /// Writes memory from 0 to `len` to a file.
    pub(super) fn dump(&mut self, len: u64, file: &Path) -> Result<()> {
        self.ask("pmemsave", json!({ "val": 0, "size": len, "filename": file }))
    }

    fn ask(&mut self, command: &str, arguments: Value) -> Result<()> {
        let asked = json!({ "execute": command, "arguments": arguments });
        writeln!(self.stream, "{asked}")?;
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            let answer = self.line()?;
            if answer.get("return").is_some() {
                return Ok(());
            }
            if let Some(error) = answer.get("error") {
                bail!("QEMU's monitor refused {command}: {error}");
            }
            // Anything else is an event.
        }
        bail!("QEMU's monitor does not answer {command}")
    }

    fn line(&mut self) -> Result<Value> {
        let mut line = String::new();
        self.answers.read_line(&mut line).context("QEMU's monitor does not answer")?;
        serde_json::from_str(&line).context("QEMU's monitor answered no JSON")
    }
}
