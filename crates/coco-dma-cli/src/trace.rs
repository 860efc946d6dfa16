//! `--trace FILE`: what Linux's tracefs would have in its file `trace`.

use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::io::BufWriter;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process;
use std::sync::Mutex;
use std::sync::PoisonError;

use coco_dma::observe::Event;
use coco_dma::observe::Observer;
use coco_dma::observe::ftrace::HEADER;
use coco_dma::observe::ftrace::Line;
use coco_dma::observe::ftrace::points;

use crate::failure::Failure;

/// A trace that is written. What cannot be written is told at the end.
#[derive(Debug)]
pub(crate) struct Trace {
    name: String,
    to: Mutex<Sink>,
}

#[derive(Debug)]
struct Sink {
    file: BufWriter<File>,
    step: u64,
    wrong: Option<io::Error>,
}

impl Trace {
    /// Begins a file, which is none of `others`.
    pub(crate) fn begin(path: &Path, others: &[&File]) -> Result<Self, Failure> {
        let name = path.display().to_string();
        let unwritable = |error: io::Error| {
            Failure::Usage(format!("the trace '{name}' cannot be written: {error}"))
        };
        let mut open = OpenOptions::new();
        let file = open.write(true).create(true).truncate(false).open(path).map_err(unwritable)?;
        let about = file.metadata().map_err(unwritable)?;
        for other in others {
            let other = other.metadata().map_err(unwritable)?;
            if (other.dev(), other.ino()) == (about.dev(), about.ino()) {
                let text = format!("the trace '{name}' is the image or the output");
                return Err(Failure::Usage(text));
            }
        }
        if about.is_file() {
            file.set_len(0).map_err(unwritable)?;
        }
        let mut sink = Sink { file: BufWriter::new(file), step: 0, wrong: None };
        sink.write(HEADER);
        Ok(Self { name, to: Mutex::new(sink) })
    }

    /// A remark between the lines.
    pub(crate) fn remark(&self, text: &str) {
        self.sink(|sink| sink.write(&format!("# {text}\n")));
    }

    /// The next line.
    pub(crate) fn line(&self, point: &str) {
        self.sink(|sink| sink.line(point));
    }

    /// Writes what is left, and says whether all of it could be written.
    pub(crate) fn end(&self) -> Result<(), Failure> {
        let wrong = self.sink(|sink| sink.wrong.take().or_else(|| sink.file.flush().err()));
        wrong.map_or(Ok(()), |error| {
            let name = &self.name;
            Err(Failure::Usage(format!("the trace '{name}' cannot be written: {error}")))
        })
    }

    fn sink<T>(&self, then: impl FnOnce(&mut Sink) -> T) -> T {
        then(&mut self.to.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Sink {
    fn line(&mut self, point: &str) {
        self.step += 1;
        let line = Line { task: "coco-dma", pid: process::id(), cpu: 0, step: self.step, point };
        self.write(&format!("{line}\n"));
    }

    fn write(&mut self, text: &str) {
        if self.wrong.is_none() {
            self.wrong = self.file.write_all(text.as_bytes()).err();
        }
    }
}

impl Observer for Trace {
    fn event(&self, event: &Event<'_>) {
        self.sink(|sink| points(event).for_each(|point| sink.line(&point.to_string())));
    }

    fn wants_maps(&self) -> bool {
        true
    }
}
